"""What a host's log says of one decision of its rules: who asked for what, the answer, and why (C4, P2).

Limit: a leaf is the host's own word, as good as the log that it is in.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from korora.errors import IntegrityError
from korora.protocol import canonical

VERSION = 1
Word = Annotated[str, msgspec.Meta(max_length=256)]
Number = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class PolicyDecision(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A leaf. `request` (a digest) and `session` tell the migration; empty while they are not known.

    `number` counts this host's decisions of the migration from 0; `value` is the digest of what was made;
    `at` is in Unix seconds. For a *no*, `rule`, `clause` and `protects` say why.
    """

    version: int = VERSION
    kind: Literal["policy"] = "policy"
    vm: Word
    request: Word
    session: Word
    role: Literal["source", "destination"]
    number: Number
    procedure: Word
    user: Word
    agent: Word
    takes: Word
    makes: Word
    value: Word
    answer: Literal["yes", "no", "error", "question"]
    rule: Word
    clause: Word
    protects: Word
    at: Number

    def leaf(self) -> bytes:
        return canonical.encoded(self)


def read(leaf: bytes) -> PolicyDecision | None:
    """The decision; None for a leaf of another kind."""
    try:
        return canonical.decoded(leaf, PolicyDecision)
    except IntegrityError:
        return None
