"""ω, the rules that are in force, and the properties that each of them is proved to keep."""
