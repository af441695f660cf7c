"""Services on the network that are asked for a hash, and told nothing else."""
