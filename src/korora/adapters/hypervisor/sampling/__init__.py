"""Which parts of its disks a running guest reads and writes, from QEMU's trace events (see sampler)."""
