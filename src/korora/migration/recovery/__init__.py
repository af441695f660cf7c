"""Hand-overs that a crash or a lost connection left open, and the table that decides them."""
