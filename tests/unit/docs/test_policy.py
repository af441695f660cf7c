"""docs/POLICY.md tells the rules that are in force, and no others."""

from __future__ import annotations

from pathlib import Path

from korora.policy.machine.beginning import AGENTS, CONSTRAINED, STEPS, UNCONSTRAINED
from korora.policy.machine.omega.classical import CLASSICAL
from korora.policy.machine.omega.procedures import PREREQUISITES, UPGRADES
from korora.policy.machine.omega.properties import CONSTRAINTS, INVARIANTS
from korora.policy.proof.audit import EXPLAINED

POLICY = (Path(__file__).parents[3] / "docs" / "POLICY.md").read_text()
LEVELS = CONSTRAINED | UNCONSTRAINED


def rows(after: str) -> list[str]:
    """The rows of the table under the header that begins like this."""
    lines = POLICY[POLICY.index(after) :].splitlines()
    return [line for line in lines[2 : lines.index("", 1)] if line.startswith("|")]


def test_every_procedure_stands_in_the_table_as_it_is() -> None:
    expected = [
        f"| {procedure} | {', '.join(PREREQUISITES[procedure]) or '–'} | {step.user}"
        f" | {step.agent} ({AGENTS[step.agent].name}) | {step.takes} ({LEVELS[step.takes].name})"
        f" | {step.makes} ({LEVELS[step.makes].name}){' **↑**' if procedure in UPGRADES else ''} |"
        for procedure, step in STEPS.items()
    ]
    assert rows("| procedure | after |") == expected


def test_every_property_stands_there_with_its_source() -> None:
    assert rows("| invariant | from |") == [f"| {one.name} | {one.source} |" for one in INVARIANTS]
    assert rows("| constraint | from |") == [f"| {one.name} | {one.source} |" for one in CONSTRAINTS]


def test_every_redundant_clause_is_explained_there() -> None:
    assert rows("| clause | why") == [f"| {clause} | {why} |" for clause, why in EXPLAINED.items()]


def test_every_classical_request_is_named() -> None:
    for request in {rule.request for rule in CLASSICAL}:
        assert request in POLICY
