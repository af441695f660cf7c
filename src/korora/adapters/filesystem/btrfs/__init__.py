"""btrfs, read by this program itself: every tree block and every sector of data against its checksum."""
