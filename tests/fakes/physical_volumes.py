"""Physical volumes of LVM with whatever description a test wants, written byte by byte."""

from __future__ import annotations

import struct

EXTENT = 64 << 10
FIRST = 1 << 20
"""Where the first extent begins."""


def crc(data: bytes) -> int:
    """LVM's checksum, bit by bit."""
    value = 0xF597A6CF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0xEDB88320 if value & 1 else 0)
    return value


def physical(text: bytes, identity: bytes, extents: bytes, *, wraps: bool = False) -> bytes:
    """With its extents' content. `wraps`: the text begins near the end of its area, and goes on in front."""
    start, length = 4096, FIRST - 4096
    offset = length - 100 if wraps else 512
    place = struct.pack("<QQII", offset, len(text), crc(text), 0)
    rest = struct.pack("<16sIQQ", b" LVM2 x[5A%r0N*>", 1, start, length) + place
    rest = rest.ljust(508, b"\0")
    area = bytearray(length)
    area[:512] = struct.pack("<I", crc(rest)) + rest
    first = text[: length - offset]
    area[offset : offset + len(first)] = first
    area[512 : 512 + len(text) - len(first)] = text[len(first) :]
    after = identity.ljust(32, b"-")[:32] + struct.pack("<Q", FIRST + len(extents))
    after += struct.pack("<QQ", FIRST, 0) + bytes(16) + struct.pack("<QQ", start, length) + bytes(16)
    summed = (struct.pack("<I8s", 32, b"LVM2 001") + after).ljust(512 - 20, b"\0")
    label = struct.pack("<8sQI", b"LABELONE", 1, crc(summed)) + summed
    return b"".join([bytes(512), label, bytes(4096 - 1024), bytes(area), extents])


def described(logical: str, *identities: str, extents: int = 64, number: int = 1) -> bytes:
    """A group `vg` of such physical volumes, pv0 and so on, with this description of logical ones."""
    members = "".join(
        f'pv{at} {{ id = "{one}" flags = [] pe_start = {FIRST >> 9} pe_count = {extents} }}\n'
        for at, one in enumerate(identities)
    )
    return (
        f'vg {{ id = "the-group" seqno = {number} # one\n extent_size = {EXTENT >> 9}\n'
        f"physical_volumes {{ {members} }} logical_volumes {{ {logical} }} }}\n"
        'contents = "Text Format Volume Group"\nversion = 1\0'
    ).encode()


def volume(name: str, *segments: str, status: str = '"READ", "WRITE", "VISIBLE"') -> str:
    inside = " ".join(f"segment{at} {{ {one} }}" for at, one in enumerate(segments, 1))
    return f"{name} {{ status = [{status}] segment_count = {len(segments)} {inside} }}"


def striped(start: int, extents: int, *areas: tuple[str, int], stripe: int = 0, kind: str = "striped") -> str:
    """`stripe`: in bytes."""
    lists = ", ".join(f'"{name}", {extent}' for name, extent in areas)
    return (
        f'start_extent = {start} extent_count = {extents} type = "{kind}" stripe_count = {len(areas)} '
        f"stripe_size = {stripe >> 9} stripes = [ {lists} ]"
    )
