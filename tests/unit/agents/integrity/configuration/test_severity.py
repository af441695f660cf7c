"""The tables of severity and of a move are those of the documentation, and what is open is open."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from korora.agents.integrity.configuration import comparing, moving, severity
from korora.model.vm_settings import Component, Fact, Field, Part

PAGE = (Path(__file__).parents[5] / "docs" / "CONFIGURATION.md").read_text()


def test_the_documentation_has_every_row() -> None:
    for field, grave in severity.OF_VM.items():
        row = next(
            line for line in PAGE.splitlines() if re.match(rf"\| {grave} \| .*\b{re.escape(field)}\b", line)
        )
        assert row
    for part, grave in severity.ADDED.items():
        assert f"| {part} | {grave} | {severity.REMOVED[part]} |" in PAGE
    for (part, field), grave in severity.OF_DEVICE.items():
        assert f"| {part} | {field} | {grave} |" in PAGE
    for format_, pattern, grave in severity.OTHERS:
        assert f"| {format_} | `{pattern.replace('|', chr(92) + '|')}` | {grave} |" in PAGE
    for format_, patterns in moving.OTHERS.items():
        for pattern in patterns:
            assert f"| {format_} | `{pattern.replace('|', chr(92) + '|')}` |\n" in PAGE


def test_every_fact_that_is_compared_between_formats_is_named_there() -> None:
    section = PAGE[PAGE.index("### Between formats") : PAGE.index("## What is not told")].replace("\n", " ")
    for field in comparing.BETWEEN_FORMATS:
        assert field.value in section
    for kind in comparing.KINDS:
        assert kind in section


@pytest.mark.parametrize(
    ("address", "password", "is_open"),
    [
        (None, "none", True), ("0.0.0.0", "none", True), ("127.0.0.1", "none", False), ("::1", "none", False),  # noqa: S104
        ("127.0.0.1, 10.0.0.1", "none", True), ("0.0.0.0", "set", False), ("no network", "none", False),  # noqa: S104
        ("127.0.0.1.example", "none", True), (None, None, True),
    ],
)  # fmt: skip
def test_a_display_is_open_without_a_password_to_others(
    address: str | None, password: str | None, is_open: bool
) -> None:
    said = ((Field.ADDRESS, address), (Field.PASSWORD, password))
    facts = tuple(Fact(field, value) for field, value in said if value is not None)
    display = Component(Part.DISPLAY, "vnc", "vnc", facts)
    assert severity.is_open(display) == is_open
    assert severity.of_added(display) == ("critical" if is_open else "warning")
