"""Tests on real hypervisors, TPMs and networks."""
