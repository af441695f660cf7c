"""ext2 to ext4, NTFS, FAT, exFAT and HFS+, by The Sleuth Kit; of ext, what that does not tell, by libfsext.

Promise: every name that is allocated is told of once, in bytes; a directory that leads back to itself is not
followed twice. Limit: NTFS's access lists are not read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import msgspec
import pyfsext
import pytsk3

from korora.adapters.filesystem import ntfs
from korora.adapters.filesystem.contents import Contents, Walked
from korora.adapters.filesystem.disk import AsFile, Bytes, ForSleuthKit, words_of
from korora.adapters.filesystem.hashing import Digests
from korora.adapters.filesystem.holes import Run
from korora.adapters.filesystem.ntfs_table import Table
from korora.adapters.filesystem.sealed import Sealed
from korora.model.files import MAX_PATH_BYTES, FileRecord, Kind, Problem

MAX_DEPTH: Final = 1024
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


class SleuthKitVolume:
    """OSError when it is none of these file systems."""

    def __init__(self, number: int, part: Bytes) -> None:
        self._number = number
        self._image = ForSleuthKit(part)
        self._files = pytsk3.FS_Info(self._image)
        self.filesystem = _NAMES.get(self._files.info.ftype, "")
        if not self.filesystem:
            raise OSError("a file system that is not read")
        is_ext = self.filesystem in {"ext2", "ext3", "ext4"}
        self._extras = _Extras(part) if is_ext else None
        self._sealed = Sealed(part) if is_ext else None
        self._table = Table(part, self._files) if self.filesystem == "ntfs" else None
        self._above: set[int] = set()

    def walk(self, contents: Contents) -> Iterator[Walked]:
        root = self._files.open_dir(inode=self._files.info.root_inum)
        yield from self._inside(root, b"", int(self._files.info.root_inum), contents)

    def _inside(self, directory: Any, path: bytes, inode: int, contents: Contents) -> Iterator[Walked]:
        if inode in self._above or len(self._above) >= MAX_DEPTH:
            yield self._problem(path, "a directory that leads back into itself, or too deep")
            return
        self._above.add(inode)
        try:
            for entry in directory:
                yield from self._told(entry, path, contents)
        except OSError as error:
            yield self._problem(path, words_of(error))
        finally:
            self._above.discard(inode)

    def _told(self, entry: Any, above: bytes, contents: Contents) -> Iterator[Walked]:
        name, meta = bytes(entry.info.name.name), entry.info.meta
        if (
            name in {b".", b".."}
            or entry.info.name.flags == pytsk3.TSK_FS_NAME_FLAG_UNALLOC
            or _is_virtual(name)
        ):
            return
        path = above + b"/" + name
        if len(path) > MAX_PATH_BYTES:
            yield self._problem(above, "a path too long")
        elif meta is None:
            yield self._problem(path, "a name that leads to nothing")
        else:
            record = self._record(entry, path, meta, contents)
            yield record
            yield from contents.wanted(record)
            yield from contents.located(record, self._runs(entry))
            if self.filesystem == "ntfs":
                yield from self._streams(entry, record, contents)
            if record.kind == "directory":
                yield from self._deeper(entry, path, int(meta.addr), contents)

    def _deeper(self, entry: Any, path: bytes, inode: int, contents: Contents) -> Iterator[Walked]:
        try:
            directory = entry.as_directory()
        except OSError as error:
            yield self._problem(path, words_of(error))
            return
        yield from self._inside(directory, path, inode, contents)

    def _record(self, entry: Any, path: bytes, meta: Any, contents: Contents) -> FileRecord:
        kind: Kind = _KINDS.get(meta.type, "other")
        digests: Digests = (None, None, None)
        problem = self._unreadable(entry, kind, int(meta.addr))
        if kind == "file" and not problem:
            digests, problem = contents.digested(
                entry.read_random, int(meta.size), path, lambda: self._holes(entry)
            )
        xattrs, device, more = (
            self._extras.of(int(meta.addr), kind, int(meta.nlink))
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

    def _streams(self, entry: Any, of: FileRecord, contents: Contents) -> Iterator[Walked]:
        """Each as a file of its own, with the name of the file or folder before a colon."""
        for stream in ntfs.streams(entry, of.path):
            path = of.path + b":" + stream.name
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


def _target(entry: Any, meta: Any) -> bytes:
    """A long one is the link's content."""
    if meta.link:
        return bytes(meta.link)
    size = min(int(meta.size), MAX_PATH_BYTES)
    return bytes(entry.read_random(0, size)) if size else b""


def _is_virtual(name: bytes) -> bool:
    """What the library adds of its own."""
    return name in {b"$OrphanFiles", b"$MBR", b"$FAT1", b"$FAT2"}


_Extra = tuple[dict[str, str] | None, tuple[int, int] | None, str]


class _Extras:
    """What The Sleuth Kit does not tell of ext: extended attributes, device numbers."""

    def __init__(self, part: Bytes) -> None:
        self._file = AsFile(part)
        self._volume = pyfsext.volume()
        self._volume.open_file_object(self._file)
        self._of_links: dict[int, _Extra] = {}

    def of(self, inode: int, kind: Kind, links: int) -> _Extra:
        """Asked for a second name of a file, the library tells nothing: what it told first is kept."""
        if links < 2 or kind == "directory":
            return self._told(inode, kind)
        if inode not in self._of_links:
            self._of_links[inode] = self._told(inode, kind)
        return self._of_links[inode]

    def _told(self, inode: int, kind: Kind) -> _Extra:
        try:
            entry = self._volume.get_file_entry_by_inode(inode)
            device = _device(entry.device_number) if kind.endswith("-device") else None
            values = (
                entry.get_extended_attribute(number) for number in range(entry.number_of_extended_attributes)
            )
            xattrs = {
                str(value.name): hashlib.sha256(value.read(1 << 16) or b"").hexdigest() for value in values
            }
        except (OSError, TypeError, ValueError) as error:
            return None, None, f"extended attributes: {words_of(error)}"
        return xattrs, device, ""


def _device(number: Any) -> tuple[int, int] | None:
    return (int(number[0]), int(number[1])) if isinstance(number, tuple) else None
