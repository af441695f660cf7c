"""ω: all rules that are in force."""

from __future__ import annotations

from typing import Final

from korora.policy.machine.classical import CLASSICAL
from korora.policy.machine.procedures import PROCEDURES
from korora.policy.machine.rule import Rule

RULES: Final[tuple[Rule, ...]] = CLASSICAL + PROCEDURES
