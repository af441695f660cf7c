"""Disk images, read through QEMU's block layer in a sandbox."""
