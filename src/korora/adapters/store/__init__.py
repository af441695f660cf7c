"""What this host has already, by name (docs/STORE.md)."""
