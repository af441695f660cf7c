"""What is written down: the file on a migration, signed statements, receipts, the outcome."""
