"""A value that an earlier phase must have set."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


def known(value: T | None) -> T:
    """The value. A None here is a phase out of order: a bug, not a condition."""
    if value is None:
        raise AssertionError("a phase of the migration ran before the one that it builds on")
    return value
