"""Package databases that a tool of this machine reads."""
