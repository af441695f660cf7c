"""Disks that move with their VM: mirrored, received, and told what was written to them."""
