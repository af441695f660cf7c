"""What is sent to a host that has an earlier content of a disk: what a bitmap names, or what differs (W2).

QEMU keeps a dirty bitmap for each host that the disk may go back to. It begins when that host lets go of the
disk: the VM stands still, and the root of what the host keeps is written down as a `Tracking`, with the
bitmap's name. Whether it recorded every write since is not in the bitmap, so it is believed only if nothing
contradicts it. Everything else is answered by comparing hashes, which needs nobody's word.

What QEMU does (7.2 and 10.0): a persistent bitmap is stored in its qcow2 when that is closed. After SIGKILL
one that was added in that run is silently absent, one that was there when the image was opened is
`inconsistent`. A raw image holds none; a bitmap that is not persistent lives as long as its run of QEMU.

Pure. Promise: `decided` names a bitmap only if it records since the host's very content, without a gap.
Limit: it takes the hypervisor at its word; somebody who stops a bitmap and lets it go on unseen is found out
only when both hosts' roots are compared, as they are in every move.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

from blake3 import blake3

from korora.model.identity import Digest
from korora.ports.image import Range
from korora.protocol import canonical
from korora.protocol.content_tree import CHUNK_BYTES, chunks_of

_NAME: Final = "Korora 2026 bitmap"
PREFIX: Final = "korora-"
GRANULARITY_MAX: Final = CHUNK_BYTES
"""In bytes. A coarser one would name more than chunks, and is none of ours."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What the other host says that it still has of the disk, measured there."""

    root: Digest
    size: int


@dataclass(frozen=True, slots=True)
class Tracking:
    """Written down when the disk left `host` with this root, at this epoch of the VM's ownership.

    `run`: of QEMU, by any name that no other run has; `persistent`: whether the bitmap may outlive it.
    """

    host: str
    root: Digest
    size: int
    epoch: int
    run: str
    persistent: bool

    @property
    def bitmap(self) -> str:
        """Its name says what it is about: one that came with an older image is not taken for it."""
        said = canonical.encoded([self.host, self.root, self.size, self.epoch])
        return PREFIX + blake3(said, derive_key_context=_NAME).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Bitmap:
    """What the hypervisor says of one, as QEMU's `query-block` and `query-named-block-nodes` do."""

    name: str
    granularity: int
    recording: bool
    persistent: bool
    inconsistent: bool = False


@dataclass(frozen=True, slots=True)
class Disk:
    """As it is now, on the host that it is to leave. `run`: of QEMU, the present one.

    `on_top`: the bitmaps are those of the very layer that the guest writes to; with an overlay above it, a
    bitmap hears of no write. `apart`: the content is in another file than the bitmaps (a qcow2 with a data
    file), so that anybody can write to one without the other.
    """

    size: int
    run: str
    bitmaps: Sequence[Bitmap]
    on_top: bool = True
    apart: bool = False


class Because(StrEnum):
    """Why no bitmap says what changed."""

    NOT_KEPT = "the other host has nothing of this disk"
    NEVER_TRACKED = "it was not written down that changes are tracked since that host had the disk"
    OTHER_CONTENT = "what the other host has is not what changes are tracked against"
    RESIZED = "the disk has another size than when tracking began"
    OVERLAID = "the guest writes to another layer than the one that is tracked"
    ABSENT = "the bitmap is gone, as after a crash, or the image is another one"
    AMBIGUOUS = "there are two bitmaps of that name"
    INCONSISTENT = "QEMU was ended without closing the image, and the bitmap lost what it had"
    PAUSED = "the bitmap does not record"
    OTHER_RUN = "the bitmap was to last for one run of QEMU, and this is another one"
    APART = (
        "the content is in a file of its own, which others may have written to since QEMU was started anew"
    )
    COARSE = "the bitmap's granularity is none of ours"


@dataclass(frozen=True, slots=True)
class SendRanges:
    """What this bitmap names, in pieces of `granularity` bytes, and nothing else."""

    bitmap: str
    granularity: int


@dataclass(frozen=True, slots=True)
class CompareHashes:
    """Both hosts hash; what differs is sent. `kept`: whether there is anything to compare with."""

    because: Because

    @property
    def kept(self) -> bool:
        return self.because is not Because.NOT_KEPT


Decision: TypeAlias = SendRanges | CompareHashes


def decided(kept: Kept | None, tracking: Tracking | None, disk: Disk) -> Decision:
    """How what changed since the other host had the disk is found. `tracking`: of that host."""
    because = _without_bitmap(kept, tracking, disk)
    if because is not None or tracking is None:
        return CompareHashes(because or Because.NEVER_TRACKED)
    named = [one for one in disk.bitmaps if one.name == tracking.bitmap]
    if len(named) != 1:
        return CompareHashes(Because.AMBIGUOUS if named else Because.ABSENT)
    doubt = _doubt(named[0], tracking, disk)
    return CompareHashes(doubt) if doubt else SendRanges(named[0].name, named[0].granularity)


def _without_bitmap(kept: Kept | None, tracking: Tracking | None, disk: Disk) -> Because | None:
    if kept is None:
        return Because.NOT_KEPT
    if tracking is None:
        return Because.NEVER_TRACKED
    if (kept.root, kept.size) != (tracking.root, tracking.size):
        return Because.OTHER_CONTENT
    if disk.size != tracking.size:
        return Because.RESIZED
    return None if disk.on_top else Because.OVERLAID


def _doubt(bitmap: Bitmap, tracking: Tracking, disk: Disk) -> Because | None:
    if bitmap.inconsistent:
        return Because.INCONSISTENT
    if not bitmap.recording:
        return Because.PAUSED
    if disk.run != tracking.run and disk.apart:
        return Because.APART
    # One that lives on although it was not to is somebody else's, or the image is of another time.
    if disk.run != tracking.run and not (bitmap.persistent and tracking.persistent):
        return Because.OTHER_RUN
    fine = 0 < bitmap.granularity <= GRANULARITY_MAX and CHUNK_BYTES % bitmap.granularity == 0
    return None if fine else Because.COARSE


def chunks(dirty: Iterable[Range], size: int) -> Iterator[tuple[int, int]]:
    """(first, how many) chunks that these ranges touch, which ascend; neighbours as one, none twice.

    ValueError for a range out of order, or behind the disk's end but for what rounding up makes of it.
    """
    held: tuple[int, int] | None = None
    last = 0
    for offset, length in dirty:
        if offset < last or length < 1 or offset >= size or offset + length > chunks_of(size) * CHUNK_BYTES:
            raise ValueError(f"bytes {offset} to {offset + length} are not among the next ones of the disk")
        last = offset + length
        first, end = offset // CHUNK_BYTES, chunks_of(last)
        if held is not None and first <= held[1]:
            held = held[0], max(end, held[1])
            continue
        if held is not None:
            yield held[0], held[1] - held[0]
        held = first, end
    if held is not None:
        yield held[0], held[1] - held[0]
