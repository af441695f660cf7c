"""A part of a disk that cannot be read while it moves: found, told with its bytes, and flagged (E5).

QEMU's mirror knows that something could not be read, not what; and told to go on (`on-source-error=ignore`)
it reads the same bytes again for ever. So it ends, the place is looked for, and the VM runs on here. A disk
whose unreadable chunks are flagged, and may be so, is read by the daemon, with placeholders (`gaps`).
Limit: the first place alone; not looked for past `LOOKED_THROUGH_BYTES`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from korora.agents.integrity.disks.gaps import BLOCK_BYTES, Gaps
from korora.errors import ToolError
from korora.migration.crossing.subject import Subject
from korora.migration.setting import Setting
from korora.model.flag import Flag, FlagKind, Original, Place
from korora.model.inspection import Check, Disposition, Found
from korora.ports.image import ImageReader, OpenImage, Range, UnreadableError
from korora.ports.moving_disks import CopyFailedError, MovingDisks
from korora.protocol.content_tree import CHUNK_BYTES
from korora.protocol.flag import peek
from korora.supervision.inspection import dossier

LOOKED_THROUGH_BYTES: Final = 4 << 30
_BEFORE_BYTES: Final = 256 << 20
_AFTER_BYTES: Final = 32 << 20
"""Around where a mirror stood: it has 16 MiB under way at most, and counts what the guest wrote as well."""
_LEFT: Final = "found while the disk was copied: what of it can be read, the next inspection keeps"


class DiskUnreadableError(ToolError):
    """The VM runs on at the source. `length` in bytes, whole blocks of 4 KiB."""

    def __init__(self, disk: str, wanted: Range, reason: str) -> None:
        self.disk, (self.offset, self.length), self.reason = disk, wanted, reason
        super().__init__(
            f"the disk {disk} cannot be read at bytes {self.offset} to {self.offset + self.length}: {reason}",
            kind="disk-unreadable",
            remedy="its storage fails there; the disk is as the guest left it, and the VM runs on at the"
            " source. Mend or replace the storage, or let the guest write there anew; to move it without"
            ' these bytes, have `disks = "flag"` under [checks] of the inspection policy, and move it again',
        )


def narrowed(image: OpenImage, disk: str, error: UnreadableError) -> ToolError:
    """A DiskUnreadableError, down to the first blocks that give an error; all of the range when none does any
    more. Blocking. Where nobody serves the disk any more, that alone is said (kind="disk-unserved")."""
    if error.unserved:
        return ToolError(
            f"the disk {disk} is not served any more: {error.message}",
            kind="disk-unserved",
            remedy="see whether the VM's hypervisor still runs; nothing is said of the disk",
        )
    begin, end = error.offset, min(error.offset + error.length, image.size)
    at = begin - begin % BLOCK_BYTES
    while at < end and _is_well(image, at):
        at += BLOCK_BYTES
    stop = at
    while stop < end and not _is_well(image, stop):
        stop += BLOCK_BYTES
    wanted = (at, min(stop, image.size) - at) if stop > at else (begin, end - begin)
    return DiskUnreadableError(disk, wanted, _reason(error))


async def found(disks: MovingDisks, images: ImageReader, failed: CopyFailedError) -> ToolError:
    """Why a disk was not copied: what of it cannot be read here, or as it was said."""

    def look() -> ToolError | None:
        with images.open_export(export) as image:
            for wanted in _windows(failed.near, image.size):
                try:
                    _read(image, wanted)
                except UnreadableError as error:
                    return narrowed(image, failed.disk, error)
        return None

    try:
        async with disks.shown(failed.disk) as export:
            return await asyncio.to_thread(look) or failed
    except ToolError:
        return failed


def _windows(near: int, size: int) -> Iterator[Range]:
    """First around where it stood, then from the beginning on; one chunk after another."""
    begin = max(0, near - _BEFORE_BYTES) // CHUNK_BYTES * CHUNK_BYTES
    end = min(size, near + _AFTER_BYTES)
    for offsets in (range(begin, end, CHUNK_BYTES), range(0, min(size, LOOKED_THROUGH_BYTES), CHUNK_BYTES)):
        for at in offsets:
            yield at, min(CHUNK_BYTES, size - at)


def _read(image: OpenImage, wanted: Range) -> None:
    for _ in image.each([wanted], len):
        pass


def _is_well(image: OpenImage, at: int) -> bool:
    try:
        _read(image, (at, min(BLOCK_BYTES, image.size - at)))
    except UnreadableError:
        return False
    return True


def _reason(error: UnreadableError) -> str:
    cause = error.__cause__
    return getattr(cause, "strerror", None) or str(cause or error.message)


# -- flags ----------------------------------------------------------------------------------------------


def gaps_of(at: Setting, vm: Subject) -> dict[str, Gaps]:
    """Of each disk with chunks that are flagged as unreadable, and may move so: where the policy says no more
    than `flag`, or a person has accepted the flag. IntegrityError when the record cannot be read."""
    record = dossier.read_flags(vm.directory, vm.definition.name)
    told: dict[str, dict[int, str]] = {}
    for one in record.flags:
        if one.kind is FlagKind.UNREADABLE and one.place.offset is not None and _may_move(at, vm, one):
            told.setdefault(one.place.disk, {})[one.place.offset // CHUNK_BYTES] = one.id
    return {disk: Gaps(flags) for disk, flags in told.items()}


def _may_move(at: Setting, vm: Subject, flag: Flag) -> bool:
    if flag.resolution:
        return peek(flag.resolution).choice == "accept"
    return _disposition(at, vm) is Disposition.FLAG


def _disposition(at: Setting, vm: Subject) -> Disposition:
    return at.examiner.policy().checks_of(vm.definition.name)[Check.DISKS]


@contextmanager
def flagged(at: Setting, vm: Subject, sizes: Mapping[str, int]) -> Iterator[None]:
    """What is found unreadable meanwhile is put into the VM's record, where the policy flags such chunks."""
    try:
        yield
    except DiskUnreadableError as error:
        if _disposition(at, vm) in {Disposition.FLAG, Disposition.BLOCK} and error.disk in sizes:
            flags = at.examiner.flag(vm.definition.name, vm.directory, _chunks(error, sizes[error.disk]))
            error.remedy = (
                f"its storage fails there; it is flagged ({', '.join(one[:8] for one in flags)}: korora flags"
                f" list --vm {vm.definition.name}), and the VM runs on at the source. Mend the storage; or"
                " move it again: where no open flag keeps it, it moves with a placeholder for these bytes"
            )
        raise


def _chunks(error: DiskUnreadableError, size: int) -> Iterator[Found]:
    last = error.offset + max(error.length, 1) - 1
    for chunk in range(error.offset // CHUNK_BYTES, last // CHUNK_BYTES + 1):
        begin = chunk * CHUNK_BYTES
        place = Place(disk=error.disk, offset=begin, length=min(CHUNK_BYTES, size - begin))
        yield Found(
            kind=FlagKind.UNREADABLE, place=place, reason=error.message[:1000], original=Original(left=_LEFT)
        )
