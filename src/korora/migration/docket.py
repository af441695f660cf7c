"""What recovery must know of a session, kept in the journal: written before each point of no return."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import msgspec

from korora.errors import ToolError
from korora.migration.file import MigrationFile
from korora.migration.known import known
from korora.migration.setting import Setting
from korora.model.identity import HostName, SessionId, VmName
from korora.ports.journal import SessionRecord
from korora.protocol.statements import Move, peek_request

Envelope = Annotated[bytes, msgspec.Meta(max_length=1 << 20)]


class Docket(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The signed statements so far, and where the other host was reached."""

    request: Envelope
    move: Move
    manifest: Envelope | None
    accept: Envelope | None
    release: Envelope | None
    peer_certificate: Envelope
    address: str | None


def enter(at: Setting, file: MigrationFile, *, role: str, address: str | None) -> None:
    """Write down what there is, durably."""
    move, peer = known(file.move), known(file.met).peer.presented.tls_certificate
    said = Docket(file.envelope, move, file.manifest, file.accept, file.release, peer, address)
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


def note_release(at: Setting, session: SessionId, envelope: bytes) -> None:
    """Before it is sent: the answer to it names it by digest, so it must always be the same one."""
    record = at.journal.session(session)
    if record is not None:
        said = msgspec.structs.replace(msgspec.json.decode(record.detail, type=Docket), release=envelope)
        at.journal.write_session(replace(record, detail=msgspec.json.encode(said)))


def read(at: Setting, session: SessionId) -> Docket:
    """ToolError(kind="journal") when the journal does not know the session."""
    record = at.journal.session(session)
    if record is None:
        raise ToolError(f"the journal knows nothing of session {session[:16]}…", kind="journal")
    return msgspec.json.decode(record.detail, type=Docket)


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
