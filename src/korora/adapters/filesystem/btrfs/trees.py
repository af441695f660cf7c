"""The trees of a btrfs.

Promise: a block is used only if its checksum, address, level, generation and the order of its keys are right,
from whichever copy of it has them so; so no damage goes unseen, and no tree leads back into itself.

Source: the btrfs on-disk format, btrfs.readthedocs.io, "On-disk Format", "Btrees".
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from korora.adapters.filesystem.btrfs.superblock import (
    CHUNK_ITEM,
    Addresses,
    Root,
    Superblock,
    superblock_of,
)
from korora.adapters.filesystem.disk import Bytes

Key = tuple[int, int, int]
LAST: Final = (1 << 64) - 1
ROOT_ITEM: Final = 132
_BEYOND: Final = (1 << 64, 0, 0)
_FIRST_CHUNK: Final = 256
_LEVELS: Final = 8
_KEPT: Final = 256
_HEADER: Final = struct.Struct("<32s16sQQ16sQQIB")
_ITEM: Final = struct.Struct("<QBQII")
_POINTER: Final = struct.Struct("<QBQQQ")
_ROOT: Final = struct.Struct("<QQQ")  # generation, root directory, address
_ROOT_AT, _ROOT_LEVEL_AT = 160, 238


@dataclass(frozen=True, slots=True)
class _Node:
    """`at`: of a leaf, each item's offset and length; of another, each child's address and generation."""

    raw: bytes
    level: int
    generation: int
    keys: list[Key]
    at: list[tuple[int, int]]


class Trees:
    """OSError when it is no btrfs that can be read, or not here."""

    def __init__(self, part: Bytes) -> None:
        self._part = part
        self.about = superblock_of(part)
        self.addresses = Addresses(self.about.device)
        self._kept: OrderedDict[Root, _Node] = OrderedDict()
        self.addresses.add_system(self.about.system_chunks)
        first, last = (_FIRST_CHUNK, CHUNK_ITEM, 0), (_FIRST_CHUNK, CHUNK_ITEM, LAST)
        for key, item in self.items(self.about.chunks, first, last):
            self.addresses.add(key[2], item)

    def items(self, root: Root, first: Key, last: Key) -> Iterator[tuple[Key, bytes]]:
        """In order, both ends included. OSError where a block of the tree cannot be used."""
        yield from self._within(self._node(root), first, last, _BEYOND)

    def tree(self, number: int) -> tuple[Root, int]:
        """A tree, and its root directory. OSError where there is none."""
        found = list(self.items(self.about.roots, (number, ROOT_ITEM, 0), (number, ROOT_ITEM, LAST)))
        if not found or len(found[-1][1]) <= _ROOT_LEVEL_AT:
            raise OSError(f"there is no tree {number}")
        item = found[-1][1]
        generation, folder, address = _ROOT.unpack_from(item, _ROOT_AT)
        return Root(address, item[_ROOT_LEVEL_AT], generation), folder

    def _within(self, node: _Node, first: Key, last: Key, bound: Key) -> Iterator[tuple[Key, bytes]]:
        """`bound`: what all keys are below, so that no block is reached by two ways."""
        if node.level == 0:
            for number in range(bisect_left(node.keys, first), len(node.keys)):
                if node.keys[number] > last:
                    return
                offset, size = node.at[number]
                yield node.keys[number], node.raw[offset : offset + size]
            return
        for number in range(max(0, bisect_right(node.keys, first) - 1), len(node.keys)):
            if node.keys[number] > last:
                return
            address, generation = node.at[number]
            child = self._node(Root(address, node.level - 1, generation))
            end = node.keys[number + 1] if number + 1 < len(node.keys) else bound
            if not child.keys or child.keys[0] != node.keys[number] or child.keys[-1] >= end:
                raise OSError(f"the tree block at {address:#x} is not the one that belongs there")
            yield from self._within(child, first, last, end)

    def _node(self, root: Root) -> _Node:
        if (kept := self._kept.get(root)) is not None:
            self._kept.move_to_end(root)
            return kept
        why = OSError(f"the tree block at {root.address:#x} has no place")
        for place in self.addresses.places(root.address, self.about.node):
            try:
                node = _parsed(self._part.read(place, self.about.node), root, self.about)
            except OSError as error:
                why = error
                continue
            self._kept[root] = node
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
            return node
        raise why


def _parsed(raw: bytes, root: Root, about: Superblock) -> _Node:
    where = f"the tree block at {root.address:#x}"
    if len(raw) != about.node:
        raise OSError(f"{where} cannot be read")
    stated, uuid, address, _, _, generation, _, count, level = _HEADER.unpack_from(raw)
    if stated[: about.checksum.size] != about.checksum.of(raw[32:]):
        raise OSError(f"the checksum of {where} is wrong")
    if (uuid, address, level, generation) != (about.uuid, root.address, root.level, root.generation):
        raise OSError(f"{where} is not the one that belongs there")
    shape = _POINTER if level else _ITEM
    if level >= _LEVELS or count * shape.size > len(raw) - _HEADER.size:
        raise OSError(f"{where} has impossible sizes")
    entries = list(shape.iter_unpack(raw[_HEADER.size : _HEADER.size + count * shape.size]))
    keys = [entry[:3] for entry in entries]
    if any(one >= other for one, other in pairwise(keys)):
        raise OSError(f"the keys of {where} are out of order")
    if level:
        return _Node(raw, level, generation, keys, [entry[3:] for entry in entries])
    end = _HEADER.size + count * shape.size
    at = [(_HEADER.size + offset, size) for *_, offset, size in entries]
    if any(offset < end or offset + size > len(raw) for offset, size in at):
        raise OSError(f"an item of {where} lies outside of it")
    return _Node(raw, level, generation, keys, at)
