"""A person's signed answer to a question: about one matter, for one time, until it expires (P2, S2)."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from korora.errors import IntegrityError, UsageError
from korora.model.identity import HostName, OperatorName, VmName, checked_name
from korora.model.plan import Mode
from korora.model.question import Matter
from korora.protocol import canonical, dsse
from korora.protocol.statements import Name, Nonce, Time

VERSION: Final = 1
TYPE: Final = "application/vnd.korora.answer+json"
MAX_BYTES: Final = 16 * 1024


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`by` answers what `operator` asked for. It applies once on each of the two hosts, by `not_after`;
    with a `policy` (Cedar), that is put in force there, and decides.
    """

    version: int = VERSION
    by: Name
    answer: Literal["yes", "no"]
    reason: Annotated[str, msgspec.Meta(max_length=1024)]
    operator: Name
    procedure: Name
    vm: Name
    source: Name
    destination: Name
    mode: Mode
    policy: Annotated[str, msgspec.Meta(max_length=8192)] = ""
    nonce: Nonce
    issued_at: Time
    not_after: Time

    @property
    def matter(self) -> Matter:
        """IntegrityError(kind="malformed-statement") for names that are none."""
        try:
            return Matter(
                OperatorName(checked_name(self.operator, "operator")),
                self.procedure,
                VmName(checked_name(self.vm, "VM")),
                HostName(checked_name(self.source, "source")),
                HostName(checked_name(self.destination, "destination")),
                self.mode,
            )
        except UsageError as error:
            raise _malformed(error.message) from error


def signed(answer: Answer, key: dsse.SigningKey) -> bytes:
    return dsse.envelope(TYPE, canonical.encoded(answer), [key])


def peek(envelope: bytes) -> Answer:
    """What it claims, nothing verified: only good for looking up whose key to verify it with."""
    read = dsse.parse(envelope, limit=MAX_BYTES)
    if read.payload_type != TYPE:
        raise _malformed(f"it is a {read.payload_type[:100]!r}, not an answer")
    return canonical.decoded(read.payload, Answer)


def opened(envelope: bytes, signer: dsse.PublicKey) -> Answer:
    """The answer, once this very key is seen to have signed it. IntegrityError otherwise."""
    payload = dsse.opened(envelope, TYPE, {dsse.key_id(signer): signer}, limit=MAX_BYTES)
    answer = canonical.decoded(payload, Answer)
    if answer.version != VERSION:
        raise _malformed(f"version {answer.version} of it is not known here")
    return answer


def _malformed(problem: str) -> IntegrityError:
    return IntegrityError(
        f"the answer cannot be read: {problem}",
        kind="malformed-statement",
        remedy="both sides must run the same version of Korora",
    )
