"""Which files belong to a disk image: its parts, and of its chain those that were allowed. Each is judged.

Promise: QEMU never opens a file of a chain whose own container was not judged, nor guesses its format.
Limit: a file that is exchanged between the look and the reading is read as the one it was declared to be.
"""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from korora.adapters.image import files
from korora.adapters.image.qemu_nbd import QemuImages
from korora.agents.integrity.disks import grains
from korora.agents.integrity.disks.containers import (
    VHDX_TABLE_BYTES,
    VHDX_TABLES,
    check_vmdk_header,
    judged,
    qcow2_bytes,
    vdi_bytes,
    vhdx_bytes,
    vmdk_extents,
)
from korora.agents.integrity.disks.recognition import HEAD_BYTES
from korora.errors import IntegrityError
from korora.model.image import Checked, Format, ImageFacts, ImageFiles, ImageFinding, Slice

MAX_DESCRIPTOR_BYTES: Final = 1 << 20  # QEMU reads no more of one
MAX_CHAIN: Final = 64


@dataclass(frozen=True, slots=True)
class _Level:
    """One image of a chain. `folder`: where its relative names begin, seen from the first image's folder."""

    path: Path
    format: Format
    part: Slice | None = None
    folder: str = ""
    in_use: bool = False

    def named(self, name: str) -> tuple[str, Path]:
        """Another file, as the first image would name it, and where it is."""
        return posixpath.join(self.folder, name), self.path.parent / name


def disk(
    path: Path,
    which: Format,
    allowed: Collection[Path] = (),
    part: Slice | None = None,
    in_use: bool = False,
) -> tuple[ImageFiles, ImageFacts]:
    """All that may be opened for it, and what its container says; findings of its chain are among them.

    `in_use`: somebody may be writing to it, not to what lies beneath. Then its header is judged, not its
    tables.
    """
    files.identity(path)
    may, level = {one.resolve() for one in allowed}, _Level(path, which, part, in_use=in_use)
    others: dict[str, Path] = {}
    found: list[ImageFacts] = []
    seen: set[Path] = set()
    below: _Level | None = level
    while below is not None:
        level = below
        facts, own = _looked_at(level, may)
        others |= own
        seen.add(level.path.resolve())
        below = _below(level, facts, may)
        if below is not None and (below.path.resolve() in seen or len(seen) >= MAX_CHAIN):
            facts = _with(facts, [ImageFinding("critical", "chain", "its chain of backing files has no end")])
            below = None
        found.append(facts)
    return ImageFiles(path, which, part, tuple(others.items())), _with(found[0], list(_of_chain(found[1:])))


def _looked_at(level: _Level, may: set[Path]) -> tuple[ImageFacts, dict[str, Path]]:
    """What it says, and the files that it may open, as the first image would name them."""
    parts = _parts(level)
    reader = QemuImages(in_use=level.in_use)
    described = reader.describe(ImageFiles(level.path, level.format, level.part, parts))
    facts = judged(described, level.format)
    names = [name for name in (facts.backing, facts.data_file) if name is not None and _may(level, name, may)]
    own = dict(level.named(name) for name in [*names, *(name for name, _ in parts)])
    facts = judged(described, level.format, names)
    if not facts.critical and not facts.encrypted:
        shown = (*parts, *((name, level.path.parent / name) for name in names if name == facts.data_file))
        facts = _with(facts, list(_damages(level, facts, shown)))
    return facts, own


def _damages(level: _Level, facts: ImageFacts, shown: tuple[tuple[str, Path], ...]) -> Iterator[ImageFinding]:
    """What QEMU would read as zeros, or twice, without a word. A raw disk has nothing that could be wrong."""
    if level.format is Format.RAW:
        return
    checked = Checked()
    if not level.in_use:
        checked = QemuImages().check(ImageFiles(level.path, level.format, level.part, shown))
    if checked.problem is not None:
        yield ImageFinding("critical", "damaged", f"it is damaged: {checked.problem}")
    length = level.part.length if level.part else files.identity(level.path).size
    head = files.head(level.path, HEAD_BYTES, level.part)
    least = 0
    if level.format is Format.VDI:
        least = vdi_bytes(head)
    elif level.format is Format.QCOW2:
        least = qcow2_bytes(head, facts, checked)
    elif level.format is Format.VHDX:
        least = max(vhdx_bytes(_at(level, place, VHDX_TABLE_BYTES)) for place in VHDX_TABLES)
    if least > length:
        yield ImageFinding("critical", "damaged", f"it is cut short: {least - length} bytes are missing")
    if level.format is Format.VMDK:
        yield from _grains(level.path, level.part)
        for _, path in shown:
            yield from _grains(path)


def _at(level: _Level, place: int, count: int) -> bytes:
    begin = level.part.offset if level.part else 0
    return files.head(level.path, count, Slice(begin + place, count))


def _grains(path: Path, part: Slice | None = None) -> Iterator[ImageFinding]:
    """Of one file of a VMDK, if it is a sparse one."""
    head = files.head(path, grains.HEADER_BYTES, part)
    if not head.startswith((b"KDMV", b"COWD")):
        return
    length = part.length if part else files.identity(path).size
    found = grains.directory(head)
    if found is None:
        footer = Slice(
            (part.offset if part else 0) + max(0, length - grains.FOOTER_FROM_END), grains.HEADER_BYTES
        )
        found = grains.directory(files.head(path, grains.HEADER_BYTES, footer))
    least = found.end if found is not None else length + 1
    if found is not None and found.end <= length:
        begin = (part.offset if part else 0) + found.place
        least = grains.least_bytes(found, files.pieces(path, Slice(begin, found.end - found.place)))
    if least > length:
        yield ImageFinding("critical", "damaged", "its tables of grains lie behind the file's end")


def _below(level: _Level, facts: ImageFacts, may: set[Path]) -> _Level | None:
    """The backing file, if it may be opened."""
    name, which = facts.backing, facts.backing_format
    if facts.critical or name is None or which is None or not _may(level, name, may):
        return None
    inside, path = level.named(name)
    return _Level(path, Format(which), folder=posixpath.dirname(inside))


def _may(level: _Level, name: str, may: set[Path]) -> bool:
    _, path = level.named(name)
    if path.resolve() not in may:
        return False
    files.identity(path)
    return True


def _parts(level: _Level) -> tuple[tuple[str, Path], ...]:
    """The files of a split VMDK, by its own names."""
    if level.format is not Format.VMDK:
        return ()
    head = files.head(level.path, HEAD_BYTES, level.part)
    check_vmdk_header(head)
    if head.startswith((b"KDMV", b"COWD")):
        return ()
    said = vmdk_extents(files.head(level.path, MAX_DESCRIPTOR_BYTES, level.part))
    if said.files and level.part is not None:
        raise IntegrityError(
            "a disk in a package names parts of it, and is to be one file", kind="image-escape"
        )
    parts = tuple((name, beside(level.path, name)) for name in said.files)
    for (_, path), least in zip(parts, said.least_bytes, strict=True):
        check_vmdk_header(files.head(path, HEAD_BYTES))
        if files.identity(path).size < least:
            raise IntegrityError(f"{path} is cut short: it is to have {least} bytes", kind="bad-image")
    return parts


def beside(path: Path, name: str) -> Path:
    """The file of that plain name in the same folder. IntegrityError if it leads elsewhere."""
    found = path.with_name(name)
    if found.is_symlink():
        raise IntegrityError(
            f"{found} is a link to another file, and no part of {path}",
            kind="image-escape",
            remedy="an image's parts lie in its own folder; do not use this one",
        )
    return found


def _with(facts: ImageFacts, more: Collection[ImageFinding]) -> ImageFacts:
    return replace(facts, findings=(*facts.findings, *more))


def _of_chain(below: Collection[ImageFacts]) -> Iterator[ImageFinding]:
    for depth, facts in enumerate(below, start=1):
        for one in facts.findings:
            yield replace(one, message=f"of its backing file {depth} deep: {one.message}")
        if facts.encrypted:
            yield ImageFinding("critical", "encrypted", f"its backing file {depth} deep is encrypted")
