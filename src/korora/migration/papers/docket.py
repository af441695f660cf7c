"""What recovery must know of a session, kept in the journal: written before each point of no return."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import msgspec

from korora.errors import ToolError
from korora.migration.known import known
from korora.migration.papers.file import MigrationFile
from korora.migration.setting import Setting
from korora.model.identity import HostName, SessionId, VmName
from korora.ports.journal import SessionRecord
from korora.protocol.statements import Move, peek_request

Envelope = Annotated[bytes, msgspec.Meta(max_length=1 << 20)]


class Docket(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The signed statements so far, and where the other host was reached. `cold`: the VM has no process."""

    request: Envelope
    move: Move
    manifest: Envelope | None
    accept: Envelope | None
    release: Envelope | None
    peer_certificate: Envelope
    address: str | None
    cold: bool = False


def enter(at: Setting, file: MigrationFile, *, role: str, address: str | None, cold: bool = False) -> None:
    """Write down what there is, durably.

    The source does before it offers the VM, the destination before it accepts: a session that the other host
    may ask about is known here.
    """
    move, peer = known(file.move), known(file.met).peer.presented.tls_certificate
    said = Docket(file.envelope, move, file.manifest, file.accept, file.release, peer, address, cold)
    other = move.destination if role == "source" else move.source
    at.journal.write_session(
        SessionRecord(
            SessionId(move.session),
            VmName(move.vm),
            role,
            HostName(other),
            "commit",
            None,
            msgspec.json.encode(said),
        )
    )


def note_accept(at: Setting, session: SessionId, envelope: bytes) -> None:
    """Before the VM is released for it: the release names it by digest."""
    _note(at, session, accept=envelope)


def note_release(at: Setting, session: SessionId, envelope: bytes) -> None:
    """Before it is sent, and before it is acted upon: the answer names it, so it must always be the same."""
    _note(at, session, release=envelope)


def read(at: Setting, session: SessionId) -> Docket:
    """ToolError(kind="journal") when the journal does not know the session, or not what it was about."""
    record = at.journal.session(session)
    if record is None:
        raise ToolError(f"the journal knows nothing of session {session[:16]}…", kind="journal")
    return _docket(record)


def reopened(docket: Docket) -> MigrationFile:
    """The migration's file, as far as the statements go."""
    return MigrationFile(
        docket.request,
        peek_request(docket.request),
        move=docket.move,
        manifest=docket.manifest,
        accept=docket.accept,
        release=docket.release,
    )


def _note(at: Setting, session: SessionId, **said: bytes) -> None:
    record = at.journal.session(session)
    if record is not None:
        docket = msgspec.structs.replace(_docket(record), **said)
        at.journal.write_session(replace(record, detail=msgspec.json.encode(docket)))


def _docket(record: SessionRecord) -> Docket:
    try:
        return msgspec.json.decode(record.detail, type=Docket)
    except msgspec.MsgspecError as error:
        raise ToolError(
            f"what the journal holds of session {record.session[:16]}… cannot be read: {error}",
            kind="journal",
            remedy="it was written by another version of Korora: settle it with that one",
        ) from error
