"""Engines that look for malware, each behind `korora.ports.scanner`."""
