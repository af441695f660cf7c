"""Logical volumes, put together from what LVM wrote on the disk."""
