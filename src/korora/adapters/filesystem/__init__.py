"""Files inside of disk images: file systems are read by The Sleuth Kit and libyal, in a sandbox."""
