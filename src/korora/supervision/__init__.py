"""The VMs of this host: which there are, which run, what ended them, and what they booted."""
