"""Disk images that would have QEMU open another file of the host. Blocking.

Limit: an image is looked at before the start; whoever may write it then may still change it.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from korora.errors import RefusedError
from korora.model.image import UNFINISHED_SUFFIX
from korora.model.vm import Backing, Disk

_ONE_FILE: Final = "make it one file: qemu-img convert -O qcow2"

_MAGIC: Final = b"QFI\xfb"
_BEGIN: Final = struct.Struct(">4sIQI")  # magic, version, where its backing file is named, in how many bytes
_LEAST_BYTES: Final = 104
_INCOMPATIBLE_FEATURES_AT: Final = 72  # QEMU's docs/interop/qcow2.txt
_EXTERNAL_DATA_FILE: Final = 1 << 2
_NAME_MAX: Final = 1023
_HEADER_BYTES_AT: Final = 100
_HEADER_BYTES_V2: Final = 72
_HEADER_MAX: Final = 4096
_BACKING_FORMAT: Final = 0xE2792ACA


def refuse_escaping_images(disks: Iterable[Disk]) -> None:
    """RefusedError(kind="disk-escapes") for an image that keeps its data in another file; "backing-differs"
    where an image has another one beneath it than its definition says, or none.

    QEMU is told the chain of the definition. Where the images say another, other tools would see another
    disk than the guest does, and a guest another one than its owner made.
    """
    for disk in disks:
        levels = [(disk.path, disk.format), *((one.path, one.format) for one in disk.backing)]
        for (path, form), below in zip(levels, [*disk.backing, None], strict=True):
            if form == "qcow2":
                _refuse_escape(Path(path), below)


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


def _refuse_escape(path: Path, declared: Backing | None) -> None:
    header = _read(path, 0, _LEAST_BYTES)
    if len(header) < _LEAST_BYTES or not header.startswith(_MAGIC):
        return  # QEMU will say what is wrong with it
    _, version, name_at, name_bytes = _BEGIN.unpack_from(header)
    (features,) = struct.unpack_from(">Q", header, _INCOMPATIBLE_FEATURES_AT)
    if version >= 3 and features & _EXTERNAL_DATA_FILE:
        raise RefusedError(
            f"the image {path} keeps its data in another file", kind="disk-escapes", remedy=_ONE_FILE
        )
    name = _read(path, name_at, min(name_bytes, _NAME_MAX)).decode("utf-8", "replace") if name_at else ""
    form = _backing_format(_read(path, 0, _HEADER_MAX), version) if name else ""
    if not _is(path, name, form, declared):
        raise RefusedError(
            f"the image {path} has {_told(name, form)} beneath it, and the VM's definition says"
            f" {_told(declared.path, declared.format) if declared else 'nothing'}",
            kind="backing-differs",
            remedy="say it in the definition, with its format, under [[disks.backing]] (of a VM that was"
            f" adopted it cannot be said); or {_ONE_FILE}",
        )


def _is(path: Path, name: str, form: str, declared: Backing | None) -> bool:
    if declared is None or not name:
        return declared is None and not name
    named = (path.parent / name.removeprefix("file:")).resolve()
    return named == Path(declared.path).resolve() and form in {"", declared.format}


def _told(name: str, form: str) -> str:
    return f"{name} ({form or 'of no format'})" if name else "nothing"


def _backing_format(header: bytes, version: int) -> str:
    """As its extension says; empty where none does."""
    at = struct.unpack_from(">I", header, _HEADER_BYTES_AT)[0] if version >= 3 else _HEADER_BYTES_V2
    while at + 8 <= len(header):
        kind, length = struct.unpack_from(">II", header, at)
        if kind == _BACKING_FORMAT:
            return header[at + 8 : at + 8 + length].decode("utf-8", "replace")
        if kind == 0:
            break
        at += 8 + (length + 7) // 8 * 8
    return ""


def _read(path: Path, offset: int, count: int) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode) and not path.is_block_device():
            return b""
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(count)
    except OSError:
        return b""  # QEMU will say why it cannot be opened
