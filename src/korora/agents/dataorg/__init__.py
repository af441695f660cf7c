"""The Data Organization agent (A5, W6): which parts of a disk are popular; in which order it is copied."""
