"""A disk in memory, and the means to damage a btrfs on it as an attacker would: with a right checksum."""

from __future__ import annotations

import google_crc32c

from korora.adapters.filesystem.btrfs.trees import Trees
from korora.adapters.filesystem.btrfs.volume import BtrfsVolume
from korora.adapters.filesystem.contents import Contents, Read, Walked
from korora.adapters.filesystem.hashing import Digests
from korora.adapters.filesystem.holes import Holes, no_holes
from korora.model.files import Problem

SUPERBLOCK, SUPERBLOCK_BYTES = 0x10000, 4096
MAX_BYTES = 64 << 20


class HeldDisk:
    def __init__(self, content: bytes | bytearray) -> None:
        self.content = bytearray(content)

    @property
    def size(self) -> int:
        return len(self.content)

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self.content[offset : offset + max(0, length)])

    def seal(self, at: int, length: int) -> None:
        """Make the checksum of a block right."""
        sum_of = google_crc32c.value(bytes(self.content[at + 32 : at + length]))
        self.content[at : at + 4] = sum_of.to_bytes(4, "little")


class Bounded(Contents):
    """A file that says it is huge is not read to its end here."""

    def digested(self, read: Read, size: int, path: bytes, holes: Holes = no_holes) -> tuple[Digests, str]:
        if size > MAX_BYTES:
            return (None, None, None), "huge"
        return super().digested(read, size, path, holes)


def told_of(disk: HeldDisk) -> list[Walked]:
    """What a reader tells of a btrfs; one problem where it cannot be opened."""
    try:
        return list(BtrfsVolume(1, disk).walk(Bounded(())))
    except OSError as error:
        return [Problem("volume", str(error))]


def blocks_of(disk: HeldDisk, tree: int | None = None) -> list[int]:
    """Where on the disk the tree blocks lie that a reader needs, each once; of one tree, or of all."""
    needed: list[int] = []

    class Watched(HeldDisk):
        def read(self, offset: int, length: int) -> bytes:
            if length == trees.about.node and offset not in needed:
                needed.append(offset)
            return super().read(offset, length)

    trees = Trees(disk)
    watched = Watched(disk.content)
    if tree is None:
        told_of(watched)
    else:
        root = trees.tree(tree)[0]
        fresh = Trees(watched)
        needed.clear()
        list(fresh.items(root, (0, 0, 0), (1 << 64, 0, 0)))
    return needed
