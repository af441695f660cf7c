"""Diffs of disks on this machine: made, verified, applied (W2, docs/DIFFS.md)."""
