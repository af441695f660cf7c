"""Which disks of a VM move with it, and where they come to lie."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from korora.errors import RefusedError
from korora.migration.crossing.subject import Subject
from korora.migration.setting import Setting
from korora.model.image import Format, ImageFiles
from korora.model.plan import MigrationRequest
from korora.model.storage import ALL, Beneath, DiskContent, DiskOrder, DisksAsked
from korora.model.vm import Disk, VmDefinition
from korora.ports.hypervisor import no_such_disk

FOLDER = "disks"
"""In the VM's own folder, which whoever undoes or wipes a VM removes."""


def moving(definition: VmDefinition, asked: Sequence[str]) -> tuple[Disk, ...]:
    """Those that a request names. RefusedError: kind="no-such-disk"; "disks-hidden" for an adopted VM."""
    there = {disk.name: disk for disk in definition.disks}
    missing = [name for name in asked if name != ALL and name not in there]
    if missing:
        raise no_such_disk(definition.name, missing, list(there))
    chosen = tuple(disk for disk in definition.disks if ALL in asked or disk.name in asked)
    if asked and not chosen:
        raise RefusedError(
            f"{definition.name} has no disks that could move with it",
            kind="no-such-disk",
            remedy="leave --disks out",
        )
    if chosen and definition.adopted:
        raise RefusedError(
            f"{definition.name} was adopted: its disks stay where they are",
            kind="disks-hidden",
            remedy="put them on storage that both hosts see, or define the VM for Korora",
        )
    return chosen


async def chosen(at: Setting, vm: Subject, asked: DisksAsked) -> tuple[DiskOrder, ...]:
    """The order for the destination. RefusedError as `moving`; kind="backing" for a form that cannot be."""
    disks = moving(vm.definition, asked.names)
    if not disks:
        return ()
    kept = [disk.name for disk in disks if asked.keep_backing and disk.backing]
    if kept and asked.format == "raw":
        raise RefusedError(
            f"the disk {kept[0]} cannot become raw and lie over other images",
            kind="backing",
            remedy="leave --disk-format raw out, or --keep-backing",
        )
    sizes: Mapping[str, int]
    if vm.live is not None:
        sizes = (await vm.live.machine.moving_disks([disk.name for disk in disks])).sizes
    else:
        sizes = {disk.name: await asyncio.to_thread(_size, at, disk) for disk in disks}
    used = await at.premises.disk_usage([path for disk in disks for path in (disk.path, *disk.beneath)])
    return tuple(
        DiskOrder(
            disk.name,
            asked.format or disk.format,
            sizes[disk.name],
            sum(used.get(path, 0) for path in (disk.path, *(() if disk.name in kept else disk.beneath))),
            keeps_backing=disk.name in kept,
        )
        for disk in disks
    )


def refuse_unasked(definition: VmDefinition, orders: Sequence[DiskOrder], request: MigrationRequest) -> None:
    """RefusedError(kind="request-mismatch") for an order of other disks than the operator signed for, or of
    one in another form. `definition`: the VM as it is at the source."""
    there = {disk.name: disk for disk in definition.disks}
    asked = there.keys() if ALL in request.disks.names else set(request.disks.names)
    ordered = [order.name for order in orders]
    wrong = [
        *(f"the disk {name} comes more than once" for name in ordered if ordered.count(name) > 1),
        *(f"the disk {name} was not to move" for name in ordered if name not in asked),
        *(f"the disk {name} was to move too" for name in sorted(asked - set(ordered))),
        *(told for order in orders for told in _otherwise(order, there[order.name], request.disks)),
    ]
    if wrong:
        raise RefusedError(
            f"that is not what {request.operator} signed for: {wrong[0]}",
            kind="request-mismatch",
            remedy="ask for just what is to move, and how; if it was, look into the source's log",
        )


def _otherwise(order: DiskOrder, disk: Disk, asked: DisksAsked) -> Iterator[str]:
    if order.format != (asked.format or disk.format):
        yield f"the disk {order.name} would come as {order.format}"
    if order.keeps_backing != (asked.keep_backing and bool(disk.backing)):
        how = "lie over images of this host" if order.keeps_backing else "come as one image"
        yield f"the disk {order.name} would {how}"


def beneath_ordered(definition: VmDefinition, orders: Iterable[DiskOrder]) -> tuple[str, ...]:
    """The files that must be at the destination for them, to be read."""
    keeping = {order.name for order in orders if order.keeps_backing}
    return tuple(path for disk in definition.disks if disk.name in keeping for path in disk.beneath)


def as_moved(
    contents: Iterable[DiskContent], definition: VmDefinition, orders: Iterable[DiskOrder]
) -> tuple[DiskContent, ...]:
    """With what became of the images beneath them. `definition`: the VM as it was at the source."""
    over = {disk.name for disk in definition.disks if disk.backing}
    keeping = {order.name for order in orders if order.keeps_backing}
    return tuple(
        replace(one, beneath=Beneath.KEPT if one.name in keeping else Beneath.FLATTENED)
        if one.name in over
        else one
        for one in contents
    )


def _size(at: Setting, disk: Disk) -> int:
    """Of a stopped VM's. Blocking."""
    described = at.images.describe(ImageFiles(Path(disk.path), Format(disk.format)))
    return int(described["virtual-size"])


async def replacement(at: Setting, vm: VmDefinition, asked: DisksAsked) -> Path:
    """Where the guest writes meanwhile. RefusedError(kind="replacement") where no file of a VM may lie."""
    if not asked.replacement:
        return at.guests.directory(vm.name)
    if await at.premises.outside([], [asked.replacement]):
        raise RefusedError(
            f"{asked.replacement} is no folder for what {vm.name} writes: this host's policy of files"
            " keeps VMs out of it",
            kind="replacement",
            remedy="name another with --replacement, or none: then it is the VM's own",
        )
    return Path(asked.replacement)


def staying(definition: VmDefinition, names: Iterable[str]) -> VmDefinition:
    """With those disks alone that do not move."""
    moved = set(names)
    return replace(definition, disks=tuple(disk for disk in definition.disks if disk.name not in moved))


def relocated(definition: VmDefinition, orders: Iterable[DiskOrder], directory: Path) -> VmDefinition:
    """As it will be at the destination: each disk that comes lies in the VM's own folder there.

    RefusedError(kind="no-such-disk") for an order of a disk that the VM does not have.
    """
    ordered = {order.name: order for order in orders}
    there = {disk.name for disk in definition.disks}
    missing = [name for name in ordered if name not in there]
    if missing:
        raise no_such_disk(definition.name, missing, sorted(there))
    return replace(
        definition,
        disks=tuple(
            _at(directory, ordered[disk.name], disk) if disk.name in ordered else disk
            for disk in definition.disks
        ),
    )


def _at(directory: Path, order: DiskOrder, disk: Disk) -> Disk:
    backing = disk.backing if order.keeps_backing else ()
    if backing and order.format != "qcow2":
        raise RefusedError(
            f"the disk {order.name} cannot become {order.format} and lie over other images", kind="backing"
        )
    path = directory / FOLDER / f"{order.name}.{order.format}"
    return Disk(str(path), order.format, order.name, backing)
