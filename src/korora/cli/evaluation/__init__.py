"""Data gathering for `korora evaluate`, from receipts and from daemons, and the report for readers."""
