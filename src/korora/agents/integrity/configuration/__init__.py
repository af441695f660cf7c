"""The Integrity Analyzer's eye for configuration files: text in, what it says and what changed out (E1)."""
