"""Files inside of disks: what they are, and whether the system's own are as its packages made them (E3)."""
