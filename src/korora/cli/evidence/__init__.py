"""The command line as verifier: trust anchors, and what they say of hosts, receipts and logs."""
