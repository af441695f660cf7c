"""One thing that was looked at."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Symptom:
    """`remedy` is a command where there is one. What is not `needed` only widens what can be done."""

    area: str
    what: str
    good: bool
    found: str
    remedy: str = ""
    needed: bool = True
