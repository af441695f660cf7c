"""What is popular on the disks of running VMs: watched, kept, told."""
