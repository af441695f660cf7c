"""The records of a diff: chunks that became zeros, and chunks of which some blocks of 4 KiB are new.

    zeros:  "Z" ‖ first chunk, 8 bytes ‖ how many, 8 bytes
    data:   "D" ‖ chunk, 8 bytes ‖ its leaf in the result, 32 bytes ‖ which blocks, 32 bytes
                ‖ length of what follows, 4 bytes ‖ these blocks, one after another, in one Zstandard frame

Numbers are big-endian; the first block of a chunk is the highest bit of the first byte. Promise: what comes
out of a record is as long as it must be, whatever its frame claims, and has the leaf that it names.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from korora.errors import IntegrityError
from korora.protocol.content_tree import CHUNK_BYTES, chunks_of, leaf
from korora.protocol.disk_diff.statement import bad

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

BLOCK_BYTES: Final = 4096
BLOCKS: Final = CHUNK_BYTES // BLOCK_BYTES
MAX_FRAME_BYTES: Final = CHUNK_BYTES + 8192
"""What no longer fits: Zstandard makes at most CHUNK_BYTES / 256 bytes more of what it cannot compress."""
LEVEL: Final = 3
_WINDOW_LOG: Final = 20
_ALL: Final = (1 << BLOCKS) - 1
ZEROS_BYTES: Final = 17
DATA_BYTES: Final = 77


@dataclass(frozen=True, slots=True)
class Zeros:
    """`count` chunks from `first` on are zeros."""

    first: int
    count: int

    @property
    def end(self) -> int:
        return self.first + self.count

    def encoded(self) -> bytes:
        return b"Z" + self.first.to_bytes(8, "big") + self.count.to_bytes(8, "big")


@dataclass(frozen=True, slots=True)
class Data:
    """Chunk `first` has `leaf`, once its `blocks` (bits) are those in `frame`."""

    first: int
    leaf: bytes
    blocks: int
    frame: bytes

    @property
    def end(self) -> int:
        return self.first + 1

    def encoded(self) -> bytes:
        parts = (self.first.to_bytes(8, "big"), self.leaf, self.blocks.to_bytes(BLOCKS // 8, "big"))
        return b"".join((b"D", *parts, len(self.frame).to_bytes(4, "big"), self.frame))

    def is_whole(self, length: int) -> bool:
        """Whether it has every block of a chunk of so many bytes."""
        return self.blocks == blocks_of(length)

    def pieces(self, length: int) -> Iterator[tuple[int, bytes]]:
        """(offset in the chunk, bytes): neighbouring blocks as one. IntegrityError when the frame is bad."""
        content, at = self._unpacked(length), 0
        for begin, end in runs(self.blocks, length):
            yield begin, content[at : at + end - begin]
            at += end - begin

    def patched(self, old: bytes | bytearray | memoryview, length: int) -> bytes:
        """The chunk in the result, of `old`, which a whole record does not look at.

        IntegrityError(kind="bad-diff") when a whole record does not have its leaf; "wrong-base" when it does
        not together with `old`.
        """
        whole = self.is_whole(length)
        new = bytearray(length if whole else old)
        for begin, piece in self.pieces(length):
            new[begin : begin + len(piece)] = piece
        if len(new) == length and leaf(new) == self.leaf:
            return bytes(new)
        if whole:
            raise bad(f"chunk {self.first} is damaged")
        raise wrong_base(f"chunk {self.first} is another one")

    def _unpacked(self, length: int) -> bytes:
        wanted = sum(end - begin for begin, end in runs(self.blocks, length))
        try:
            info = zstd.get_frame_info(self.frame)
            if info.decompressed_size != wanted or info.dictionary_id:
                raise ValueError(f"it is to give {wanted} bytes")
            unpacker = zstd.ZstdDecompressor(
                options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG}
            )
            content = unpacker.decompress(self.frame, wanted)
            if not unpacker.eof or unpacker.unused_data or len(content) != wanted:
                raise ValueError("it ends too early or too late")
        except (zstd.ZstdError, ValueError, EOFError) as error:
            raise bad(f"chunk {self.first} cannot be unpacked: {error}") from error
        return content


Record: TypeAlias = Zeros | Data


def blocks_of(length: int) -> int:
    """The bits of all blocks of a chunk of so many bytes."""
    return _ALL ^ (_ALL >> -(-length // BLOCK_BYTES))


def data(chunk: int, leaf: bytes, blocks: int, new: bytes | memoryview) -> Data:
    """The record of a chunk whose content is `new`, with these blocks of it."""
    return Data(chunk, leaf, blocks, packed(new, blocks, len(new)))


def packed(new: bytes | memoryview, blocks: int, length: int) -> bytes:
    """The frame with these blocks of a chunk."""
    picked = [new[begin:end] for begin, end in runs(blocks, length)]
    return zstd.compress(picked[0] if len(picked) == 1 else b"".join(picked), LEVEL)


def runs(blocks: int, length: int) -> Iterator[tuple[int, int]]:
    """(begin, end) in bytes of neighbouring blocks, in a chunk of so many bytes."""
    at = 0
    while blocks:
        # Blocks from `at` on that are not there, then those that are.
        absent = BLOCKS - blocks.bit_length() - at
        at += absent
        inverted = ~(blocks << at) & _ALL
        present = BLOCKS - inverted.bit_length()
        yield at * BLOCK_BYTES, min((at + present) * BLOCK_BYTES, length)
        at += present
        blocks &= _ALL >> at


def length_of(chunk: int, size: int) -> int:
    """Of that chunk, in bytes, of a disk of `size`; 0 if it has no such chunk."""
    return max(0, min(CHUNK_BYTES, size - chunk * CHUNK_BYTES))


def first_unlike(base: int, result: int) -> int:
    """From this chunk on the sizes differ, so that a diff must name every chunk of the result."""
    if base == result:
        return chunks_of(result)
    return (
        min(base, result) // CHUNK_BYTES if min(base, result) % CHUNK_BYTES else chunks_of(min(base, result))
    )


def wrong_base(problem: str) -> IntegrityError:
    return IntegrityError(
        f"the diff was made for another base: {problem}",
        kind="wrong-base",
        remedy="find the disk whose root `korora disk diff verify` names, or have a diff made for this one",
    )
