"""The paper's state machine: states t = (a, B, c, D), and the rules ω that decide every request (P1–P3).

`language` is what rules are written in; its `vocabulary` says what a state holds. `omega` holds the rules,
and the properties that each of them keeps. `running` decides. `beginning` and `monitor` put it to use: what a
migration begins with, and who is asked before each of its procedures. One text of a rule is decided by
`running` and proved by `policy.proof`: docs/POLICY.md.
"""
