"""The files of a btrfs: of its top level, with all subvolumes and snapshots as the folders that they are.

Promise: every name is told of once; a folder that two names lead to is a problem, so no walk is without end,
and so is one that lists other names than Linux would find in it.
Limits: a file in ten snapshots is read ten times; what was written since the last commit and lies in the log
alone is not told, and while there is a log, that is a problem; of a subvolume that is being deleted nothing.
"""

from __future__ import annotations

import hashlib
import stat
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Final

from korora.adapters.filesystem.btrfs.checksums import name_hash
from korora.adapters.filesystem.btrfs.content import Data, FileContent
from korora.adapters.filesystem.btrfs.superblock import Root
from korora.adapters.filesystem.btrfs.trees import LAST, ROOT_ITEM, Key, Trees
from korora.adapters.filesystem.contents import Contents, Read, Walked
from korora.adapters.filesystem.disk import Bytes, words_of
from korora.adapters.filesystem.folders import can_be
from korora.adapters.filesystem.hashing import Digests
from korora.adapters.filesystem.holes import Holes, Run
from korora.model.files import MAX_PATH_BYTES, FileRecord, Kind, Problem

TOP_LEVEL: Final = 5
MAX_DEPTH: Final = 1024
_INODE_ITEM, _ATTRIBUTE, _ASKED, _LISTED, _ROOT_REFERENCE = 1, 24, 84, 96, 156
_EMPTY: Final = 2  # the inode that Linux gives a nested subvolume's place in a snapshot
_INODE: Final = struct.Struct("<QQQQQIIIIQQ")
_ENTRY: Final = struct.Struct("<QBQQHHB")
_REFERENCE: Final = struct.Struct("<QQH")
_WITHOUT_CHECKSUMS: Final = 1
_MINOR_BITS: Final = 20
_FAILURES: Final = (OSError, ValueError, TypeError, OverflowError, LookupError, struct.error, MemoryError)
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
class _Place:
    """An inode in a tree."""

    tree: int
    root: Root
    inode: int


@dataclass(frozen=True, slots=True)
class _Facts:
    size: int
    links: int
    owner: int
    group: int
    mode: int
    device: int
    flags: int


_Name = tuple[bytes, int, int, int]  # of what: its key


class BtrfsVolume:
    """OSError when it is none that can be read."""

    filesystem = "btrfs"

    def __init__(self, number: int, part: Bytes) -> None:
        self._number = number
        try:
            self._trees = Trees(part)
            self._data = Data(part, self._trees)
            root, folder = self._trees.tree(TOP_LEVEL)
        except _FAILURES as error:
            raise OSError(words_of(error)) from error
        self._top = _Place(TOP_LEVEL, root, folder)
        self._seen: set[tuple[int, int]] = set()

    def walk(self, contents: Contents) -> Iterator[Walked]:
        if self._trees.about.has_log:
            yield self._problem(b"", "it was not unmounted: what its log has is not read")
        open_folders = [(b"", self._names(self._top))]
        while open_folders:
            path, names = open_folders[-1]
            try:
                name = next(names, None)
            except _FAILURES as error:
                yield self._problem(path, words_of(error))
                name = None
            if name is None:
                open_folders.pop()
                continue
            folder, told = self._told(name, path, contents, len(open_folders))
            yield from told
            if folder is not None:
                open_folders.append(folder)

    def _told(
        self, name: tuple[_Place, _Name], above: bytes, contents: Contents, depth: int
    ) -> tuple[tuple[bytes, Iterator[tuple[_Place, _Name]]] | None, Iterable[Walked]]:
        """What there is to tell of a name, and what to look into next."""
        holder, (text, *key) = name
        path = above + b"/" + text
        if not can_be(text):
            return None, [self._problem(above, f"a name that cannot be: {text!r}")]
        if len(path) > MAX_PATH_BYTES:
            return None, [self._problem(above, "a path too long")]
        try:
            place = self._leads_to(holder, text, *key)
            record = self._record(place, path, contents)
        except _FAILURES as error:
            return None, [self._problem(path, words_of(error))]
        told = chain(
            [record], contents.wanted(record), contents.located(record, self._runs(place, record.kind))
        )
        if record.kind != "directory" or place.inode == _EMPTY:
            return None, told
        if (place.tree, place.inode) in self._seen or depth >= MAX_DEPTH:
            problem = self._problem(path, "a directory that leads back into itself, or too deep")
            return None, chain(told, [problem])
        return (path, self._names(place)), told

    def _names(self, place: _Place) -> Iterator[tuple[_Place, _Name]]:
        self._seen.add((place.tree, place.inode))
        asked = self._asked(place)
        for _, item in self._within(place, _LISTED):
            for name, key in _entries(item):
                if can_be(name) and asked.pop(name, None) != key:
                    raise OSError("it lists a name that leads elsewhere for who asks for it")
                yield place, (name, *key)
        if asked:
            raise OSError("it does not list all names that it has for who asks")

    def _asked(self, place: _Place) -> dict[bytes, Key]:
        """Names and what they lead to, as they are looked up. What a folder lists stands apart from it."""
        asked: dict[bytes, Key] = {}
        for (_, _, number), item in self._within(place, _ASKED):
            for name, key in _entries(item):
                if name in asked or name_hash(name) != number:
                    raise OSError("a name in it is not where it is looked for")
                asked[name] = key
        return asked

    def _within(self, place: _Place, kind: int) -> Iterator[tuple[Key, bytes]]:
        """What an inode has of a kind."""
        return self._trees.items(place.root, (place.inode, kind, 0), (place.inode, kind, LAST))

    def _leads_to(self, holder: _Place, name: bytes, number: int, kind: int, _: int) -> _Place:
        if kind == _INODE_ITEM:
            return _Place(holder.tree, holder.root, number)
        if kind != ROOT_ITEM:
            raise OSError("a name that leads to nothing that is known")
        if not self._belongs(holder, name, number):
            return _Place(holder.tree, holder.root, _EMPTY)
        root, folder = self._trees.tree(number)
        return _Place(number, root, folder)

    def _belongs(self, holder: _Place, name: bytes, number: int) -> bool:
        """Whether a subvolume lies here; a snapshot of the folder has the name of it only."""
        key = (holder.tree, _ROOT_REFERENCE, number)
        for _, item in self._trees.items(self._trees.about.roots, key, key):
            folder, _, length = _REFERENCE.unpack_from(item)
            return folder == holder.inode and item[_REFERENCE.size : _REFERENCE.size + length] == name
        return False

    def _facts(self, place: _Place) -> _Facts:
        if place.inode == _EMPTY:
            return _Facts(0, 1, 0, 0, stat.S_IFDIR | 0o755, 0, 0)
        key = (place.inode, _INODE_ITEM, 0)
        for _, item in self._trees.items(place.root, key, key):
            _, _, size, _, _, links, owner, group, mode, device, flags = _INODE.unpack_from(item)
            return _Facts(size, links, owner, group, mode, device, flags)
        raise OSError("a name that leads to nothing")

    def _record(self, place: _Place, path: bytes, contents: Contents) -> FileRecord:
        facts = self._facts(place)
        kind: Kind = _KINDS.get(stat.S_IFMT(facts.mode), "other")
        checked = not facts.flags & _WITHOUT_CHECKSUMS
        content = FileContent(self._trees, self._data, place.root, place.inode, checked=checked)
        digests: Digests = (None, None, None)
        problem = ""
        if kind == "file":
            digests, problem = contents.digested(
                _reading(content), facts.size, path, partial(_in_words, content.holes)
            )
        return FileRecord(
            volume=self._number,
            path=path,
            kind=kind,
            mode=stat.S_IMODE(facts.mode),
            owner=facts.owner,
            group=facts.group,
            size=facts.size if kind in {"file", "symlink"} else 0,
            links=facts.links,
            target=content.read(0, min(facts.size, MAX_PATH_BYTES)) if kind == "symlink" else b"",
            device=_device(facts.device) if kind.endswith("-device") else None,
            xattrs=dict(self._attributes(place)) if contents.digests else None,
            blake3=digests[0],
            md5=digests[1],
            sha256=digests[2],
            problem=problem,
        )

    def _runs(self, place: _Place, kind: Kind) -> Iterator[Run]:
        """Of files alone: names and what is short lie in trees."""
        if kind != "file":
            return
        try:
            yield from FileContent(self._trees, self._data, place.root, place.inode, checked=False).runs()
        except _FAILURES as error:
            raise OSError(words_of(error)) from error

    def _attributes(self, place: _Place) -> Iterator[tuple[str, str]]:
        """Those whose names have the same hash stand in one item."""
        for _, item in self._within(place, _ATTRIBUTE) if place.inode != _EMPTY else ():
            at = 0
            while at < len(item):
                *_, value, name, _ = _ENTRY.unpack_from(item, at)
                at += _ENTRY.size
                if at + name + value > len(item):
                    raise OSError("an extended attribute breaks off")
                digest = hashlib.sha256(item[at + name : at + name + value]).hexdigest()
                yield item[at : at + name].decode("utf-8", "backslashreplace"), digest
                at += name + value

    def _problem(self, path: bytes, words: str) -> Problem:
        return Problem(
            f"volume {self._number}: {path.decode('utf-8', 'backslashreplace')[:2000] or '/'}", words
        )


def _entries(item: bytes) -> Iterator[tuple[bytes, Key]]:
    """Names whose hashes are the same stand in one item."""
    at = 0
    while at < len(item):
        number, kind, offset, _, data, length, _ = _ENTRY.unpack_from(item, at)
        at += _ENTRY.size
        if at + length + data > len(item):
            raise OSError("a name in it breaks off")
        yield item[at : at + length], (number, kind, offset)
        at += length + data


def _device(number: int) -> tuple[int, int]:
    """As Linux has it in its memory, which is not how mknod(2) is told."""
    return number >> _MINOR_BITS, number & ((1 << _MINOR_BITS) - 1)


def _in_words(holes: Holes) -> Iterator[Run]:
    """What goes wrong is an OSError."""
    try:
        yield from holes()
    except _FAILURES as error:
        raise OSError(words_of(error)) from error


def _reading(content: FileContent) -> Read:
    """What goes wrong is an OSError."""

    def read(offset: int, length: int) -> bytes:
        try:
            return content.read(offset, length)
        except _FAILURES as error:
            raise OSError(words_of(error)) from error

    return read
