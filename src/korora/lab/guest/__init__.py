"""The lab's guest: Debian's kernel, and an initrd with our own small program as its workload."""
