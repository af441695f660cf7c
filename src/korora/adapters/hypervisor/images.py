"""Disk images that would have QEMU open another file of the host. Blocking.

Limit: an image is looked at before the start; whoever may write it then may still change it.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterable
from pathlib import Path

from korora.errors import RefusedError
from korora.model.image import UNFINISHED_SUFFIX
from korora.model.vm import Disk

_QCOW2_MAGIC = b"QFI\xfb"
_QCOW2_HEADER = struct.Struct(">4sIQ")  # magic, version, where the backing file is named
_INCOMPATIBLE_FEATURES_AT = 72  # QEMU's docs/interop/qcow2.txt
_EXTERNAL_DATA_FILE = 1 << 2


def refuse_escaping_images(disks: Iterable[Disk], *, backing_is_cut_off: bool) -> None:
    """RefusedError(kind="disk-escapes") for an image that would have QEMU open another file of the host.

    Korora's own command line cuts off the backing file, an adopted VM's does not. None cuts off an external
    data file.
    """
    for disk in disks:
        escape = _escape(Path(disk.path), backing_is_cut_off) if disk.format == "qcow2" else ""
        if escape:
            raise RefusedError(
                f"the image {disk.path} {escape}",
                kind="disk-escapes",
                remedy="convert it to one file: qemu-img convert -O qcow2",
            )


def refuse_unfinished_images(disks: Iterable[Disk]) -> None:
    """RefusedError(kind="unfinished-apply") for an image between two contents: a diff was begun on it."""
    for disk in disks:
        beside = Path(disk.path + UNFINISHED_SUFFIX)
        if beside.is_file() or beside.is_symlink():
            raise RefusedError(
                f"a diff is being applied to the image {disk.path}, or was broken off: it is no disk to use"
                f" ({beside} says so)",
                kind="unfinished-apply",
                remedy="finish it with the same command, `korora disk diff apply DIFF IMAGE --in-place`, or"
                f" have the image back from a copy and remove {beside}",
            )


def _escape(path: Path, backing_is_cut_off: bool) -> str:
    """How the image leads to another file; empty where it does not, or is no image."""
    header = _header(path)
    if len(header) < _INCOMPATIBLE_FEATURES_AT + 8:
        return ""
    magic, version, backing_at = _QCOW2_HEADER.unpack_from(header)
    features = struct.unpack_from(">Q", header, _INCOMPATIBLE_FEATURES_AT)[0]
    if magic != _QCOW2_MAGIC:
        return ""
    if backing_at and not backing_is_cut_off:
        return "has another file behind it"
    return "keeps its data in another file" if version >= 3 and features & _EXTERNAL_DATA_FILE else ""


def _header(path: Path) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode) and not path.is_block_device():
            return b""
        with path.open("rb") as file:
            return file.read(_INCOMPATIBLE_FEATURES_AT + 8)
    except OSError:
        return b""  # QEMU will say why it cannot be opened
