"""XFS, by libfsxfs.

Limit: the library gives names as text only: a name that is not UTF-8 is told as a problem, with its place.
What it cannot tell of a file's extended attributes is a problem of that file, whose content is told.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import pyfsxfs

from korora.adapters.filesystem.contents import Contents, Walked
from korora.adapters.filesystem.disk import AsFile, Bytes, words_of
from korora.adapters.filesystem.folders import Told
from korora.adapters.filesystem.hashing import Digests
from korora.adapters.filesystem.holes import Run
from korora.adapters.filesystem.xfs_attributes import attributes_of
from korora.adapters.filesystem.xfs_log import BLOCK_BYTES, Log
from korora.model.files import MAX_PATH_BYTES, FileRecord, Kind, Problem

MAX_DEPTH: Final = 1024
_SPARSE: Final = 1
_FAILURES: Final = (OSError, RuntimeError, ValueError, TypeError, OverflowError)
_KINDS: Final[dict[int, Kind]] = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "character-device",
    stat.S_IFBLK: "block-device",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}


@dataclass(frozen=True, slots=True)
class _Groups:
    """Allocation groups. The library gives a block's number as XFS writes it, group above block, as a place.

    Source: XFS Algorithms & Data Structures, "Superblocks": sb_blocksize, sb_agblocks, sb_agblklog.
    """

    block_bytes: int
    blocks: int
    bits: int
    version: int

    @classmethod
    def of(cls, superblock: bytes) -> _Groups:
        """`superblock`: what libfsxfs has opened already."""
        return cls(
            int.from_bytes(superblock[4:8], "big"),
            int.from_bytes(superblock[84:88], "big"),
            superblock[124],
            superblock[101] & 0xF,
        )

    def place_of(self, offset: int) -> int:
        number, within = divmod(offset, self.block_bytes)
        group, block = number >> self.bits, number & ((1 << self.bits) - 1)
        return (group * self.blocks + block) * self.block_bytes + within


class XfsVolume:
    """OSError when it is none."""

    filesystem = "xfs"

    def __init__(self, number: int, part: Bytes) -> None:
        self._number = number
        self._file = AsFile(part)
        self._volume = pyfsxfs.volume()
        self._volume.open_file_object(self._file)
        superblock = part.read(0, 512)
        self._groups = _Groups.of(superblock)
        self._log = _log(part, superblock, self._groups)

    def walk(self, contents: Contents) -> Iterator[Walked]:
        if unknown := self._in_its_log():
            yield self._problem(b"", unknown)
        yield from self._inside(self._volume.get_root_directory(), b"", (), contents)

    def _in_its_log(self) -> str:
        try:
            clean = self._log is not None and self._log.is_clean()
        except OSError as error:
            return words_of(error)
        return "" if clean else "what is in its log alone is not known: it was not unmounted"

    def _inside(
        self, directory: Any, path: bytes, above: tuple[int, ...], contents: Contents
    ) -> Iterator[Walked]:
        inode = int(directory.inode_number)
        if inode in above or len(above) >= MAX_DEPTH:
            yield self._problem(path, "a directory that leads back into itself, or too deep")
            return
        try:
            count = directory.number_of_sub_file_entries
        except _FAILURES as error:
            yield self._problem(path, words_of(error))
            return
        told = Told()
        for number in range(count):
            try:
                entry = directory.get_sub_file_entry(number)
                name = str(entry.name).encode()
                if refused := told.refused(name):
                    raise ValueError(refused)
                inside = path + b"/" + name
                record = self._record(entry, inside, contents)
            except _FAILURES as error:
                yield self._problem(path, f"its entry {number}: {words_of(error)}")
                continue
            if len(inside) > MAX_PATH_BYTES:
                yield self._problem(path, "a path too long")
                continue
            yield record
            yield from contents.wanted(record)
            yield from contents.located(record, self._runs(entry, record.kind))
            if record.kind == "directory":
                yield from self._inside(entry, inside, (*above, inode), contents)

    def _record(self, entry: Any, path: bytes, contents: Contents) -> FileRecord:
        mode = int(entry.file_mode)
        kind: Kind = _KINDS.get(stat.S_IFMT(mode), "other")
        size = int(entry.size) if kind in {"file", "symlink"} else 0
        digests: Digests = (None, None, None)
        problem = ""
        if kind == "file":
            digests, problem = contents.digested(
                lambda offset, length: entry.read_buffer_at_offset(length, offset),
                size,
                path,
                lambda: _holes(entry),
            )
        xattrs, more = self._attributes(entry) if contents.digests else (None, "")
        device = entry.device_number if kind.endswith("-device") else None
        return FileRecord(
            volume=self._number,
            path=path,
            kind=kind,
            mode=stat.S_IMODE(mode),
            owner=int(entry.owner_identifier),
            group=int(entry.group_identifier),
            size=size,
            links=int(entry.number_of_links),
            target=str(entry.symbolic_link_target or "").encode() if kind == "symlink" else b"",
            device=(int(device[0]), int(device[1])) if isinstance(device, tuple) else None,
            xattrs=xattrs,
            blake3=digests[0],
            md5=digests[1],
            sha256=digests[2],
            problem=problem or more,
        )

    def _attributes(self, entry: Any) -> tuple[dict[str, str] | None, str]:
        try:
            return attributes_of(entry, self._groups.block_bytes, self._groups.version), ""
        except _FAILURES as error:
            return None, f"extended attributes: {words_of(error)}"

    def _runs(self, entry: Any, kind: Kind) -> Iterator[Run]:
        """Of files alone: of folders the library does not tell."""
        if kind != "file" or not entry.size:
            return
        for number in range(entry.number_of_extents):
            offset, length, flags = entry.get_extent(number)
            if not flags & _SPARSE:
                yield self._groups.place_of(offset), length

    def _problem(self, path: bytes, words: str) -> Problem:
        return Problem(
            f"volume {self._number}: {path.decode('utf-8', 'backslashreplace')[:2000] or '/'}", words
        )


def _log(part: Bytes, superblock: bytes, groups: _Groups) -> Log | None:
    """None where it lies on another device."""
    start, blocks = int.from_bytes(superblock[48:56], "big"), int.from_bytes(superblock[96:100], "big")
    if not start or not blocks:
        return None
    place = groups.place_of(start * groups.block_bytes)
    return Log(part, place, blocks * groups.block_bytes // BLOCK_BYTES)


def _holes(entry: Any) -> Iterator[Run]:
    at = 0
    for number in range(entry.number_of_extents):
        _, length, flags = entry.get_extent(number)
        if flags & _SPARSE:
            yield at, length
        at += length
