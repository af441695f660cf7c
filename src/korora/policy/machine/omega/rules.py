"""ω: all rules that are in force."""

from __future__ import annotations

from typing import Final

from korora.policy.machine.language.rule import Rule
from korora.policy.machine.omega.classical import CLASSICAL
from korora.policy.machine.omega.procedures import PROCEDURES

RULES: Final[tuple[Rule, ...]] = CLASSICAL + PROCEDURES
