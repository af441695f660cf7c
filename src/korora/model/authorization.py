"""The answer to "may this operator do this?", as a value: a no is no exception."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Authorized:
    """Yes. `by` names the policies, for the receipt."""

    by: str


@dataclass(frozen=True, slots=True)
class Denied:
    """No. `kind` is stable and machine-readable; `remedy` says whom to ask or what to change."""

    kind: str
    reason: str
    remedy: str


@dataclass(frozen=True, slots=True)
class NeedsApproval:
    """Yes, once a second person agrees. `by` names the policies that say so."""

    by: str


@dataclass(frozen=True, slots=True)
class Uncovered:
    """No policy speaks of it, and the site wants a person to be asked then (a *question* of the paper)."""

    reason: str


Answer: TypeAlias = Authorized | Denied | NeedsApproval | Uncovered
