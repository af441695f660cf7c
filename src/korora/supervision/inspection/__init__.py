"""Looking into this host's VMs: what was found of each, its flags, and what goes with it when it moves."""
