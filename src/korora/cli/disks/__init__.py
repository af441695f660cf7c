"""Disks of VMs, as they are shown."""
