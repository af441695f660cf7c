"""What was found of a target, each thing filed under the fact that it shows, with where it can be seen again.

Promise: of one fact about one subject there is one finding, so taking a finding away leaves a gap, and never
uncovers a better one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from types import MappingProxyType
from typing import Final

SITE: Final = ""
"""The subject of what is true of the target as a whole, and of no host alone."""


class Kind(StrEnum):
    """What is evaluated."""

    MIGRATION = "migration"
    INSTALLATION = "installation"


@dataclass(frozen=True, slots=True)
class Target:
    """`subjects` are the hosts that an installation is made of, also those of which nothing can be found."""

    kind: Kind
    name: str
    subjects: tuple[str, ...] = ()


class Standing(StrEnum):
    """How what was found stands to what is asked."""

    GOOD = "good"  # as in the ideal
    PARTLY = "partly"
    LACKING = "lacking"  # looked for, and not there
    BROKEN = "broken"  # contradicted: something was changed, or does not hold


WORTH: Final[Mapping[Standing, Fraction]] = MappingProxyType(
    {
        Standing.GOOD: Fraction(1),
        Standing.PARTLY: Fraction(1, 2),
        Standing.LACKING: Fraction(0),
        Standing.BROKEN: Fraction(0),
    }
)


class Place(StrEnum):
    """What a link leads to."""

    RECEIPT = "receipt"  # a file, with its digest
    CHECK = "check"  # one of `korora receipt verify`
    STATEMENT = "statement"  # by the digest of its envelope
    LOG = "log"  # an entry of a host's log
    CONFIGURATION = "configuration"  # file and line
    COMMAND = "command"  # what shows it again


@dataclass(frozen=True, slots=True)
class Link:
    """Where the evidence can be looked at by somebody who does not believe the report.

    `file` is the path of a file on this machine, where it is one.
    """

    place: Place
    where: str
    file: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found. `remedy` is what mends it here, where that can be said exactly."""

    fact: str
    standing: Standing
    found: str
    links: tuple[Link, ...] = ()
    subject: str = SITE
    remedy: str = ""


Slot = tuple[str, str]  # fact, subject
Evidence = Mapping[Slot, Finding]


def filed(findings: Iterable[Finding]) -> Evidence:
    """The findings by their slots. ValueError when two claim the same one."""
    by_slot: dict[Slot, Finding] = {}
    for finding in findings:
        slot = (finding.fact, finding.subject)
        if slot in by_slot:
            raise ValueError(f"two findings of {finding.fact!r} about {finding.subject or 'the target'!r}")
        by_slot[slot] = finding
    return by_slot
