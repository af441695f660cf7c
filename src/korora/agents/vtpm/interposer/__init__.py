"""One small process per VM that stands between the hypervisor and its swtpm, on both of swtpm's channels."""
