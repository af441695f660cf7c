"""Files in one tar (POSIX.1-1988 ustar), in one spelling: what is in it says every byte of it.

    for each file: a header (name, size, mode 0600; everything else zero), its bytes, zeros up to 512
    two blocks of zeros, then zeros up to 10,240

Promise: what is read back is what `packed` writes, byte by byte, or it is refused: no links, no folders, no
sparse files, no long names, nothing twice, nothing behind the end. Memory and time grow with the bytes.
Any tar reads it. Why not `tarfile`: it takes more than one spelling, and a chain of long names exhausts its
stack.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from korora.errors import IntegrityError

BLOCK_BYTES: Final = 512
RECORD_BYTES: Final = 20 * BLOCK_BYTES
NAME_MAX_BYTES: Final = 99
SIZE_MAX: Final = 8**11 - 1


def packed(files: Mapping[str, bytes]) -> bytes:
    """In the order of the mapping. ValueError for a name or a size that the format does not have."""
    parts = []
    for name, data in files.items():
        parts += [header(name, len(data)), data, bytes(-len(data) % BLOCK_BYTES)]
    parts.append(ending(sum(map(len, parts))))
    return b"".join(parts)


def header(name: str, size: int) -> bytes:
    """The block before a file of so many bytes."""
    called = name.encode("ascii")
    if not 0 < len(called) <= NAME_MAX_BYTES or b"\0" in called or not 0 <= size <= SIZE_MAX:
        raise ValueError(f"a tar cannot hold {name[:100]!r} with {size} bytes")
    head = (called.ljust(100, b"\0"), b"0000600\0", b"0000000\0" * 2, b"%011o\0" % size, b"0" * 11 + b"\0")
    tail = (b"0", bytes(100), b"ustar\0" + b"00", bytes(64 + 16 + 155 + 12))
    # The sum is over the block with eight spaces in the sum's own place.
    summed = sum(map(sum, (*head, b" " * 8, *tail)))
    return b"".join((*head, b"%06o\0 " % summed, *tail))


def ending(so_far: int) -> bytes:
    """What closes a tar of so many bytes."""
    return bytes(2 * BLOCK_BYTES + -(so_far + 2 * BLOCK_BYTES) % RECORD_BYTES)


def unpacked(data: bytes) -> dict[str, bytes]:
    """The files by name, in their order. IntegrityError(kind="bad-tar") unless `packed` writes just this."""
    found: dict[str, bytes] = {}
    at = 0
    while (block := data[at : at + BLOCK_BYTES]).strip(b"\0"):
        name, size = _read(block)
        begin, end = at + BLOCK_BYTES, at + BLOCK_BYTES + size
        at = end + -size % BLOCK_BYTES
        if name in found:
            raise _bad(f"{name[:100]!r} is in it twice")
        if data[end:at].strip(b"\0"):
            raise _bad(f"{name[:100]!r} is followed by something else")
        found[name] = data[begin:end]
    if data[at:] != ending(at):
        raise _bad("it is cut short, or does not end as it must")
    return found


def _read(block: bytes) -> tuple[str, int]:
    try:
        name, size = block[:100].split(b"\0", 1)[0].decode("ascii"), int(block[124:135], 8)
        if header(name, size) != block:
            raise ValueError("a header has more in it than name and size")
    except ValueError as problem:
        raise _bad(f"byte for byte it is none: {problem}"[:200]) from problem
    return name, size


def _bad(problem: str) -> IntegrityError:
    return IntegrityError(
        f"this is no tar that was packed here: {problem}",
        kind="bad-tar",
        remedy="keep it, and find out what changed it",
    )
