"""Two hosts meet: what is said, asked and appraised before anything of a VM moves."""
