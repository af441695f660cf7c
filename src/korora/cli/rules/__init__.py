"""`korora policy`, command by command: what is allowed, what is promised, what was decided."""
