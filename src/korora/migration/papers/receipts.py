"""The receipt of a finished migration: drafted by the source, countersigned by the destination, filed.

Promise: the destination signs only what it saw itself; each host's log has the receipt before its file has.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from korora.errors import IntegrityError
from korora.migration.known import known
from korora.migration.papers.file import MigrationFile
from korora.migration.setting import Setting
from korora.model.evidence import WipeCertificate
from korora.model.identity import SessionId
from korora.protocol import canonical, dsse, log, messages
from korora.protocol.receipt import document as paper
from korora.protocol.receipt.document import GuestBoot, HostPart, Ownership, Receipt, Timings

_NOT_THIS_HOSTS: Final = WipeCertificate(steps=())  # only compared, never signed
_SEEN_BY_BOTH: Final = (
    "vm",
    "source",
    "destination",
    "session",
    "epoch",
    "mode",
    "request",
    "source_host",
    "destination_host",
    "binding",
    "rule",
    "clean_memory",
    "wrapping",
    "inspection",
    "flags",
    "ownership",
)


def draft(at: Setting, file: MigrationFile, phases_ms: dict[str, float]) -> bytes:
    """The receipt, signed by the source."""
    return paper.signed(_receipt(at, file, _parts(file, source=True), phases_ms), at.signer)


def countersigned(
    at: Setting, file: MigrationFile, envelope: bytes, signer: ec.EllipticCurvePublicKey
) -> messages.Countersigned:
    """Add this host's signature, and file it. IntegrityError when the draft tells what it did not see."""
    told = paper.opened(envelope, [signer])
    seen = _receipt(at, file, _parts(file, source=False), {})
    wrong = [name for name in paper.disagreements(told, seen) if name in _SEEN_BY_BOTH]
    if wrong:
        raise IntegrityError(
            f"the source's receipt tells another story than this host saw: {', '.join(wrong)}",
            kind="receipt-differs",
            remedy="keep both hosts' journals and logs, and find out which of them is wrong",
        )
    signed = dsse.countersign(envelope, at.signer)
    return messages.Countersigned(signed, canonical.encoded(_log(at, signed)))


def file_bundle(
    at: Setting,
    file: MigrationFile,
    answer: messages.Countersigned,
    signer: ec.EllipticCurvePublicKey,
) -> bytes:
    """Check the destination's signature and log entry, enter it in this host's log, and keep the bundle."""
    told = paper.opened(answer.envelope, [at.signer.public, signer])
    there = canonical.decoded(answer.log_proof, log.LogProof)
    _check_entry(there, told.destination, answer.envelope, signer)
    bundle = paper.bundle(answer.envelope, _log(at, answer.envelope), there)
    keep(at, SessionId(told.session), bundle)
    return bundle


def keep_filed(
    at: Setting,
    file: MigrationFile,
    said: messages.Countersigned,
    bundle: bytes,
    signer: ec.EllipticCurvePublicKey,
) -> None:
    """Destination: keep what the source filed, once it is the receipt and the log entry that this host sent,
    and one of the source's log. IntegrityError otherwise; nothing is kept then, and this host's log stays.
    """
    own, there = canonical.decoded(said.log_proof, log.LogProof), paper.parse_bundle(bundle).logs[:1]
    if not there or paper.bundle(said.envelope, there[0], own) != bundle:
        raise IntegrityError(
            "the source filed another receipt than this host countersigned, or other log entries with it",
            kind="receipt-differs",
            remedy="this host's log has the one it signed: ask the source's administrator for the other",
        )
    move = known(file.move)
    _check_entry(there[0], move.source, said.envelope, signer)
    keep(at, SessionId(move.session), bundle)


def keep(at: Setting, session: SessionId, bundle: bytes) -> None:
    """Write the bundle to this host's files, whole or not at all. OSError when they do not take it."""
    path = path_of(at, session)
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    written = path.with_suffix(".new")
    with written.open("wb") as out:
        out.write(bundle)
        out.flush()
        os.fsync(out.fileno())
    written.replace(path)


def path_of(at: Setting, session: SessionId) -> Path:
    return at.state / "receipts" / f"{session}.json"


def _check_entry(shown: log.LogProof, host: str, envelope: bytes, signer: ec.EllipticCurvePublicKey) -> None:
    """IntegrityError unless this receipt is in the log of that host, which signs with that key."""
    if shown.host != host:
        raise IntegrityError(
            f"the log entry that {host} sent is one of {shown.host}'s log",
            kind="wrong-statement",
            remedy="ask the host for its log: korora log verify",
        )
    log.verify_proof(shown, paper.leaf(envelope), signer)


def _log(at: Setting, envelope: bytes) -> log.LogProof:
    index = at.journal.append_log(paper.leaf(envelope))
    size = at.journal.log_size()
    head = log.signed_head(at.host, size, at.journal.log_node, at=int(at.clock.now()), key=at.signer)
    return log.proof(at.host, index, size, at.journal.log_node, head)


def _parts(file: MigrationFile, *, source: bool) -> tuple[HostPart, HostPart]:
    """The source's and the destination's part, as the host that is asked saw them."""
    met, greeted = known(file.met), known(file.met).greeted
    own = (met.own.tls_certificate, met.own_evidence)
    peer = (met.peer.presented.tls_certificate, met.peer.evidence)
    first, second = (own, peer) if source else (peer, own)
    return (
        HostPart(
            hello=greeted.source_bytes,
            tls_certificate=first[0],
            evidence=first[1],
            allowed_by=known(file.source_allowed_by),
        ),
        HostPart(
            hello=greeted.destination_bytes,
            tls_certificate=second[0],
            evidence=second[1],
            allowed_by=known(file.destination_allowed_by),
        ),
    )


def _receipt(
    at: Setting, file: MigrationFile, parts: tuple[HostPart, HostPart], phases_ms: dict[str, float]
) -> Receipt:
    move, sent = known(file.move), known(file.sent or file.received)
    return Receipt(
        vm=move.vm,
        source=move.source,
        destination=move.destination,
        session=move.session,
        epoch=move.epoch,
        mode=file.request.mode,
        request=file.envelope,
        source_host=parts[0],
        destination_host=parts[1],
        binding=known(file.met).binding,
        rule=known(file.rule),
        prechecks=tuple(file.prechecks),
        clean_memory=file.clean_memory,
        wrapping=file.wrapping,
        guest_boot=_guest_boot(file),
        inspection=file.inspection,
        flags=file.flags,
        ownership=Ownership(
            manifest=known(file.manifest),
            accept=known(file.accept),
            release=known(file.release),
            running=known(file.running),
        ),
        wipe=file.wiped or _NOT_THIS_HOSTS,
        timings=Timings(
            phases={name: round(took) for name, took in phases_ms.items()},
            downtime_ms=None if file.downtime_ms is None else round(file.downtime_ms),
            total_ms=round((at.clock.monotonic() - file.begun_at) * 1000),
        ),
        bytes_sent=sent.wire_bytes,
        bytes_guest=sent.payload_bytes,
        limits=tuple(file.limits),
        completed_at=int(at.clock.now()),
    )


def _guest_boot(file: MigrationFile) -> GuestBoot | None:
    if file.boot is None:
        return None
    return GuestBoot(verdict=file.boot.word, findings=file.boot.reasons, secure_boot=file.boot.secure_boot)
