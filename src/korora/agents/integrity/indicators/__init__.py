"""Indicators from several sources: read, brought into one spelling, merged, and found (requirement E4)."""
