"""The Integrity Analyzer of the paper: configuration files, disks, files, malware, indicators, flags."""
