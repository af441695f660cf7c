"""What is known of the inside of a VM before it leaves: looked at, judged, and sent ahead of it (E1 to E5).

Promise: the source refuses a VM with a blocking flag before anything of it is at the destination; the
destination takes only a dossier whose digest the manifest has. Limit: what was looked at is the VM as it was
then; a running one goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from typing import Final

import msgspec

from korora.errors import IntegrityError, RefusedError
from korora.migration.crossing.subject import Subject
from korora.migration.greeting.conversation import VISIT_DEADLINE_S, Conversation
from korora.migration.papers.file import MigrationFile
from korora.migration.setting import Setting
from korora.migration.teller import Teller
from korora.model.flag import Flag, shown
from korora.model.identity import HostName, VmName, sha256
from korora.model.inspection import Check, Inspection
from korora.policy.inspection import blocked_by
from korora.protocol import canonical, messages
from korora.protocol.flag import FlagRecord, opened, peek
from korora.protocol.receipt.document import Flags, Limit
from korora.supervision import signed
from korora.supervision.inspection import dossier
from korora.supervision.inspection.examiner import Inspected
from korora.supervision.inspection.examiner import Subject as Inside

HEARTBEAT_S: Final = 30.0
LONGEST_S: Final = 8 * 24 * 3600.0
PART_BYTES: Final = 1 << 20
_SHOWN: Final = 5
_LISTED: Final = 500


# -- the source -----------------------------------------------------------------------------------------


async def look(at: Setting, talk: Conversation, vm: Subject, file: MigrationFile, tell: Teller) -> None:
    """Do what the policy asks for, while the destination is told to wait; fills the file.

    RefusedError(kind="flagged") that names what blocks; the VM goes on here.
    """
    if not at.examiner.asked_for(vm.definition.name):
        return
    inside = Inside(vm.definition, vm.directory, vm.live)
    last = ["begins to look into the VM"]
    work = at.examiner.inspect(inside, lambda words: last.__setitem__(0, words))
    seen = await _meanwhile(work, talk, tell, last)
    _refuse_blocking(seen.judged.blocking, seen.judged.beyond, vm.definition.name, at.host)
    file.inspection = seen.report


async def _meanwhile(
    work: Awaitable[Inspected], talk: Conversation, tell: Teller, last: list[str]
) -> Inspected:
    task = asyncio.ensure_future(work)
    try:
        while True:
            done, _ = await asyncio.wait({task}, timeout=HEARTBEAT_S)
            if done:
                return task.result()
            await tell.note(last[0])
            await talk.say(messages.Busy(last[0]))
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await task


def refuse_flagged(at: Setting, vm: Subject) -> None:
    """RefusedError(kind="flagged") as `look` raises it, for what is flagged already; nobody looks.

    IntegrityError when the record of flags cannot be read, UsageError when the policy cannot.
    """
    name = vm.definition.name
    checks = at.examiner.policy().checks_of(name)
    record = dossier.read_flags(vm.directory, name)
    _refuse_blocking(blocked_by(checks, record.flags), (), name, at.host)


def _refuse_blocking(blocking: Sequence[Flag], beyond: Sequence[str], vm: VmName, host: HostName) -> None:
    why = [*map(_words, blocking), *beyond]
    if not why:
        return
    more = f"; and {len(why) - _SHOWN} more" if len(why) > _SHOWN else ""
    raise RefusedError(
        f"{vm} does not leave {host}, for what was found in it: {'; '.join(why[:_SHOWN])}{more}",
        kind="flagged",
        remedy=f"korora flags list --vm {vm}; mend it, or let it pass:"
        " korora flags resolve FLAG accept --reason WHY",
        vm_runs_on=host,
    )


def _words(flag: Flag) -> str:
    return f"{flag.kind} ({flag.id[:8]}) in {shown(flag.place)[:200]}: {flag.reason[:200]}"


async def enclose(talk: Conversation, vm: Subject, file: MigrationFile) -> None:
    """Send the dossier, if there is one. RefusedError(kind="dossier") when originals would be left behind."""
    packed = await asyncio.to_thread(dossier.pack, vm.directory)
    if packed is None:
        return
    if packed.originals_left:
        raise RefusedError(
            f"the originals of {vm.definition.name}'s flags are too large to go with it",
            kind="dossier",
            remedy="keep them: korora flags export; then resolve their flags, or keep less of each"
            " (original_mib)",
        )
    if packed.left:
        file.limits.append(Limit.BASELINE_LEFT)
    for begin in range(0, len(packed.data), PART_BYTES):
        part = packed.data[begin : begin + PART_BYTES]
        await talk.say(messages.Enclosed(part, last=begin + PART_BYTES >= len(packed.data)))
    file.dossier = sha256(packed.data)
    record = await asyncio.to_thread(dossier.read_flags, vm.directory, vm.definition.name)
    file.flags = flags_part(record)


# -- the destination ------------------------------------------------------------------------------------


async def awaited(talk: Conversation) -> tuple[messages.Prepare, bytes | None]:
    """PREPARE, and the dossier that came before it. PeerError, IntegrityError when it is none."""
    parts: list[bytes] = []
    size, closed = 0, False
    async with asyncio.timeout(LONGEST_S):
        while True:
            said = await talk.expect(messages.Message, VISIT_DEADLINE_S)
            match said:
                case messages.Busy():
                    continue
                case messages.Enclosed(data, last) if not closed:
                    size += len(data)
                    dossier.check_size(size)
                    parts.append(data)
                    closed = last
                case messages.Prepare() if closed or not parts:
                    return said, b"".join(parts) if parts else None
                case _:
                    raise talk.unexpected(said, "PREPARE")


def take(
    at: Setting, file: MigrationFile, vm: VmName, packed: bytes | None, *, inspected: bool
) -> dict[str, bytes]:
    """The dossier's files, checked; fills the file. RefusedError(kind="not-inspected") when this host's
    policy wants more of a VM that arrives. IntegrityError for a dossier that is none."""
    found = dossier.unpacked(packed, vm) if packed is not None else {}
    if packed is not None:
        file.dossier = sha256(packed)
        record = dossier.record_in(found, vm)
        file.flags = flags_part(record)
        found |= {dossier.FLAGS: canonical.encoded(_believed(at, record))}
    file.inspection = dossier.report_in(found) if inspected else None
    missing = [check for check in at.examiner.policy().arrivals if not _passed(file.inspection, check)]
    if missing:
        raise RefusedError(
            f"{vm} does not come to {at.host}: its source did not show that it is well by"
            f" {', '.join(missing)}",
            kind="not-inspected",
            remedy="let the source look (inspection.toml), and resolve what it flags",
        )
    return found


def _believed(at: Setting, record: FlagRecord) -> FlagRecord:
    """A word on a flag that nobody known here has signed closes it here no more: the source may have forged
    it. The receipt has the record as it came."""
    flags = (
        flag if _is_signed(at, flag) else msgspec.structs.replace(flag, resolution=b"")
        for flag in record.flags
    )
    return FlagRecord(vm=record.vm, flags=tuple(flags))


def _is_signed(at: Setting, flag: Flag) -> bool:
    try:
        if not flag.is_open:
            opened(flag.resolution, signed.key_of(at, peek(flag.resolution).by))
    except (RefusedError, IntegrityError):
        return False
    return True


def _passed(report: Inspection | None, check: Check) -> bool:
    result = report.result(check) if report is not None else None
    return result is not None and not result.open and not result.unknown


# -- both -----------------------------------------------------------------------------------------------


def flags_part(record: FlagRecord) -> Flags:
    """What the receipt says of the flags."""
    still_open = [flag for flag in record.flags if flag.is_open]
    return Flags(
        record=sha256(canonical.encoded(record)),
        open=len(still_open),
        resolved=len(record.flags) - len(still_open),
        listed=tuple((flag.id, flag.kind) for flag in still_open[:_LISTED]),
    )
