"""What `korora migrate` does: ask, watch, cancel, and say how it ended."""
