"""What `korora doctor` looks at, area by area."""

from __future__ import annotations

from collections.abc import Iterator

from korora.cli.diagnosis.machine import of_machine
from korora.cli.diagnosis.site import of_site
from korora.cli.diagnosis.symptom import Symptom
from korora.cli.invocation import Invocation

__all__ = ["Symptom", "examine"]


def examine(invocation: Invocation) -> Iterator[Symptom]:
    """Everything, in the order in which it is best mended. Raises nothing: what fails is a symptom."""
    yield from of_machine()
    yield from of_site(invocation)
