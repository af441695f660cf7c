"""The daemon of a host: its life, and the API by which the command line and other programs speak to it."""
