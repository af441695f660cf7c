"""Diffs of disks: made of two contents, and applied to one (W2, docs/DIFFS.md)."""
