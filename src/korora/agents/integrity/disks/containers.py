"""What a container says of itself, judged: other files that it would open, states that make it no plain disk.

Promise: an image that names another file, in whatever way, has a critical finding until that very file was
allowed. Limit: judges what QEMU reports of the header, and a VMDK's descriptor by its own reading.

Source: QEMU's `qemu-img info --output=json`; VMware, "Virtual Disk Format 5.0" (descriptor files).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from korora.errors import IntegrityError
from korora.model.image import Checked, Format, ImageFacts, ImageFinding, is_plain

MAX_SANE_BYTES: Final = 1 << 50
"""A petabyte: to ask QEMU where there are only zeros takes a minute for that, and hours for more."""
MAX_EXTENTS: Final = 10_000
MAX_SNAPSHOTS: Final = 1_000
_PROTOCOL: Final = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
# As QEMU's sscanf reads: a line's end is space like any other, so that an entry can go over several lines.
_EXTENT: Final = re.compile(
    r'^\s*(?:RW|RDONLY|NOACCESS)\s+(?P<sectors>[+-]?\d{1,30})\s*(?P<kind>[^\s"]+)\s*"(?P<file>[^"\r\n]+)'
    r'(?:"\s+(?P<offset>\d{1,30}))?',
    re.IGNORECASE | re.MULTILINE,
)
_SECTOR_BYTES: Final = 512
_FLAT: Final = {"FLAT", "VMFS"}
_VDI_BEGIN, _VDI_BLOCK, _VDI_ALLOCATED = 0x158, 0x178, 0x184
"""Where a VDI's header has, in four bytes each: the data's place, a block's size, how many are allocated."""
_QCOW2_TABLE: Final = struct.Struct(">36xIQ")
"""Entries of the first table, and where it is."""
VHDX_TABLES: Final = (192 << 10, 256 << 10)
VHDX_TABLE_BYTES: Final = 64 << 10
_VHDX_REGIONS: Final = b"regi"
_VHDX_REGION: Final = struct.Struct("<16xQI4x")
_VMDK_HEADER: Final = struct.Struct("<4sIIQ")
"""Magic, version, flags, capacity in sectors."""


def judged(said: Mapping[str, Any], which: Format, allowed: Collection[str] = ()) -> ImageFacts:
    """The facts in QEMU's description. `allowed`: other files by the names that the image has for them.

    IntegrityError if the description is not of that shape, as that of a damaged image may be.
    """
    try:
        return _judged(said, which, allowed)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise IntegrityError(
            f"QEMU's description of the image cannot be understood: {error!r}", kind="bad-image"
        ) from error


def _judged(said: Mapping[str, Any], which: Format, allowed: Collection[str]) -> ImageFacts:
    special = said.get("format-specific", {}).get("data", {})
    backing, data_file = said.get("backing-filename"), special.get("data-file")
    snapshots = tuple(str(one["name"]) for one in said.get("snapshots", ())[:MAX_SNAPSHOTS])
    facts = ImageFacts(
        format=which,
        virtual_size=int(said["virtual-size"]),
        actual_size=int(said.get("actual-size", 0)),
        findings=(),
        backing=backing,
        backing_format=said.get("backing-filename-format"),
        data_file=data_file,
        encrypted=bool(said.get("encrypted")),
        snapshots=snapshots,
    )
    findings = (*_others(facts, allowed), *_states(facts, said, special))
    return ImageFacts(**{name: getattr(facts, name) for name in facts.__slots__} | {"findings": findings})


def _others(facts: ImageFacts, allowed: Collection[str]) -> Iterator[ImageFinding]:
    for kind, name in (("backing", facts.backing), ("data-file", facts.data_file)):
        if name is None:
            continue
        if name.startswith("json:") or _PROTOCOL.match(name):
            yield ImageFinding("critical", f"{kind}-elsewhere", f"it would open {name!r}, no plain file")
        elif name not in allowed:
            yield ImageFinding("critical", kind, f"it would open another file of the host: {name!r}")
    if facts.backing is not None and facts.backing_format is None:
        yield ImageFinding(
            "critical",
            "backing-format",
            "it does not say its backing file's format: that would be guessed from bytes a guest wrote",
        )
    elif facts.backing is not None and facts.backing_format not in list(Format):
        yield ImageFinding(
            "critical", "backing-format", f"its backing file is said to be {facts.backing_format!r}: not read"
        )


def _states(facts: ImageFacts, said: Mapping[str, Any], special: Mapping[str, Any]) -> Iterator[ImageFinding]:
    if facts.virtual_size > MAX_SANE_BYTES:
        yield ImageFinding(
            "critical", "size", f"it claims to be {facts.virtual_size / 2**50:,.1f} PiB large; 1 PiB is read"
        )
    if facts.encrypted:
        yield ImageFinding("warning", "encrypted", "it is encrypted: its content is not read without its key")
    if facts.snapshots:
        number = len(facts.snapshots)
        yield ImageFinding("info", "snapshots", f"it keeps {number} snapshots, which no digest covers")
    if special.get("corrupt"):
        yield ImageFinding("critical", "corrupt", "it is marked as corrupt")
    if said.get("dirty-flag"):
        yield ImageFinding("warning", "dirty", "it was not closed: its writer crashed, or has it open")


@dataclass(frozen=True, slots=True)
class Extents:
    """The files of a split image, as its descriptor names them."""

    files: tuple[str, ...]
    least_bytes: tuple[int, ...]
    """Of each file: how long it is at least, if it holds what is said of it."""


def vmdk_extents(descriptor: bytes) -> Extents:
    """Of a VMDK's text descriptor. IntegrityError(kind="image-escape") if one lies anywhere but beside it."""
    found: dict[str, int] = {}
    for extent in _EXTENT.finditer(descriptor.decode("utf-8", "replace")):
        name, end = _beside(extent["file"]), int(extent["sectors"]) + int(extent["offset"] or 0)
        least = end * _SECTOR_BYTES if extent["kind"].upper() in _FLAT else 0
        found[name] = max(found.get(name, 0), least)
        if len(found) > MAX_EXTENTS:
            raise IntegrityError(f"the image has more than {MAX_EXTENTS} parts", kind="bad-image")
    return Extents(tuple(found), tuple(found.values()))


def qcow2_bytes(head: bytes, facts: ImageFacts, checked: Checked) -> int:
    """How long a qcow2's file is at least. What lies behind a file's end QEMU reads as zeros.

    The last cluster need not be whole if it is the first table's, or may hold compressed data or what belongs
    to snapshots: so QEMU writes it.
    """
    entries, table = _QCOW2_TABLE.unpack_from(head.ljust(_QCOW2_TABLE.size, b"\0"))
    least = int(table + 8 * entries)
    cluster = 1 << min(int.from_bytes(head[20:24], "big"), 21)
    may_be_short = checked.compressed or facts.snapshots or checked.end - table <= max(cluster, 8 * entries)
    return max(least, 0 if may_be_short else checked.end)


def vdi_bytes(head: bytes) -> int:
    """How long a VDI's file is at least, by its header. What lies behind a file's end QEMU reads as zeros."""
    begin, block, allocated = (
        int.from_bytes(head[at : at + 4], "little") for at in (_VDI_BEGIN, _VDI_BLOCK, _VDI_ALLOCATED)
    )
    return begin + block * allocated


def vhdx_bytes(table: bytes) -> int:
    """How long a VHDX's file is at least, by one of its two tables of regions. QEMU reads those behind a
    file's end as zeros.
    """
    if not table.startswith(_VHDX_REGIONS):
        return 0
    count = min(int.from_bytes(table[8:12], "little"), VHDX_TABLE_BYTES // _VHDX_REGION.size)
    entries = table[16 : 16 + count * _VHDX_REGION.size]
    whole = len(entries) // _VHDX_REGION.size * _VHDX_REGION.size
    return max((at + length for at, length in _VHDX_REGION.iter_unpack(entries[:whole])), default=0)


def check_vmdk_header(head: bytes) -> None:
    """Of a sparse VMDK. IntegrityError(kind="image-escape") if it leaves all to a descriptor inside of it,
    which QEMU would follow to any file.
    """
    if head.startswith(b"KDMV") and len(head) >= _VMDK_HEADER.size and not _VMDK_HEADER.unpack_from(head)[3]:
        raise IntegrityError(
            "the image's header has no size, and leaves it to a descriptor that may name any file",
            kind="image-escape",
            remedy="do not use this one; convert the disk again from where it came",
        )


def _beside(name: str) -> str:
    if not is_plain(name) or _PROTOCOL.match(name) or name.startswith("."):
        raise IntegrityError(
            f"the image names {name!r} as a part of it, which is not beside it",
            kind="image-escape",
            remedy="an image's parts lie in its own folder; do not use this one",
        )
    return name
