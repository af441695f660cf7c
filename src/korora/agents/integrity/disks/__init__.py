"""Virtual disks: what a guest sees of them, and whether their containers can be trusted (E2)."""
