"""Diffs of disks: a file that turns one content into one other, and nothing else (docs/DIFFS.md)."""
