"""A second inspector: reads raw disks alone, in this process, and finds what the test put into it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from korora.adapters.image.qemu_nbd import QemuImages
from korora.errors import ToolError
from korora.model.flag import FlagKind, Place
from korora.model.image import NbdExport
from korora.model.inspection import (
    Check,
    Compared,
    DiskFacts,
    DiskVerified,
    Disposition,
    Examined,
    Found,
    Looked,
)
from korora.ports.inspector import DiskSource, Order, Told
from korora.protocol.content_tree import CHUNK_BYTES, ContentTree, leaf

MARK = b"THE FAKE INSPECTOR TAKES THIS FOR MALWARE"


class FakeInspector:
    """Implements `ports.inspector.Inspector`. `found` is found in every VM; `error` is raised instead of an
    answer; `gate`: it ends only once this is set."""

    def __init__(self, *found: Found) -> None:
        self.found = found
        self.error: ToolError | None = None
        self.gate: asyncio.Event | None = None
        self.orders: list[Order] = []

    async def inspect(self, order: Order, told: Told) -> Examined:
        await self._begin(order, told)
        facts = [(disk, _content(disk)) for disk in order.disks]
        for disk, content in facts:
            if content is not None and order.checks[Check.DISKS] is not Disposition.OFF:
                kept = Path(order.output) / f"baseline-{disk.name}.chunks"
                kept.write_bytes(b"".join(_leaves(content)))
        return _examined(order, facts, self.found)

    async def compare(self, order: Order, told: Told) -> Compared:
        await self._begin(order, told)
        facts = [(disk, _content(disk)) for disk in order.disks]
        disks, found = [], []
        for disk, content in facts:
            before = Path(order.baseline) / f"baseline-{disk.name}.chunks"
            if content is None or not before.exists():
                continue
            pairs = list(zip(_chunks(before.read_bytes(), 32), _leaves(content), strict=True))
            differ = [number for number, (then, now) in enumerate(pairs) if then != now]
            verified = DiskVerified(
                name=disk.name,
                now=_root(content),
                chunks_same=len(pairs) - len(differ),
                chunks_differ=len(differ),
            )
            disks.append(verified)
            found += [_differs(disk.name, number) for number in differ]
        return Compared(examined=_examined(order, facts, (*self.found, *found)), disks=tuple(disks))

    async def _begin(self, order: Order, told: Told) -> None:
        self.orders.append(order)
        told("looks")
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error


def _content(disk: DiskSource) -> bytes | None:
    if disk.socket:
        with QemuImages().open_export(NbdExport(Path(disk.socket), disk.export)) as image:
            return next(iter(image.each([(0, image.size)], bytes)))
    path = Path(disk.path)
    return path.read_bytes() if disk.path and disk.format == "raw" and path.is_file() else None


def _chunks(content: bytes, size: int) -> list[bytes]:
    return [content[at : at + size] for at in range(0, len(content), size)]


def _leaves(content: bytes) -> list[bytes]:
    return [leaf(chunk) for chunk in _chunks(content, CHUNK_BYTES)]


def _root(content: bytes) -> str:
    tree = ContentTree()
    for one in _leaves(content):
        tree.add(one)
    return tree.root(len(content))


def _differs(disk: str, number: int) -> Found:
    place = Place(disk=disk, offset=number * CHUNK_BYTES, length=CHUNK_BYTES)
    return Found(kind=FlagKind.DIFFERS, place=place, reason="it is not what was measured")


def _examined(
    order: Order, facts: list[tuple[DiskSource, bytes | None]], planted: tuple[Found, ...]
) -> Examined:
    on = [check for check in Check if order.checks[check] is not Disposition.OFF]
    found = list(planted)
    for disk, content in facts:
        if content is None:
            found.append(
                Found(kind=FlagKind.UNREAD, place=Place(disk=disk.name), reason="no raw disk is there")
            )
        elif MARK in content:
            found.append(Found(kind=FlagKind.INFECTED, place=Place(disk=disk.name), reason="it has the mark"))
    unread = sum(one.kind is FlagKind.UNREAD for one in found)
    looked = [Looked(check=check, examined=len(facts), words="the fake") for check in on]
    if Check.UNKNOWN in on:
        looked = [one for one in looked if one.check is not Check.UNKNOWN]
        looked.append(Looked(check=Check.UNKNOWN, unknown=unread))
    disks = [
        DiskFacts(
            name=disk.name,
            format=disk.format,
            size=len(content or b""),
            root=_root(content) if content else None,
        )
        for disk, content in facts
    ]
    return Examined(looked=tuple(looked), disks=tuple(disks), found=tuple(found))
