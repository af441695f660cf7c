"""The files of a package in one archive (tar), found by its headers alone.

Promise: every byte up to the end mark belongs to a header that is right, or to a file with a plain name of
its own; what another reader could take for something else is refused. Memory: one header.
Limit: what comes after the end mark is not looked at, and not part of the package.

Source: POSIX.1-2017, pax, "ustar Interchange Format"; DMTF DSP0243 2.1, section 6.4 (OVA).
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from korora.adapters.image import files
from korora.errors import IntegrityError
from korora.model.image import MAX_MEMBERS, Slice, is_plain

_BLOCK: Final = 512
_FILES: Final = {tarfile.REGTYPE, tarfile.AREGTYPE}
_NOTES: Final = {tarfile.XHDTYPE, tarfile.XGLTYPE}
_MAX_NOTE_BYTES: Final = 64 << 10
_TELLING: Final = (b" path=", b" linkpath=", b" size=", b" hdrcharset=", b" GNU.", b" SCHILY.realsize=")
"""Notes that say another name or size than the header does."""


def members(path: Path) -> dict[str, Slice]:
    """Name → where it lies. IntegrityError(kind="bad-package")."""
    found: dict[str, Slice] = {}
    with files.opened(path) as file:
        for name, part in _entries(path, file):
            if name in found:
                raise _bad(path, f"it has {name!r} more than once")
            if len(found) >= MAX_MEMBERS:
                raise _bad(path, f"it has more than {MAX_MEMBERS} files")
            found[name] = part
    return found


def _entries(path: Path, file: BinaryIO) -> Iterator[tuple[str, Slice]]:
    end, at = file.seek(0, os.SEEK_END), 0
    notes = 0
    while (header := _block(path, file, at)).strip(b"\0"):
        member, at = _header(path, header), at + _BLOCK
        if at + member.size > end:
            raise _bad(path, f"it ends within {member.name!r}")
        if member.type in _NOTES:
            notes += 1
            _check_note(path, file, member.size, notes)
        elif member.type not in _FILES or not is_plain(member.name):
            raise _bad(path, f"it has {member.name!r}, which is no plain file of a package")
        else:
            yield member.name, Slice(at, member.size)
        at += -(-member.size // _BLOCK) * _BLOCK


def _block(path: Path, file: BinaryIO, at: int) -> bytes:
    file.seek(at)
    header = file.read(_BLOCK)
    if len(header) < _BLOCK:
        raise _bad(path, "it ends before its end mark")
    return header


def _header(path: Path, header: bytes) -> tarfile.TarInfo:
    try:
        member = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
    except (tarfile.HeaderError, ValueError) as error:
        raise _bad(path, f"a header is damaged: {error}") from error
    if member.size < 0:
        raise _bad(path, "a file has less than no bytes")
    return member


def _check_note(path: Path, file: BinaryIO, size: int, number: int) -> None:
    """A pax header, of times and owners and the like; none that changes what the next header says."""
    note = file.read(size) if size <= _MAX_NOTE_BYTES and number <= 2 * MAX_MEMBERS else _TELLING[0]
    # Wherever it stands: readers differ in where a record ends.
    if any(word in note for word in _TELLING):
        raise _bad(path, "it has a note that changes a file's name or size")


def _bad(path: Path, problem: str) -> IntegrityError:
    return IntegrityError(f"{path} is no package: {problem}", kind="bad-package")
