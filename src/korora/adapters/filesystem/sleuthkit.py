"""ext2 to ext4, NTFS, FAT, exFAT and HFS+, by The Sleuth Kit; of ext, what that does not tell, by libfsext.

Promise: every name that is allocated is told of once, in bytes; a directory that leads back to itself is not
followed twice. Limit: NTFS's access lists are not read.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import msgspec
import pyfsext
import pytsk3

from korora.adapters.filesystem import folders, hfs_log, journal, ntfs, ntfs_index, ntfs_log
from korora.adapters.filesystem.contents import Contents, Walked
from korora.adapters.filesystem.disk import AsFile, Bytes, ForSleuthKit, words_of
from korora.adapters.filesystem.hashing import Digests
from korora.adapters.filesystem.holes import Run
from korora.adapters.filesystem.inodes import Inodes
from korora.adapters.filesystem.ntfs_table import Table
from korora.adapters.filesystem.sealed import ENCRYPTED, Sealed
from korora.model.files import MAX_PATH_BYTES, FileRecord, Kind, Problem

MAX_DEPTH: Final = 1024
_PIECE_BYTES: Final = 1 << 20
_INLINE: Final = 0x10000000
_SUPERBLOCK: Final = 1024
_KINDS: Final[dict[int, Kind]] = {
    pytsk3.TSK_FS_META_TYPE_REG: "file",
    pytsk3.TSK_FS_META_TYPE_DIR: "directory",
    pytsk3.TSK_FS_META_TYPE_LNK: "symlink",
    pytsk3.TSK_FS_META_TYPE_CHR: "character-device",
    pytsk3.TSK_FS_META_TYPE_BLK: "block-device",
    pytsk3.TSK_FS_META_TYPE_FIFO: "fifo",
    pytsk3.TSK_FS_META_TYPE_SOCK: "socket",
}
_ITS_OWN: Final = {b"$OrphanFiles", b"$MBR", b"$FAT1", b"$FAT2"}
_VIRTUAL: Final = {int(pytsk3.TSK_FS_NAME_TYPE_VIRT), int(pytsk3.TSK_FS_NAME_TYPE_VIRT_DIR)}
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
_OVER_HFS: Final = 1
"""What is above the root of HFS+ (TN1150); elsewhere that is the root itself."""


@dataclass(slots=True)
class _Folder:
    """One that is open, and the names in it that were not told yet."""

    path: bytes
    inode: int
    above: int
    entries: Iterator[Any]
    itself: Any
    encrypted: bool = False
    told: folders.Told = field(default_factory=folders.Told)
    count: int = 0
    own: set[bytes] = field(default_factory=set)

    def is_its_own(self, entry: Any, name: bytes) -> bool:
        """Whether it is the folder's name for itself or for the one above it, each once."""
        if name not in folders.ITSELF:
            return False
        leads_to = int(entry.info.name.meta_addr)
        if leads_to != {b".": self.inode, b"..": self.above}.get(name) or name in self.own:
            return False
        self.own.add(name)
        return True


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
        self._inodes = inodes
        self._extras = _Extras(part, inodes) if inodes else None
        self._sealed = Sealed(inodes) if inodes else None
        self._table = None
        if self.filesystem == "ntfs":
            self._table = Table(part, self._files)
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
            yield self._problem(b"", self._unplayed)
        contents.lie_in(self._has)
        number = int(self._files.info.root_inum)
        root = self._files.open_dir(inode=number)
        over = _OVER_HFS if self.filesystem == "hfs+" else number
        open_folders = [_Folder(b"", number, over, iter(root), self._files.open_meta(number))]
        above = {open_folders[0].inode}
        while open_folders:
            folder, record = open_folders[-1], None
            try:
                if (entry := next(folder.entries, None)) is not None:
                    record = yield from self._told(entry, folder, contents)
                else:
                    yield from self._counted(folder)
            except OSError as error:
                yield self._problem(folder.path, words_of(error))
                entry = None
            if entry is None:
                above.discard(open_folders.pop().inode)
            elif record is not None and record.kind == "directory":
                below = self._opened(entry, record, folder.inode, above)
                if isinstance(below, Problem):
                    yield below
                else:
                    open_folders.append(below)
                    above.add(below.inode)

    def _has(self, path: bytes) -> bool:
        """Whether something is there, or might be."""
        try:
            self._files.open(os.fsdecode(path))
        except OSError as error:
            return _NOT_THERE not in str(error)
        return True

    def _opened(self, entry: Any, record: FileRecord, of: int, above: set[int]) -> _Folder | Problem:
        inode, path = int(entry.info.meta.addr), record.path
        try:
            directory = entry.as_directory()
        except OSError as error:
            return self._problem(path, words_of(error))
        if inode in above or len(above) >= MAX_DEPTH:
            return self._problem(path, "a directory that leads back into itself, or too deep")
        return _Folder(path, inode, of, iter(directory), entry, record.problem == ENCRYPTED)

    def _counted(self, folder: _Folder) -> Iterator[Problem]:
        """Whether as many names were told as lie there."""
        if folder.encrypted:
            return
        try:
            there = self._lie_there(folder)
        except (OSError, ValueError) as error:
            yield self._problem(folder.path, words_of(error))
        else:
            if there is not None and there != folder.count:
                words = f"{there} names lie in it, and {folder.count} of them could be told"
                yield self._problem(folder.path, words)

    def _lie_there(self, folder: _Folder) -> int | None:
        """None where nobody counts."""
        match self.filesystem:
            case "ext2" | "ext3" | "ext4" if self._inodes is not None:
                if self._inodes.flags(folder.inode) & _INLINE:
                    return folders.in_inode(self._inodes.inline(folder.inode))
                return folders.in_ext(_pieces(folder.itself), int(self._files.info.block_size))
            case "fat12" | "fat16" | "fat32":
                return folders.in_fat(_pieces(folder.itself))
            case "exfat":
                return folders.in_exfat(_pieces(folder.itself))
            case "ntfs":
                return ntfs_index.names_in(folder.itself)
            case _:
                return None

    def _told(
        self, entry: Any, folder: _Folder, contents: Contents
    ) -> Generator[Walked, None, FileRecord | None]:
        """What there is to tell of a name, and its record."""
        name, meta = bytes(entry.info.name.name), entry.info.meta
        gone = entry.info.name.flags == pytsk3.TSK_FS_NAME_FLAG_UNALLOC
        if gone or _is_virtual(entry, name) or folder.is_its_own(entry, name):
            return None
        folder.count += name not in folders.ITSELF
        # Of a folder that is encrypted names are bytes like any other, and it is a problem already.
        refused = "" if folder.encrypted else folder.told.refused(name)
        if not refused and self._table is not None and ntfs.misnamed(entry, self._table):
            refused = f"a name that is no Unicode, and is not {name[:300]!r}"
        if refused:
            yield self._problem(folder.path, refused)
            return None
        path = folder.path + b"/" + name
        if len(path) > MAX_PATH_BYTES:
            yield self._problem(folder.path, "a path too long")
            return None
        if meta is None:
            yield self._problem(path, "a name that leads to nothing")
            return None
        record = self._record(entry, path, meta, contents)
        yield record
        yield from contents.wanted(record)
        yield from contents.located(record, self._runs(entry))
        if self.filesystem == "ntfs":
            yield from self._streams(entry, record, contents, folder)
        return record

    def _record(self, entry: Any, path: bytes, meta: Any, contents: Contents) -> FileRecord:
        kind: Kind = _KINDS.get(meta.type, "other")
        digests: Digests = (None, None, None)
        problem = self._unreadable(entry, kind, int(meta.addr))
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

    def _unreadable(self, entry: Any, kind: Kind, inode: int) -> str:
        """Why what stands there says nothing; "" otherwise."""
        if kind not in {"file", "directory", "symlink", "other"}:
            return ""
        try:
            if self._table is not None:
                return ntfs.unreadable(entry, self._table)
            return self._sealed.why(inode) if self._sealed is not None else ""
        except (OSError, ValueError) as error:
            return words_of(error)

    def _streams(self, entry: Any, of: FileRecord, contents: Contents, folder: _Folder) -> Iterator[Walked]:
        """Each as a file of its own, with the name of the file or folder before a colon."""
        for stream in ntfs.streams(entry, of.path):
            path = of.path + b":" + stream.name
            if refused := folder.told.refused(path[len(folder.path) + 1 :]):
                yield self._problem(folder.path, refused)
                continue
            if len(path) > MAX_PATH_BYTES:
                yield self._problem(of.path, "a stream with a name too long")
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

    def _problem(self, path: bytes, words: str) -> Problem:
        return Problem(
            f"volume {self._number}: {path.decode('utf-8', 'backslashreplace')[:2000] or '/'}", words
        )


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


def _is_virtual(entry: Any, name: bytes) -> bool:
    """What the library adds of its own; a guest may have files of these names."""
    return name in _ITS_OWN and int(entry.info.name.type) in _VIRTUAL


def _pieces(entry: Any) -> Iterator[bytes]:
    """All of its content."""
    size = int(entry.info.meta.size)
    for at in range(0, size, _PIECE_BYTES):
        yield bytes(entry.read_random(at, min(_PIECE_BYTES, size - at)))


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
