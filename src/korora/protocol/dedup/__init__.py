"""What the destination has already is named by hash, and not sent (docs/protocol/deduplication.md)."""
