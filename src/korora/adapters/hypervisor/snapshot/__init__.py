"""The disks of a running VM as they were at one moment (see moment)."""
