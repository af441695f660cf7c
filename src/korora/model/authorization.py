"""The answer to "may this operator do this?", as a value: a no is no exception."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Authorized:
    """Yes. `by` names the rule, for the receipt."""

    by: str


@dataclass(frozen=True, slots=True)
class Denied:
    """No. `kind` is stable and machine-readable; `remedy` says whom to ask or what to change."""

    kind: str
    reason: str
    remedy: str
