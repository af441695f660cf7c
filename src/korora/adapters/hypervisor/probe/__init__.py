"""What this host's hypervisor can really do, found by trying."""
