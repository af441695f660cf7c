"""How a migration ended, as the last event that its watchers get (a contract: see the README)."""

from __future__ import annotations

import asyncio

from korora.errors import CancelledError, ExitCode, InDoubtError, KororaError
from korora.migration.papers import receipts
from korora.migration.papers.file import MigrationFile
from korora.migration.setting import Setting
from korora.migration.teller import Event
from korora.model.identity import SessionId

# Where it runs, if it does, has nothing to do with this migration.
_RUNS_NOWHERE = frozenset({"not-running", "unknown-vm", "not-owner", "undecided"})
_WORDS = {ExitCode.REFUSED: "refused", ExitCode.QUESTION: "refused", ExitCode.IN_DOUBT: "in-doubt"}


def completed(at: Setting, file: MigrationFile) -> Event:
    path = receipts.path_of(at, SessionId(file.move.session)) if file.move else None
    return {"outcome": "completed", **_told(at, file), "receipt": str(path), "error": None}


def completed_late(at: Setting, file: MigrationFile) -> Event:
    """It runs there, proved after the conversation was lost: there is no common receipt then."""
    file.limits.append("the connection was lost after the release: both logs have no receipt of this move")
    return {"outcome": "completed", **_told(at, file), "receipt": None, "error": None}


def failed(at: Setting, file: MigrationFile, error: BaseException, *, released: bool, here: bool) -> Event:
    """The failure, and where the VM runs: at the destination once that is proved; before the release here,
    if its process lives (`here`)."""
    known = _understood(error)
    if known.vm_runs_on is None and known.kind not in _RUNS_NOWHERE:
        known.vm_runs_on = _whereabouts(at, file, released=released, here=here)
    word = "cancelled" if isinstance(known, CancelledError) else _WORDS.get(known.exit_code, "failed")
    told = {
        "kind": known.kind,
        "message": _moved_before(file) + known.message,
        "remedy": known.remedy,
        "vm_runs_on": known.vm_runs_on,
        "exit_code": int(known.exit_code),
    }
    return {"outcome": word, **_told(at, file), "receipt": None, "error": told}


def _moved_before(file: MigrationFile) -> str:
    """Said first when it is only the end of the paperwork that failed."""
    if file.running is None:
        return ""
    request, owed = file.request, "the receipt" if file.wiped is not None else "the wipe of its remains"
    return f"{request.vm} moved and runs on {request.destination}, but {owed} was not completed: "


def in_doubt(at: Setting, file: MigrationFile, error: BaseException) -> InDoubtError:
    """Released, and no proof yet that it runs: both copies are kept, and this host keeps asking."""
    there = file.request.destination
    return InDoubtError(
        f"{file.request.vm} was released to {there}, and {there} has not proved that it runs there"
        f" ({_understood(error).message})",
        kind="in-doubt",
        remedy=f"this host keeps asking {there}, and keeps the paused copy; see `korora -H {there} vm show"
        f" {file.request.vm}`",
    )


def _understood(error: BaseException) -> KororaError:
    if isinstance(error, KororaError):
        return error
    if isinstance(error, asyncio.CancelledError):
        return CancelledError(
            "the migration was cancelled", kind="cancelled", remedy="start it again at will"
        )
    return KororaError(f"{type(error).__name__}: {error}", kind="bug", remedy="see the daemon's log")


def _whereabouts(at: Setting, file: MigrationFile, *, released: bool, here: bool) -> str | None:
    if not released:
        return at.host if here else None
    return file.request.destination if file.running is not None else None


def _told(at: Setting, file: MigrationFile) -> Event:
    sent, arrived = file.sent, file.received
    one, two = (sent.vtpm if sent else None), (arrived.vtpm if arrived else None)
    vtpm: dict[str, bool | None] = {"ek_same": None, "pcrs_same": None, "nv_same": None}
    if one is not None and two is not None:
        same_state = one.permanent is not None and one.permanent == two.permanent
        vtpm = {
            # A TPM that is switched off tells no name; its permanent state holds the seed of its EK.
            "ek_same": one.ek_name == two.ek_name if one.ek_name else same_state,
            "pcrs_same": one.pcrs == two.pcrs if one.pcrs else None,
            "nv_same": one.nv == two.nv and same_state,
        }
    return {
        "session": file.move.session if file.move else None,
        "vm": file.request.vm,
        "source": file.request.source,
        "destination": file.request.destination,
        "mode": file.request.mode,
        "downtime_ms": file.downtime_ms,
        "total_ms": round((at.clock.monotonic() - file.begun_at) * 1000, 1),
        "decisions_ms": round(file.decisions_ms, 2),
        "bytes_sent": sent.wire_bytes if sent else 0,
        "bytes_guest": sent.payload_bytes if sent else 0,
        "vtpm": vtpm,
        "vtpm_identity": None if one is None else {"ek_name": one.ek_name, "pcrs": one.pcrs},
        "attested": _attested(file),
        "limits": list(file.limits),
    }


def _attested(file: MigrationFile) -> Event | None:
    if file.met is None:
        return None
    trusted, rule = file.met.peer.trusted, file.rule
    return {
        "destination": trusted.host,
        "state": trusted.platform.state,
        "secure_boot": trusted.platform.secure_boot,
        "ak": trusted.ak_name,
        "cryptography": None
        if rule is None
        else f"{rule.tls_version} {rule.tls_group}, {rule.aead}, {rule.digest}",
        "clean_memory": None if file.clean_memory is None else file.clean_memory.clean,
        "guest_boot": None if file.boot is None else file.boot.word,
    }
