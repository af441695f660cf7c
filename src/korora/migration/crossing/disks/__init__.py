"""Disks that cross with their VM: which, how, and held to be the same on both sides."""
