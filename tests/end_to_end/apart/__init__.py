"""Tests that bring a lab of their own, or need none: they run beside those that share one."""
