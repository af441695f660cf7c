"""Access classes: an integrity level and a set of categories, ordered by dominance (P3).

The proofs hold for every partial order of classes; this is the one that runs.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class Level(IntEnum):
    """Integrity, from the lowest; the paper, section 4.1, item 13."""

    UA = 0  # user agent: operators, their requests, what comes from outside
    RP = 1  # relying party: hosts, the session, memory and disks of the VM
    IDP = 2  # identity provider: the record of a migration, its tickets
    TA = 3  # trusted authority: appraisers, verdicts, measurements
    VTPM = 4  # the root: virtual TPMs, quotes


class AccessClass(NamedTuple):
    """`categories` is a bit mask: what the compartment is called is the installation's."""

    level: Level
    categories: int = 0

    def dominates(self, other: AccessClass) -> bool:
        return self.level >= other.level and not other.categories & ~self.categories
