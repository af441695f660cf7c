"""The names of a volume that The Sleuth Kit reads, folder by folder.

Promise: every name that is allocated is given once, in bytes; a folder that leads back to itself is not
followed twice. What cannot be given is a problem, told in its place.
"""

from __future__ import annotations

import heapq
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

import pytsk3

from korora.adapters.filesystem import folders, ntfs, ntfs_index
from korora.adapters.filesystem.disk import words_of
from korora.adapters.filesystem.inodes import Inodes
from korora.adapters.filesystem.ntfs_table import Table
from korora.adapters.filesystem.sealed import ENCRYPTED, Sealed
from korora.model.files import MAX_PATH_BYTES, Kind, Problem

MAX_DEPTH: Final = 1024
LARGE_BYTES: Final = 8 << 20
_LARGEST: Final = 64
_LOOKED_THROUGH: Final = 200_000
_PIECE_BYTES: Final = 1 << 20
_INLINE: Final = 0x10000000
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
_OVER_HFS: Final = 1
"""What is above the root of HFS+ (TN1150); elsewhere that is the root itself."""


@dataclass(slots=True)
class Folder:
    """One that is open, and the names in it that were not given yet. `told`: the names that were."""

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


@dataclass(frozen=True, slots=True)
class Named:
    """`entry`: The Sleuth Kit's, of which something is known beside its name."""

    path: bytes
    kind: Kind
    entry: Any
    folder: Folder

    @property
    def inode(self) -> int:
        return int(self.entry.info.meta.addr)

    @property
    def size(self) -> int:
        return int(self.entry.info.meta.size)


class Tree:
    """`inodes`: of ext; `table`: of NTFS."""

    def __init__(
        self, number: int, files: Any, filesystem: str, inodes: Inodes | None, table: Table | None
    ) -> None:
        self._number = number
        self._files = files
        self._filesystem = filesystem
        self._inodes = inodes
        self._table = table
        self._sealed = Sealed(inodes) if inodes else None

    def names(self, *, counted: bool = True) -> Generator[Named | Problem, None, None]:
        """A folder's own before what is in it. `counted`: whether as many are given as lie there."""
        number = int(self._files.info.root_inum)
        over = _OVER_HFS if self._filesystem == "hfs+" else number
        root = self._files.open_dir(inode=number)
        open_folders = [Folder(b"", number, over, iter(root), self._files.open_meta(number))]
        above = {number}
        while open_folders:
            folder, named = open_folders[-1], None
            try:
                if (entry := next(folder.entries, None)) is not None:
                    if (named := self._named(entry, folder)) is not None:
                        yield named
                elif counted:
                    yield from self._counted(folder)
            except OSError as error:
                yield self.problem(folder.path, words_of(error))
                entry = None
            if entry is None:
                above.discard(open_folders.pop().inode)
            elif isinstance(named, Named) and named.kind == "directory":
                below = self._opened(named, above)
                if isinstance(below, Problem):
                    yield below
                else:
                    open_folders.append(below)
                    above.add(below.inode)

    def large_files(self) -> list[Named]:
        """The largest first; a few, of those that are found soon. What is wrong is told with the names."""
        names = islice(self.names(counted=False), _LOOKED_THROUGH)
        large = (one for one in names if isinstance(one, Named) and _is_large(one))
        try:
            return heapq.nlargest(_LARGEST, large, key=lambda one: one.size)
        except (OSError, RuntimeError, ValueError):
            return []

    def unreadable(self, entry: Any, kind: Kind) -> str:
        """Why what stands there says nothing; "" otherwise."""
        if kind not in {"file", "directory", "symlink", "other"}:
            return ""
        try:
            if self._table is not None:
                return ntfs.unreadable(entry, self._table)
            return self._sealed.why(int(entry.info.meta.addr)) if self._sealed is not None else ""
        except (OSError, ValueError) as error:
            return words_of(error)

    def problem(self, path: bytes, words: str) -> Problem:
        return Problem(
            f"volume {self._number}: {path.decode('utf-8', 'backslashreplace')[:2000] or '/'}", words
        )

    def _named(self, entry: Any, folder: Folder) -> Named | Problem | None:
        """None for what is no name of a file that is there."""
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
            return self.problem(folder.path, refused)
        path = folder.path + b"/" + name
        if len(path) > MAX_PATH_BYTES:
            return self.problem(folder.path, "a path too long")
        if meta is None:
            return self.problem(path, "a name that leads to nothing")
        return Named(path, _KINDS.get(meta.type, "other"), entry, folder)

    def _opened(self, named: Named, above: set[int]) -> Folder | Problem:
        try:
            directory = named.entry.as_directory()
        except OSError as error:
            return self.problem(named.path, words_of(error))
        if named.inode in above or len(above) >= MAX_DEPTH:
            return self.problem(named.path, "a directory that leads back into itself, or too deep")
        encrypted = self.unreadable(named.entry, named.kind) == ENCRYPTED
        return Folder(named.path, named.inode, named.folder.inode, iter(directory), named.entry, encrypted)

    def _counted(self, folder: Folder) -> Iterator[Problem]:
        """Whether as many names were told as lie there."""
        if folder.encrypted:
            return
        try:
            there = self._lie_there(folder)
        except (OSError, ValueError) as error:
            yield self.problem(folder.path, words_of(error))
        else:
            if there is not None and there != folder.count:
                words = f"{there} names lie in it, and {folder.count} of them could be told"
                yield self.problem(folder.path, words)

    def _lie_there(self, folder: Folder) -> int | None:
        """None where nobody counts."""
        match self._filesystem:
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


def _is_large(named: Named) -> bool:
    return named.kind == "file" and named.size >= LARGE_BYTES


def _is_virtual(entry: Any, name: bytes) -> bool:
    """What the library adds of its own; a guest may have files of these names."""
    return name in _ITS_OWN and int(entry.info.name.type) in _VIRTUAL


def _pieces(entry: Any) -> Iterator[bytes]:
    """All of its content."""
    size = int(entry.info.meta.size)
    for at in range(0, size, _PIECE_BYTES):
        yield bytes(entry.read_random(at, min(_PIECE_BYTES, size - at)))
