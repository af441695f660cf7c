"""How near a migration, or an installation, comes to the ideal (P5): evidence, yardstick, scores. Pure.

The paper's components of an evaluation (section 4) by their places here: target and gathered data are
`evidence`, criteria and yardstick `yardstick` with the data in `migration` and `installation`, synthesis is
`scoring`. Gathering, and the process around it, belongs to whoever asks (`korora evaluate`).
"""
