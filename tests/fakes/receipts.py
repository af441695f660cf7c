"""A site with two hosts and an operator, and the receipt of one migration between them. Every part can be
changed before it is signed, so that a test can be the forger it wants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import msgspec
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding

from fakes.site import NOW, TestSite
from korora.model.crossing import Carried
from korora.model.evidence import (
    BlobDigests,
    CleanMemoryProof,
    HostEvidence,
    Quote,
    StreamRoot,
    VtpmIdentity,
    WipeCertificate,
    WipeStep,
)
from korora.model.identity import Digest, HostName, OperatorName, VmName, sha256
from korora.model.inspection import Check, CheckResult, DiskFacts, Disposition, Inspection
from korora.model.plan import MigrationRequest, Mode
from korora.model.storage import DiskContent
from korora.policy.appraisal import Platform, Presented, Trusted, Untrusted
from korora.protocol import dsse, log, messages, statements
from korora.protocol.dsse import KeyPair
from korora.protocol.handshake import DESTINATION, OFFER, SOURCE, choose_rule, greeting, qualifying_data
from korora.protocol.merkle import nodes_of
from korora.protocol.receipt import document
from korora.protocol.receipt.case import Judge
from korora.protocol.receipt.document import Flags, GuestBoot, HostPart, Limit, Ownership, Receipt, Timings
from korora.protocol.statements import Accept, Manifest, Release, Running, move_of

AT = int(NOW.timestamp())
BINDING = b"\x0b" * 32
SITE = TestSite()
NORTH, SOUTH, STRANGER = (SITE.host(name) for name in ("north", "south", "stranger"))
OPERATOR = KeyPair(ed25519.Ed25519PrivateKey.from_private_bytes(b"\x04" * 32))
Change = Callable[[Receipt], Receipt]


def key_of(host: Any) -> KeyPair:
    return KeyPair(host.key)


def hello(role: str, host: str, half: bytes) -> messages.Hello:
    name = host.encode()
    return messages.Hello(1, role, host, half, OFFER, b"EK " + name, b"AK " + name, b"enrolment " + name)


SOURCE_HELLO = hello(SOURCE, "north", b"\x01" * 32)
DESTINATION_HELLO = hello(DESTINATION, "south", b"\x02" * 32)
GREETED = greeting(
    SOURCE_HELLO, messages.encode(SOURCE_HELLO), DESTINATION_HELLO, messages.encode(DESTINATION_HELLO)
)
MOVE = move_of(VmName("web"), HostName("north"), HostName("south"), GREETED.session, 2)
REQUEST = MigrationRequest(
    OperatorName("alice"),
    "migrate",
    VmName("web"),
    HostName("north"),
    HostName("south"),
    Mode.LIVE,
    "0f" * 32,
    AT - 60,
    AT + 540,
)
VTPM = VtpmIdentity("000b" + "7" * 64, {0: "aa" * 32}, {"0x1c00002": "bb"}, sha256(b"permanent"))
CARRIED = Carried(
    (StreamRoot(0, "forward", 4, 2048, sha256(b"f")), StreamRoot(0, "return", 1, 8, sha256(b"r"))),
    2056,
    2300,
    BlobDigests(sha256(b"p"), sha256(b"v"), sha256(b"s")),
    VTPM,
)


@dataclass(frozen=True)
class Told:
    """What the two hosts sign, before they sign it."""

    request: MigrationRequest = REQUEST
    sent: Carried = CARRIED
    arrived: Carried = CARRIED
    sent_disks: tuple[DiskContent, ...] = ()
    arrived_disks: tuple[DiskContent, ...] = ()
    move: statements.Move = MOVE
    source: Any = NORTH
    destination: Any = SOUTH
    operator: KeyPair = OPERATOR
    change: Change = lambda receipt: receipt


def request_envelope(told: Told) -> bytes:
    return dsse.envelope(statements.REQUEST_TYPE, statements.encode_request(told.request), [told.operator])


def ownership(told: Told) -> Ownership:
    source, destination, move = key_of(told.source), key_of(told.destination), told.move
    here, there = statements.written_disks(told.sent_disks), statements.written_disks(told.arrived_disks)
    manifest = statements.signed(
        Manifest(move=move, at=AT, mode=Mode.LIVE, carried=told.sent, files={}, disks=here), source
    )
    accept = statements.signed(
        Accept(move=move, at=AT, manifest=sha256(manifest), carried=told.arrived, disks=there), destination
    )
    release = statements.signed(Release(move=move, at=AT, accept=sha256(accept)), source)
    running = statements.signed(Running(move=move, at=AT, release=sha256(release)), destination)
    return Ownership(manifest=manifest, accept=accept, release=release, running=running)


def evidence(role: str) -> HostEvidence:
    """The pretended quote is its own qualifying data."""
    return HostEvidence(Quote(qualifying_data(role, GREETED, BINDING), b"signature"), {0: "00" * 32}, b"log")


INSPECTION: Final = Inspection(
    vm="web",
    host="north",
    at=AT - 60,
    took_s=30,
    running=True,
    checks=tuple(
        CheckResult(
            check=check,
            disposition=Disposition.BLOCK,
            examined=5,
            words="clamav: 1, yara: 1, reputation: 1" if check is Check.MALWARE else "",
        )
        for check in Check
    ),
    disks=(
        DiskFacts(
            name="disk0",
            format="raw",
            size=2**20,
            root=Digest("blake3:" + "1" * 64),
            files_root=Digest("blake3:" + "2" * 64),
            files=5,
        ),
    ),
    baseline=Digest("sha256:" + "3" * 64),
)
FLAGS: Final = Flags(record=Digest("sha256:" + "4" * 64), open=0, resolved=1)


def receipt(told: Told) -> Receipt:
    rule = choose_rule(GREETED, tls_version="TLSv1.3", tls_group="X25519MLKEM768", streams=2)
    north, south = (host.certificate.public_bytes(Encoding.DER) for host in (told.source, told.destination))
    return told.change(
        Receipt(
            vm="web",
            source="north",
            destination="south",
            session=GREETED.session,
            epoch=2,
            mode=Mode.LIVE,
            request=request_envelope(told),
            source_host=HostPart(
                hello=GREETED.source_bytes, tls_certificate=north, evidence=evidence(SOURCE), allowed_by="a"
            ),
            destination_host=HostPart(
                hello=GREETED.destination_bytes,
                tls_certificate=south,
                evidence=evidence(DESTINATION),
                allowed_by="b",
            ),
            binding=BINDING,
            rule=rule,
            prechecks=("cpu", "memory"),
            clean_memory=CleanMemoryProof("st_blocks", 2**29, 0, clean=True),
            wrapping=None,
            inspection=None,
            flags=None,
            guest_boot=GuestBoot(verdict="trusted", secure_boot=True),
            ownership=ownership(told),
            wipe=WipeCertificate((WipeStep("guest memory", "overwritten", 2**29, verified=True),), ("swap",)),
            timings=Timings(phases={"transfer": 900, "commit": 40}, downtime_ms=120, total_ms=1500),
            bytes_sent=2300,
            bytes_guest=2**29,
            limits=(Limit.VTPM_IN_STREAM, Limit.NOT_INSPECTED),
            completed_at=AT + 2,
        )
    )


def envelope(told: Told) -> bytes:
    signed = document.signed(receipt(told), key_of(told.source))
    return dsse.countersign(signed, key_of(told.destination))


def proof(host: str, key: KeyPair, leaf: bytes, others: int) -> log.LogProof:
    """The leaf behind `others` older ones."""
    node = nodes_of([*(b"older %d" % number for number in range(others)), leaf])
    head = log.signed_head(host, others + 1, node, at=AT + 3, key=key)
    return log.proof(host, others, others + 1, node, head)


def bundle(told: Told | None = None) -> bytes:
    told = told or Told()
    signed = envelope(told)
    leaf = document.leaf(signed)
    return document.bundle(
        signed,
        proof("north", key_of(told.source), leaf, 5),
        proof("south", key_of(told.destination), leaf, 0),
    )


def appraise(
    presented: Presented, evidence: HostEvidence, *, host: HostName, qualifying_data: bytes, now: float
) -> Trusted | Untrusted:
    """Trusts exactly what the two hosts showed in this session."""
    name = host.encode()
    shown = (presented.ek_certificate, presented.ak_public, presented.enrolment)
    if shown != (b"EK " + name, b"AK " + name, b"enrolment " + name):
        return Untrusted("not-enrolled", "other credentials", "")
    if evidence != HostEvidence(Quote(qualifying_data, b"signature"), {0: "00" * 32}, b"log"):
        return Untrusted("quote-nonce", "another quote", "")
    platform = Platform("good", evidence.pcrs, None, 0, 0)
    return Trusted(host, platform, "000b", sha256(presented.ek_certificate), AT)


def judge(now: float = AT + 10.0) -> Judge:
    raw = OPERATOR.public_key()
    assert isinstance(raw, ed25519.Ed25519PublicKey)
    return Judge(SITE.certificate, {OperatorName("alice"): raw.public_bytes_raw()}, appraise, now)


def changed(**fields: Any) -> Told:
    """Both hosts agree on another story."""
    return Told(change=partial(msgspec.structs.replace, **fields))
