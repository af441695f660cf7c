"""ext2 to ext4, NTFS, FAT, exFAT and HFS+, by The Sleuth Kit; of ext, what that does not tell, by libfsext.

Where the contents go to somebody who sits over large files for long, these come first.
Limit: NTFS's access lists are not read.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, Final

import msgspec
import pyfsext
import pytsk3

from korora.adapters.filesystem import hfs_log, journal, ntfs, ntfs_log
from korora.adapters.filesystem.contents import Contents, Walked
from korora.adapters.filesystem.disk import AsFile, Bytes, ForSleuthKit, words_of
from korora.adapters.filesystem.hashing import Digests
from korora.adapters.filesystem.holes import Run
from korora.adapters.filesystem.inodes import Inodes
from korora.adapters.filesystem.ntfs_table import Table
from korora.adapters.filesystem.tree import Folder, Named, Tree
from korora.model.files import MAX_PATH_BYTES, FileRecord, Kind, Problem

_SUPERBLOCK: Final = 1024
_NOT_THERE: Final = "path not found"
_NOWHERE: Final = int(pytsk3.TSK_FS_ATTR_RUN_FLAG_FILLER) | int(pytsk3.TSK_FS_ATTR_RUN_FLAG_SPARSE)
_CONTENT: Final = {pytsk3.TSK_FS_ATTR_TYPE_DEFAULT, pytsk3.TSK_FS_ATTR_TYPE_NTFS_DATA}
_NAMES: Final = {
    pytsk3.TSK_FS_TYPE_EXT2: "ext2",
    pytsk3.TSK_FS_TYPE_EXT3: "ext3",
    pytsk3.TSK_FS_TYPE_EXT4: "ext4",
    pytsk3.TSK_FS_TYPE_NTFS: "ntfs",
    pytsk3.TSK_FS_TYPE_FAT12: "fat12",
    pytsk3.TSK_FS_TYPE_FAT16: "fat16",
    pytsk3.TSK_FS_TYPE_FAT32: "fat32",
    pytsk3.TSK_FS_TYPE_EXFAT: "exfat",
    pytsk3.TSK_FS_TYPE_HFS: "hfs+",
}

_EXT: Final = {"ext2", "ext3", "ext4"}


class SleuthKitVolume:
    """OSError when it is none of these file systems."""

    def __init__(self, number: int, part: Bytes) -> None:
        self._number = number
        self._image = ForSleuthKit(part)
        self._files = pytsk3.FS_Info(self._image)
        self.filesystem = _NAMES.get(self._files.info.ftype, "")
        if not self.filesystem:
            raise OSError("a file system that is not read")
        self._unplayed = ""
        if self.filesystem in _EXT:
            part = self._with_journal(part)
        inodes = Inodes(part) if self.filesystem in _EXT else None
        self._extras = _Extras(part, inodes) if inodes else None
        table = Table(part, self._files) if self.filesystem == "ntfs" else None
        self._tree = Tree(number, self._files, self.filesystem, inodes, table)
        if table is not None:
            self._unplayed = _in_its_log(lambda: ntfs_log.is_clean(self._files))
        elif self.filesystem == "hfs+":
            self._unplayed = _in_its_log(lambda: hfs_log.is_clean(part))

    def _with_journal(self, part: Bytes) -> Bytes:
        """From here on the disk is as it would be once it was mounted."""
        try:
            now = journal.played(part, self._files)
        except (OSError, ValueError) as error:
            self._unplayed = f"what is in its journal alone is not known: {words_of(error)}"
            return part
        if now is None:
            return part
        self._before = self._image, self._files  # its journal is read from there
        self._image = ForSleuthKit(now)
        self._files = pytsk3.FS_Info(self._image)
        self.filesystem = _NAMES.get(self._files.info.ftype, "")
        if self.filesystem not in _EXT:
            raise OSError("what its journal makes of it is not read")
        return now

    def walk(self, contents: Contents) -> Iterator[Walked]:
        if self._unplayed:
            yield self._tree.problem(b"", self._unplayed)
        contents.lie_in(self._has)
        early = dict[tuple[bytes, int], FileRecord]()
        for named in self._tree.large_files() if contents.passes_on else ():
            with suppress(OSError):  # it is told in its place
                record = early[named.path, named.inode] = self._record(named, contents)
                yield from self._told(named, record, contents)
        for one in self._tree.names():
            if isinstance(one, Problem):
                yield one
                continue
            try:
                told = early.get((one.path, one.inode))
                record = told or self._record(one, contents)
                if told is None:
                    yield from self._told(one, record, contents)
                if self.filesystem == "ntfs":
                    yield from self._streams(one.entry, record, contents, one.folder)
            except OSError as error:
                yield self._tree.problem(one.path, words_of(error))

    def _has(self, path: bytes) -> bool:
        """Whether something is there, or might be."""
        try:
            self._files.open(os.fsdecode(path))
        except OSError as error:
            return _NOT_THERE not in str(error)
        return True

    def _told(self, named: Named, record: FileRecord, contents: Contents) -> Iterator[Walked]:
        yield record
        yield from contents.wanted(record)
        yield from contents.located(record, self._runs(named.entry))

    def _record(self, named: Named, contents: Contents) -> FileRecord:
        entry, path, kind = named.entry, named.path, named.kind
        meta = entry.info.meta
        digests: Digests = (None, None, None)
        problem = self._tree.unreadable(entry, kind)
        if kind == "file" and not problem:
            digests, problem = contents.digested(
                entry.read_random, int(meta.size), path, lambda: self._holes(entry)
            )
        xattrs, device, more = (
            self._extras.of(int(meta.addr), kind)
            if self._extras and contents.digests and not problem
            else (None, None, "")
        )
        return FileRecord(
            volume=self._number,
            path=path,
            kind=kind,
            mode=int(meta.mode) & 0o7777,
            owner=int(meta.uid),
            group=int(meta.gid),
            size=int(meta.size) if kind in {"file", "symlink"} else 0,
            links=int(meta.nlink),
            target=_target(entry, meta) if kind == "symlink" and not problem else b"",
            device=device,
            xattrs=xattrs,
            blake3=digests[0],
            md5=digests[1],
            sha256=digests[2],
            problem=problem or more,
        )

    def _streams(self, entry: Any, of: FileRecord, contents: Contents, folder: Folder) -> Iterator[Walked]:
        """Each as a file of its own, with the name of the file or folder before a colon."""
        for stream in ntfs.streams(entry, of.path):
            path = of.path + b":" + stream.name
            if refused := folder.told.refused(path[len(folder.path) + 1 :]):
                yield self._tree.problem(folder.path, refused)
                continue
            if len(path) > MAX_PATH_BYTES:
                yield self._tree.problem(of.path, "a stream with a name too long")
                continue
            digests: Digests = (None, None, None)
            problem = stream.problem
            if not problem:
                digests, problem = contents.digested(
                    stream.read, stream.size, path, partial(self._nowhere, stream.attribute)
                )
            yield msgspec.structs.replace(
                of,
                path=path,
                kind="file",
                size=stream.size,
                target=b"",
                blake3=digests[0],
                md5=digests[1],
                sha256=digests[2],
                problem=problem,
            )

    def _runs(self, entry: Any) -> Iterator[Run]:
        """Of all its attributes: content, blocks that say where content lies, a folder's names."""
        size = int(self._files.info.block_size)
        for attribute in entry:
            for run in attribute:
                if not int(run.flags) & _NOWHERE:
                    yield int(run.addr) * size, int(run.len) * size

    def _holes(self, entry: Any) -> Iterator[Run]:
        """Of its own content, which is the first that has no name."""
        for attribute in entry:
            if attribute.info.type in _CONTENT and not attribute.info.name:
                yield from self._nowhere(attribute)
                return

    def _nowhere(self, attribute: Any) -> Iterator[Run]:
        size = int(self._files.info.block_size)
        for run in attribute:
            if int(run.flags) & _NOWHERE:
                yield int(run.offset) * size, int(run.len) * size


def _in_its_log(is_clean: Callable[[], bool]) -> str:
    try:
        return "" if is_clean() else "what is in its log alone is not known: it was not closed"
    except OSError as error:
        return words_of(error)


def _target(entry: Any, meta: Any) -> bytes:
    """A long one is the link's content."""
    if meta.link:
        return bytes(meta.link)
    size = min(int(meta.size), MAX_PATH_BYTES)
    return bytes(entry.read_random(0, size)) if size else b""


_Extra = tuple[dict[str, str] | None, tuple[int, int] | None, str]


class _Extras:
    """What The Sleuth Kit does not tell of ext: extended attributes, and, by libfsext, device numbers.

    libfsext (20260821) tells attributes too, and gives zeros behind the 60th byte of a value.
    """

    def __init__(self, part: Bytes, inodes: Inodes) -> None:
        self._inodes = inodes
        self._file = AsFile(part)
        self._volume = pyfsext.volume()
        self._volume.open_file_object(self._file)

    def of(self, inode: int, kind: Kind) -> _Extra:
        try:
            values = self._inodes.attributes(inode)
            device = self._device(inode) if kind.endswith("-device") else None
        except (OSError, TypeError, ValueError) as error:
            return None, None, f"extended attributes: {words_of(error)}"
        return {name: hashlib.sha256(value).hexdigest() for name, value in values.items()}, device, ""

    def _device(self, inode: int) -> tuple[int, int] | None:
        return _device(self._volume.get_file_entry_by_inode(inode).device_number)


def _device(number: Any) -> tuple[int, int] | None:
    return (int(number[0]), int(number[1])) if isinstance(number, tuple) else None
