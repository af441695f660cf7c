"""A QEMU that somebody else started: what it is, and how to make the same hardware elsewhere."""
