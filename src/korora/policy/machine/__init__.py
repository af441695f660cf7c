"""The paper's state machine: states t = (a, B, c, D), and the rules ω that decide every request (P1–P3).

Read `vocabulary` for what a state holds, `classical` and `procedures` for the rules, `properties` for what
each of them keeps. One text of a rule is decided by `machine` and proved by `policy.proof`: docs/POLICY.md.
"""
