"""The I/O agent (A2, W3): a guest's disk is copied so that its guest hardly notices."""
