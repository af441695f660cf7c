"""What was gathered of one target, and how: the evidence, and the steps that led to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from korora.errors import KororaError
from korora.policy.evaluation.evidence import Evidence, Link, Place, Target


@dataclass(frozen=True, slots=True)
class Gathered:
    """`process` says in sentences what was done, and what could not be."""

    target: Target
    evidence: Evidence
    process: tuple[str, ...]


def line_of(path: Path | None, words: str) -> tuple[Link, ...]:
    """The line of a configuration file in which these words stand; nothing when there is none."""
    from korora.cli.site import read_text

    if path is None:
        return ()
    try:
        text = read_text(path, "the file")
    except KororaError:
        return ()
    numbered = enumerate(text.splitlines(), start=1)
    found = next((number for number, line in numbered if words in line), None)
    return () if found is None else (Link(Place.CONFIGURATION, f"{path}:{found}", str(path.absolute())),)
