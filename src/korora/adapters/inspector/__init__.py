"""Inspectors of VMs: `ports.inspector`."""
