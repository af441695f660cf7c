"""Where a host keeps its access list."""
