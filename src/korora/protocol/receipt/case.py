"""One receipt before its judge: each part is opened where a check needs it, its failure told to whoever asks.

Raises IntegrityError or RefusedError; `verification` makes findings of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from korora.errors import IntegrityError, PeerError
from korora.model.evidence import HostEvidence
from korora.model.identity import HostName, OperatorName
from korora.model.plan import MigrationRequest
from korora.policy.appraisal import Presented, Trusted, Untrusted
from korora.policy.certificates import checked_host_certificate
from korora.protocol import dsse, handshake, messages, statements
from korora.protocol.receipt import document
from korora.protocol.receipt.document import Bundle, HostPart, Receipt
from korora.protocol.statements import Accept, Manifest, Move, Release, Running


class Appraiser(Protocol):
    """`protocol.host_appraisal.appraise_host` with the site's anchors filled in."""

    def __call__(
        self,
        presented: Presented,
        evidence: HostEvidence,
        *,
        host: HostName,
        qualifying_data: bytes,
        now: float,
    ) -> Trusted | Untrusted: ...


@dataclass(frozen=True, slots=True)
class Judge:
    """Whom the verifier trusts. `operators` are Ed25519 public keys, 32 bytes each; `now` in Unix seconds."""

    authority: x509.Certificate
    operators: Mapping[OperatorName, bytes]
    appraise: Appraiser
    now: float


class Case:
    """One bundle before its judge; each part is opened once, and its failure told to whoever needs it."""

    def __init__(self, bundle: Bundle, judge: Judge) -> None:
        self.bundle = bundle
        self.judge = judge
        self.envelope = bytes(bundle.receipt)
        self.receipt: Receipt = document.peek(self.envelope)

    @property
    def at(self) -> float:
        return float(self.receipt.completed_at)

    @property
    def move(self) -> Move:
        told = self.receipt
        return Move(told.vm, told.source, told.destination, told.session, told.epoch)

    def key(self, part: HostPart, host: str) -> dsse.PublicKey:
        """The host's TLS key, once the authority certified it for this name at that time."""
        certificate = checked_host_certificate(
            part.tls_certificate, HostName(host), self.judge.authority, self.at
        )
        key = certificate.public_key()
        if not isinstance(key, ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey):
            raise bad(f"the key of {host} is neither Ed25519 nor ECDSA P-256")
        try:
            dsse.key_id(key)
        except ValueError as error:
            raise bad(f"the key of {host}: {error}") from error
        return key

    @property
    def source_key(self) -> dsse.PublicKey:
        return self.key(self.receipt.source_host, self.receipt.source)

    @property
    def destination_key(self) -> dsse.PublicKey:
        return self.key(self.receipt.destination_host, self.receipt.destination)

    def greeting(self) -> handshake.Greeting:
        """Both HELLOs, once they name this session and these hosts."""
        told = self.receipt
        source, destination = hello_of(told.source_host), hello_of(told.destination_host)
        greeted = handshake.greeting(source, told.source_host.hello, destination, told.destination_host.hello)
        if (greeted.session, source.host, destination.host) != (told.session, told.source, told.destination):
            raise bad("the HELLOs are those of another session or other hosts")
        return greeted

    def request(self) -> MigrationRequest:
        """What the operator asked for, once the operator's known key is seen to have signed it."""
        claimed = statements.peek_request(self.receipt.request)
        raw = self.judge.operators.get(claimed.operator)
        if raw is None:
            raise bad(f"no key is known of the operator {claimed.operator!r}")
        key = ed25519.Ed25519PublicKey.from_public_bytes(raw)
        return statements.open_request(self.receipt.request, {dsse.key_id(key): key})

    def manifest(self) -> Manifest:
        told = statements.opened(self.receipt.ownership.manifest, Manifest, self.source_key)
        statements.check_move(told, self.move)
        return told

    def accept(self) -> Accept:
        told = statements.opened(self.receipt.ownership.accept, Accept, self.destination_key)
        statements.check_move(told, self.move)
        statements.check_answers(told.manifest, self.receipt.ownership.manifest, "manifest")
        return told

    def release(self) -> Release:
        told = statements.opened(self.receipt.ownership.release, Release, self.source_key)
        statements.check_move(told, self.move)
        statements.check_answers(told.accept, self.receipt.ownership.accept, "acceptance")
        return told

    def running(self) -> Running:
        told = statements.opened(self.receipt.ownership.running, Running, self.destination_key)
        statements.check_move(told, self.move)
        statements.check_answers(told.release, self.receipt.ownership.release, "release")
        return told


def hello_of(part: HostPart) -> messages.Hello:
    """The HELLO as it stood on the wire."""
    try:
        read = messages.decode(part.hello)
    except PeerError as error:
        raise bad(f"a HELLO cannot be read: {error.message}") from error
    if not isinstance(read, messages.Hello):
        raise bad("what stands in the place of a HELLO is none")
    return read


def presented(part: HostPart) -> Presented:
    hello = hello_of(part)
    return Presented(hello.ek_certificate, hello.ak_public, hello.enrolment, part.tls_certificate)


def bad(message: str) -> IntegrityError:
    return IntegrityError(
        message,
        kind="bad-receipt",
        remedy="do not rely on this receipt; ask both hosts for theirs, and for their logs",
    )
