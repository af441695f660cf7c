"""Disks that stay behind for the VM's return, and those of an earlier visit that it finds (W2).

Promise: nothing that was kept is believed: the destination measures it, and tells its hashes; what both
hosts sign in the end are the roots of the whole disks. Any doubt ends in a new, empty image, and a full copy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from korora.errors import KororaError, PeerError
from korora.migration.greeting.conversation import Conversation
from korora.migration.papers.file import MigrationFile
from korora.migration.setting import Setting
from korora.model.identity import HostName, VmName
from korora.model.image import Format, ImageFiles
from korora.model.kept import KeptDisk
from korora.model.storage import Beneath, DiskContent
from korora.model.vm import Disk, VmDefinition
from korora.protocol import canonical, dsse, messages, statements
from korora.protocol.content_tree import chunks_of

log = structlog.get_logger("korora.kept")
_PART_BYTES: Final = 2 << 20
_LEAF_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Keeping:
    """What the source of one move is to keep; `contents` by the names of the disks."""

    vm: VmName
    to: HostName
    at: int
    contents: Mapping[str, DiskContent]


def keeping_of(at: Setting, file: MigrationFile | None) -> Keeping | None:
    """None if nobody asked for it. After a crash the contents are those of the manifest that this host
    signed."""
    if file is None or not file.request.disks.incremental:
        return None
    told = file.disks
    if not told and file.manifest is not None:
        manifest = canonical.decoded(dsse.parse(file.manifest).payload, statements.Manifest)
        told = tuple(statements.read_disks(manifest.disks))
    request, now = file.request, int(at.clock.now())
    return Keeping(request.vm, request.destination, now, {one.name: one for one in told})


async def kept(at: Setting, uuid: str, disk: Disk, keeping: Keeping) -> bool:
    """Whether it is; where it cannot be, it is where it was, to be wiped."""
    content = keeping.contents.get(disk.name)
    if content is None or content.beneath is Beneath.FLATTENED:  # it comes back as another image, if at all
        return False
    record = KeptDisk(
        vm=keeping.vm,
        uuid=uuid,
        name=disk.name,
        format=disk.format,
        size=content.size,
        root=content.root,
        to=keeping.to,
        at=keeping.at,
        backing=disk.backing,
    )
    try:
        await at.kept.keep(record, Path(disk.path))
    except OSError as error:
        log.warning("a disk is not kept", vm=keeping.vm, disk=disk.name, reason=str(error))
        return False
    return True


async def taken(at: Setting, vm: VmDefinition, disk: Disk, size: int) -> bool:
    """Whether what was kept of an ordered disk lies where it is to lie, for what differs to be written to it;
    over the same images, if it is to lie over some. What they hold is compared with all the rest."""
    found = at.kept.of(vm.name, disk.name)
    if found is None:
        return False
    told, image = found
    if (told.uuid, told.format, told.size, told.backing) != (vm.uuid, disk.format, size, disk.backing):
        return False
    try:
        described = await asyncio.to_thread(at.images.describe, ImageFiles(image, Format(disk.format)))
        # A name that is no whole path would mean another image where the disk is to lie now.
        beneath = disk.backing[0].path if disk.backing else None
        if (described["virtual-size"], described.get("backing-filename")) != (size, beneath):
            return False
        await at.kept.take(vm.name, disk.name, Path(disk.path))
    except (KororaError, OSError) as error:
        log.warning("a kept disk is of no use", vm=vm.name, disk=disk.name, reason=str(error))
        return False
    return True


async def given_back(at: Setting, vm: VmName, disk: str, path: Path) -> None:
    """Undo `taken`. Where that fails, it goes with the VM's folder."""
    try:
        await at.kept.put_back(vm, disk, path)
    except OSError as error:
        log.warning("a kept disk is lost", vm=vm, disk=disk, reason=str(error))


async def tell_leaves(talk: Conversation, disk: str, leaves: bytes) -> None:
    parts = range(0, max(1, len(leaves)), _PART_BYTES)
    for at in parts:
        last = at == parts[-1]
        await talk.say(messages.Leaves(disk, leaves[at : at + _PART_BYTES], last))


async def hear_leaves(talk: Conversation, sizes: Mapping[str, int]) -> dict[str, bytes]:
    """Of each of these disks, in this order. PeerError when they are not of its size."""
    return {name: await _one(talk, name, size) for name, size in sizes.items()}


async def _one(talk: Conversation, name: str, size: int) -> bytes:
    heard, wanted = bytearray(), chunks_of(size) * _LEAF_BYTES
    while True:
        said = await talk.expect(messages.Leaves, None)
        heard += said.data
        if said.disk != name or len(heard) > wanted or (said.last and len(heard) != wanted):
            raise PeerError(
                f"host {talk.channel.peer} told hashes of {said.disk} that are not those of {name}",
                kind="bad-hashes",
            )
        if said.last:
            return bytes(heard)
