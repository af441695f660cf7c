"""The signed statements of a hand-over, made and checked from the migration's file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from korora.errors import IntegrityError
from korora.migration.known import known
from korora.migration.papers.file import MigrationFile
from korora.migration.setting import Setting
from korora.model.crossing import Carried
from korora.model.identity import Digest
from korora.model.storage import DiskContent
from korora.protocol import statements


def certified_key(certificate: bytes) -> ec.EllipticCurvePublicKey:
    """The public key of a host's TLS certificate (DER), which also signs its statements."""
    key = x509.load_der_x509_certificate(certificate).public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise IntegrityError("the other host's certificate is not for a P-256 key", kind="signature")
    return key


# -- the source -----------------------------------------------------------------------------------------


def manifest(at: Setting, file: MigrationFile) -> bytes:
    """What was sent, as this host saw it."""
    said = statements.Manifest(
        move=known(file.move),
        at=int(at.clock.now()),
        mode=file.request.mode,
        carried=known(file.sent),
        files=dict(file.files),
        disks=statements.written_disks(file.disks),
    )
    return statements.signed(said, at.signer)


def accepted(file: MigrationFile, signer: ec.EllipticCurvePublicKey) -> Carried:
    """What arrived, by the destination's signed word. IntegrityError when it is not what was sent."""
    said = statements.opened(known(file.accept), statements.Accept, signer)
    statements.check_move(said, known(file.move))
    statements.check_answers(said.manifest, known(file.manifest), "manifest")
    refuse_differences(known(file.sent), said.carried)
    _refuse_other_disks(file.disks, said.disks)
    return said.carried


def release(at: Setting, file: MigrationFile) -> bytes:
    said = statements.Release(
        move=known(file.move), at=int(at.clock.now()), accept=statements.digest(known(file.accept))
    )
    return statements.signed(said, at.signer)


def note_running(file: MigrationFile, envelope: bytes, signer: ec.EllipticCurvePublicKey) -> None:
    """Believe the destination's word that it runs; IntegrityError when it is not about this release."""
    said = statements.opened(envelope, statements.Running, signer)
    statements.check_move(said, known(file.move))
    statements.check_answers(said.release, known(file.release), "release")
    file.running = envelope


def declined(file: MigrationFile, envelope: bytes, signer: ec.EllipticCurvePublicKey) -> statements.Decline:
    """Why the destination does not take the VM. IntegrityError when that word is not about this release."""
    said = statements.opened(envelope, statements.Decline, signer)
    statements.check_move(said, known(file.move))
    if said.release is not None:
        statements.check_answers(said.release, known(file.release), "release")
    return said


# -- the destination ------------------------------------------------------------------------------------


def opened_manifest(file: MigrationFile, signer: ec.EllipticCurvePublicKey) -> statements.Manifest:
    """What the source says it sent. IntegrityError when it is not what arrived here."""
    said = statements.opened(known(file.manifest), statements.Manifest, signer)
    statements.check_move(said, known(file.move))
    refuse_differences(said.carried, known(file.received))
    _refuse_other_disks(file.disks, said.disks)
    return said


def refuse_other_files(file: MigrationFile, here: Mapping[str, Digest], *, unseen: Set[str]) -> None:
    """IntegrityError(kind="evidence-differs") when what came beside the stream is not what the source signed.

    `unseen` are files that are inside the stream as they last were, and not in hand here.
    """
    names = (file.files.keys() | here.keys()) - unseen
    wrong = sorted(name for name in names if file.files.get(name) != here.get(name))
    if wrong:
        raise IntegrityError(
            f"what came beside the stream is not what the source signed: {', '.join(wrong)}",
            kind="evidence-differs",
            remedy="look into the source's log; nothing was run here",
        )


def accept(at: Setting, file: MigrationFile) -> bytes:
    said = statements.Accept(
        move=known(file.move),
        at=int(at.clock.now()),
        manifest=statements.digest(known(file.manifest)),
        carried=known(file.received),
        disks=statements.written_disks(file.disks),
    )
    return statements.signed(said, at.signer)


def check_release(file: MigrationFile, signer: ec.EllipticCurvePublicKey) -> None:
    said = statements.opened(known(file.release), statements.Release, signer)
    statements.check_move(said, known(file.move))
    statements.check_answers(said.accept, known(file.accept), "acceptance")


def running(at: Setting, file: MigrationFile) -> bytes:
    said = statements.Running(
        move=known(file.move), at=int(at.clock.now()), release=statements.digest(known(file.release))
    )
    return statements.signed(said, at.signer)


def decline(at: Setting, file: MigrationFile, reason: str) -> bytes:
    answered = statements.digest(file.release) if file.release is not None else None
    said = statements.Decline(
        move=known(file.move), at=int(at.clock.now()), release=answered, reason=reason[:4000]
    )
    return statements.signed(said, at.signer)


def refuse_differences(sent: Carried, arrived: Carried) -> None:
    """IntegrityError(kind="evidence-differs") when the two hosts did not see the same crossing."""
    found = statements.differences(sent, arrived)
    if found:
        raise IntegrityError(
            "the two hosts did not see the same: " + "; ".join(found),
            kind="evidence-differs",
            remedy="find out what changed it, between the hosts or on one of them, before you try again",
        )


def _refuse_other_disks(here: Sequence[DiskContent], told: statements.Disks) -> None:
    found = statements.disk_differences(here, statements.read_disks(told))
    if found:
        raise IntegrityError(
            "the two hosts did not see the same: " + "; ".join(found),
            kind="evidence-differs",
            remedy="one of them wrote to it, or its storage gave back something else than was written: look"
            " into the disks of both before you try again",
        )
