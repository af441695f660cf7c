"""One inspection: configuration, then disk by disk its container, its chunks and its files (E1 to E5).

Promise: every check that is asked for says how much it looked at and what it could not look at; the latter is
a finding of its own. Nothing is written but into the order's output.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec

from korora.adapters.image.qemu_nbd import QemuImages
from korora.agents.integrity.disks import measuring
from korora.agents.integrity.disks.measuring import KeptLeaves, Leaves, Measured
from korora.agents.integrity.disks.opened import differing
from korora.errors import KororaError
from korora.model.flag import FlagKind, Place
from korora.model.image import Format, ImageFiles, Layer, NbdExport
from korora.model.inspection import Check, Compared, DiskFacts, DiskVerified, Examined, FileVerified, Found
from korora.ports.inspector import DiskSource, Order, Told
from korora.protocol.content_tree import CHUNK_BYTES
from korora.wiring.images import Image, looked_at
from korora.wiring.inspection import configuration, inside
from korora.wiring.inspection.baseline import FILES_MAX, Baseline
from korora.wiring.inspection.gathering import Gathering
from korora.wiring.inspection.tools import Tools, tools

TELL_EVERY_S: Final = 1.0
_OF_FILES: Final = (Check.FILES, Check.PACKAGES, Check.MALWARE, Check.INDICATORS)
WHAT_MAX: Final = 1000
IN_USE: Final = "headers as they were beside the running QEMU, which has them open, without their tables"
CHANGES_MAX: Final = 1000


@dataclass(slots=True)
class _Comparison:
    """What a VM is held against, and what came of it."""

    baseline: Baseline
    disks: list[DiskVerified] = field(default_factory=list)
    files: list[FileVerified] = field(default_factory=list)
    files_same: int | None = None
    files_more: int = 0


def inspect(order: Order, told: Told) -> Examined:
    return _looked(order, told, None)


def compare(order: Order, told: Told) -> Compared:
    held = _Comparison(Baseline(Path(order.baseline)))
    examined = _looked(order, told, held)
    return Compared(
        examined=examined,
        disks=tuple(held.disks),
        files_same=held.files_same,
        files=tuple(held.files),
        files_more=held.files_more,
        configuration=tuple(islice(configuration.differences(order), CHANGES_MAX)),
    )


def _looked(order: Order, told: Told, held: _Comparison | None) -> Examined:
    gathering = Gathering(order)
    with ExitStack() as undo:
        with_what = tools(order, gathering, undo)
        configuration.look(order, gathering, with_what.originals, keep=held is None)
        for disk in order.disks:
            _Disk(order, disk, gathering, with_what, told, held).look()
    return gathering.examined()


@dataclass(slots=True)
class _Disk:
    order: Order
    source: DiskSource
    gathering: Gathering
    tools: Tools
    told: Told
    held: _Comparison | None
    _told_at: float = 0.0

    def look(self) -> None:
        opened, facts = self._opened(), DiskFacts(name=self.source.name, format=self.source.format)
        if opened is not None:
            if self.gathering.wants(Check.DISKS):
                facts = self._chunks(opened)
            if self.gathering.wants(*_OF_FILES):
                facts = self._files(opened, facts)
        else:
            self._not_seen(Check.DISKS, *_OF_FILES)
        self.gathering.disks.append(facts)

    def _not_seen(self, *checks: Check) -> None:
        """Nothing of this disk: whatever they say of others, of it they know nothing."""
        for check in checks:
            self.gathering.looked(check, unknown=1)

    def _opened(self) -> ImageFiles | NbdExport | None:
        """What can be read; None where nothing may be, which is told."""
        if self.source.running:
            return self._opened_by_its_vm()
        try:
            image = self._looked_at()
        except (KororaError, OSError) as error:
            self._unread(str(error))
            self.gathering.looked(Check.CONTAINERS, unknown=1)
            return None
        self.gathering.looked(Check.CONTAINERS, examined=1, words="what containers say of themselves")
        return image.disks[0].files if self._is_sound(image) else None

    def _opened_by_its_vm(self) -> NbdExport | None:
        if not self.source.socket:
            self._unread("the VM runs without it, though its definition has it")
            self.gathering.looked(Check.CONTAINERS, unknown=1)
            return None
        problem = self._judged_in_use()
        if problem:
            self._unread(f"its container cannot be judged: {problem}")
        said = f"{self.source.name}: {'unknown' if problem else 'judged'}"
        begun = self.gathering.words_of(Check.CONTAINERS) or IN_USE
        self.gathering.looked(
            Check.CONTAINERS, examined=not problem, unknown=bool(problem), words=f"{begun}; {said}"
        )
        return NbdExport(Path(self.source.socket), self.source.export, snapshot=True)

    def _judged_in_use(self) -> str:
        """By its header, and by what QEMU has open. Why not, if it cannot be."""
        if not self.source.path:
            return "the VM's definition does not name it, and so no format"
        if not self.source.opened:
            return "QEMU does not say what it has open"
        try:
            facts = self._looked_at().disks[0].facts
        except (KororaError, OSError) as error:
            return str(error)
        for one in facts.critical:
            self._finds(FlagKind.CONTAINER, self._place(), f"{one.kind}: {one.message}")
        own = Layer(self.source.path, self.source.format)
        defined, opened = map(_resolved, ((own, *self.source.backing), self.source.opened))
        allowed = [os.path.realpath(one) for one in self.order.allow]
        for words in differing(defined, opened, allowed):
            self._finds(FlagKind.CONTAINER, self._place(), f"open: {words}")
        return ""

    def _looked_at(self) -> Image:
        allowed = [*map(Path, self.order.allow), *(Path(one.path) for one in self.source.backing)]
        return looked_at(Path(self.source.path), Format(self.source.format), allowed, self.source.running)

    def _is_sound(self, image: Image) -> bool:
        facts = image.disks[0].facts
        for one in facts.critical:
            self._finds(FlagKind.CONTAINER, self._place(), f"{one.kind}: {one.message}")
        if facts.critical or facts.encrypted:
            self._unread("it is encrypted" if facts.encrypted else "its container is not to be trusted")
        return not facts.critical and not facts.encrypted

    # -- its chunks -------------------------------------------------------------------------------------

    def _chunks(self, opened: ImageFiles | NbdExport) -> DiskFacts:
        name, images = self.source.name, QemuImages()
        measured, kept = Measured(0), KeptLeaves()
        try:
            reading = images.open_export(opened) if isinstance(opened, NbdExport) else images.open(opened)
            with reading as image:
                measured.size = image.size
                leaves = self._shown(measuring.measured(image, self.order.vm, name, measured), image.size)
                if self.held is None:
                    for one in leaves:
                        kept.add(one)
                else:
                    self._compare(leaves, measured, self.held)
        except (KororaError, OSError) as error:
            self._unread(f"its chunks cannot all be read: {error}")
        for broken in measured.unreadable:
            original = self.tools.originals.kept(
                broken.flag, FlagKind.UNREADABLE, broken.place, broken.reason, broken.content
            )
            found = Found(
                kind=FlagKind.UNREADABLE, place=broken.place, reason=broken.reason, original=original
            )
            self.gathering.finds(found)
        self._keep(measured, kept)
        self.gathering.looked(
            Check.DISKS, examined=1, unknown=int(measured.root is None), words="BLAKE3 over chunks of 1 MiB"
        )
        return DiskFacts(
            name=name,
            format=self.source.format,
            size=measured.size,
            root=measured.root,
            placeholders=len(measured.unreadable),
        )

    def _keep(self, measured: Measured, kept: KeptLeaves) -> None:
        data = kept.done() if self.held is None and measured.root is not None else None
        if data is not None:
            self.tools.baseline.write_chunks(self.source.name, data)

    def _compare(self, leaves: Iterator[Leaves], measured: Measured, held: _Comparison) -> None:
        before = held.baseline.chunks(self.source.name)
        if before is None:
            for _ in leaves:
                pass
            held.disks.append(DiskVerified(name=self.source.name, now=measured.root))
            return
        found = measuring.compared(self.source.name, before, leaves, measured.size)
        held.disks.append(msgspec.structs.replace(found, now=measured.root))
        for one in found.differ:
            for begin in range(one.offset, one.offset + one.length, CHUNK_BYTES):
                length = min(CHUNK_BYTES, one.offset + one.length - begin)
                place = Place(disk=self.source.name, offset=begin, length=length)
                self._finds(FlagKind.DIFFERS, place, "it is not the chunk that was measured")

    # -- its files --------------------------------------------------------------------------------------

    def _files(self, opened: ImageFiles | NbdExport, facts: DiskFacts) -> DiskFacts:
        name = self.source.name
        try:
            seen = inside.look(opened, name, self.gathering, self.tools, self._tell)
        except (KororaError, OSError) as error:
            self._unread(f"its files cannot be read: {error}")
            self._not_seen(*_OF_FILES)
            return facts
        if self.held is None:
            self.tools.baseline.write_files(name, seen)
        else:
            self._compare_files(seen, self.held)
        return inside.with_files(facts, seen)

    def _compare_files(self, seen: inside.Seen, held: _Comparison) -> None:
        before = held.baseline.files(self.source.name)
        if before is None:
            return
        changes = list(seen.changes_since(before))
        held.files_same = (
            (held.files_same or 0) + seen.files - sum(one.change != "removed" for one in changes)
        )
        room = FILES_MAX - len(held.files)
        held.files_more += max(0, len(changes) - room)
        held.files += [
            FileVerified(
                disk=self.source.name,
                volume=one.volume,
                path=one.path,
                change=one.change,
                what=tuple(what[:WHAT_MAX] for what in one.what),  # a target alone may have 4095 bytes
            )
            for one in changes[:room]
        ]

    # -- inside -----------------------------------------------------------------------------------------

    def _place(self) -> Place:
        return Place(disk=self.source.name)

    def _finds(self, kind: FlagKind, place: Place, reason: str) -> None:
        self.gathering.finds(Found(kind=kind, place=place, reason=reason))

    def _unread(self, reason: str) -> None:
        self._finds(FlagKind.UNREAD, self._place(), reason)

    def _shown(self, leaves: Iterator[Leaves], size: int) -> Iterator[Leaves]:
        done = 0
        for one in leaves:
            yield one
            done = min(size, done + one.count * CHUNK_BYTES)
            self._tell(f"disk {self.source.name}: {done >> 20} of {size >> 20} MiB")

    def _tell(self, words: str) -> None:
        now = time.monotonic()
        if now - self._told_at >= TELL_EVERY_S:
            self._told_at = now
            self.told(words)


def _resolved(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    return tuple(
        Layer(os.path.realpath(one.path), one.format, one.data_file and os.path.realpath(one.data_file))
        for one in layers
    )
