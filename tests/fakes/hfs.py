"""A small HFS+ without files, as TN1150 has it: no tool for it is on this machine."""

from __future__ import annotations

import struct

BLOCK = 4096
BLOCKS = 64
INFO_BLOCK, JOURNAL_BLOCK, JOURNAL_BLOCKS = 10, 20, 4
HAS_JOURNAL, UNMOUNTED = 1 << 13, 1 << 8
IN_ITSELF, ELSEWHERE, NOT_BEGUN = 1, 2, 4
EXTENTS_BLOCK, ALLOCATION_BLOCK, CATALOG_BLOCK = 2, 1, 4


def volume(attributes: int = UNMOUNTED, info: bytes = b"", journal: bytes = b"") -> bytes:
    head = struct.pack(">2sHI4sI", b"H+", 4, attributes, b"10.0", INFO_BLOCK)
    head += bytes(24) + struct.pack(">III", BLOCK, BLOCKS, 32)
    head += struct.pack(">IIIIIQ", 0, BLOCK, BLOCK, 16, 0, 1) + bytes(32)
    head += _fork(ALLOCATION_BLOCK, 1) + _fork(EXTENTS_BLOCK, 1) + _fork(CATALOG_BLOCK, 2) + bytes(160)
    content = bytearray(BLOCKS * BLOCK)
    for place, data in (
        (1024, head),
        (len(content) - 1024, head),
        (EXTENTS_BLOCK * BLOCK, _tree(0)),
        (CATALOG_BLOCK * BLOCK, _tree(1) + _catalog()),
        (INFO_BLOCK * BLOCK, info),
        (JOURNAL_BLOCK * BLOCK, journal),
    ):
        content[place : place + len(data)] = data
    return bytes(content)


def info(flags: int = IN_ITSELF) -> bytes:
    return struct.pack(">I32xQQ", flags, JOURNAL_BLOCK * BLOCK, JOURNAL_BLOCKS * BLOCK)


def journal(start: int, end: int, order: str = "<") -> bytes:
    size = JOURNAL_BLOCKS * BLOCK
    return struct.pack(f"{order}IIQQQIII", 0x4A4E4C78, 0x12345678, start, end, size, BLOCK, 0, 512)


def _fork(block: int, blocks: int) -> bytes:
    return struct.pack(">QIIII56x", blocks * BLOCK, 0, blocks, block, blocks)


def _tree(root: int) -> bytes:
    """The header of a B-tree, whose root is the node with that number, if it has one."""
    node = struct.pack(">IIbBHH", 0, 0, 1, 0, 3, 0)
    node += struct.pack(">HIIIIHHII", root, root, 2 * root, root, root, BLOCK, 516, 2, 0)
    node += struct.pack(">HIBBI", 0, 0, 0, 0xCF, 6)
    return node.ljust(BLOCK - 8, b"\0") + struct.pack(">HHHH", BLOCK - 8, 248, 120, 14)


def _catalog() -> bytes:
    """The root folder and its thread: the folder above it has the number 1."""
    folder = struct.pack(">HHIIIIIII", 1, 0, 0, 2, 0, 0, 0, 0, 0)
    folder += struct.pack(">IIBBHI", 0, 0, 0, 0, 0o40755, 1) + bytes(40)
    records = [_key(1, "v") + folder, _key(2, "") + struct.pack(">hHIH2s", 3, 0, 1, 1, b"\0v")]
    node, places = struct.pack(">IIbBHH", 0, 0, -1, 1, len(records), 0), []
    for record in records:
        places.append(len(node))
        node += record
    ends = b"".join(struct.pack(">H", place) for place in reversed([*places, len(node)]))
    return node.ljust(BLOCK - len(ends), b"\0") + ends


def _key(parent: int, name: str) -> bytes:
    key = struct.pack(">IH", parent, len(name)) + name.encode("utf-16-be")
    return struct.pack(">H", len(key)) + key
