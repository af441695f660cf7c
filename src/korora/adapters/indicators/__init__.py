"""Stores of indicators."""
