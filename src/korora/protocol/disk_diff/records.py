"""All records of a diff, one after another, up to the trailer that closes them.

    trailer: "E" ‖ how many records, 8 bytes ‖ H("Korora 2026 disk diff: records", all of them)

H is BLAKE3 in its derive-key mode. Promise: chunks ascend, none is named twice, none lies behind the end, and
whatever the base's size leaves open is named; a record costs at most 2 MiB. What is yielded is what was
signed only if `read` comes to its end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from blake3 import blake3

from korora.model.identity import Digest
from korora.protocol.content_tree import chunks_of
from korora.protocol.disk_diff.chunks import (
    DATA_BYTES,
    MAX_FRAME_BYTES,
    ZEROS_BYTES,
    Data,
    Record,
    Zeros,
    blocks_of,
    first_unlike,
    length_of,
)
from korora.protocol.disk_diff.statement import DiskDiff, bad

TRAILER_BYTES: Final = 41
_DOMAIN: Final = "Korora 2026 disk diff: records"
Read = Callable[[int], bytes]
"""So many bytes; fewer only at the end."""


class Writing:
    """Counts and digests what is written behind the head."""

    def __init__(self) -> None:
        self.records = 0
        self.length = 0
        self._state = blake3(derive_key_context=_DOMAIN)

    @property
    def digest(self) -> Digest:
        return Digest("blake3:" + self._state.hexdigest())

    def add(self, record: Record) -> bytes:
        written = record.encoded()
        self._state.update(written)
        self.records += 1
        self.length += len(written)
        return written

    def end(self) -> bytes:
        """The trailer; `length` is then that of all."""
        self.length += TRAILER_BYTES
        return b"E" + self.records.to_bytes(8, "big") + self._state.digest()


def read(more: Read, said: DiskDiff) -> Iterator[Record]:
    """Each record, in order. IntegrityError(kind="bad-diff") where they are not those of the statement."""
    state = blake3(derive_key_context=_DOMAIN)
    order = _Order(said)
    count, left = 0, said.length
    while True:
        kind = _exactly(more, 1, left)
        if kind == b"E":
            break
        written = kind + _fixed(kind, more, left - 1)
        if kind == b"Z":
            record: Record = Zeros(_number(written, 1), _number(written, 9))
        else:
            length = int.from_bytes(written[-4:], "big")
            if not 0 < length <= MAX_FRAME_BYTES:
                raise bad(f"a record claims {length} bytes")
            frame = _exactly(more, length, left - len(written))
            record = Data(_number(written, 1), written[9:41], int.from_bytes(written[41:73], "big"), frame)
            written += frame
        state.update(written)
        left -= len(written)
        count += 1
        if count > said.records:
            raise bad(f"it has more than the {said.records} records that were signed")
        order.check(record)
        yield record
    trailer = b"E" + _exactly(more, TRAILER_BYTES - 1, left - 1)
    order.check_end()
    if trailer[1:9] != said.records.to_bytes(8, "big") or count != said.records or left != TRAILER_BYTES:
        raise bad(f"it has {count} records, and {said.records} were signed")
    if trailer[9:] != state.digest() or said.digest != "blake3:" + state.hexdigest():
        raise bad("its records are not those that were signed")
    if more(1):
        raise bad("something follows its end")


class _Order:
    """What a record may say after those before it."""

    def __init__(self, said: DiskDiff) -> None:
        self._base, self._result = said.base.size, said.result.size
        self._chunks = chunks_of(self._result)
        self._unlike = first_unlike(self._base, self._result)
        self._next = 0

    def check(self, record: Record) -> None:
        if record.first < self._next or record.end <= record.first or record.end > self._chunks:
            raise bad(f"chunk {record.first} is out of order, or behind the end of the disk")
        if record.first > max(self._next, self._unlike):
            raise bad(f"it does not say what is in chunk {max(self._next, self._unlike)}")
        self._next = record.end
        if isinstance(record, Data):
            self._check_blocks(record)

    def check_end(self) -> None:
        if self._unlike < self._chunks and self._next < self._chunks:
            raise bad(f"it does not say what is in chunk {max(self._next, self._unlike)}")

    def _check_blocks(self, record: Data) -> None:
        length = length_of(record.first, self._result)
        if not record.blocks or record.blocks & ~blocks_of(length):
            raise bad(f"chunk {record.first} has blocks that are none")
        if not record.is_whole(length) and length_of(record.first, self._base) != length:
            raise bad(f"it does not have all of chunk {record.first}, and nor has the base")


def _fixed(kind: bytes, more: Read, left: int) -> bytes:
    """The rest of a record's part of fixed length."""
    match kind:
        case b"Z":
            return _exactly(more, ZEROS_BYTES - 1, left)
        case b"D":
            return _exactly(more, DATA_BYTES - 1, left)
        case _:
            raise bad(f"a record is of the kind {kind!r}, which is not known here")


def _exactly(more: Read, count: int, left: int) -> bytes:
    """Asks for no more than the signed length leaves."""
    if count > left:
        raise bad("it is longer than what was signed")
    found = more(count)
    if len(found) != count:
        raise bad("it is cut short")
    return found


def _number(written: bytes, at: int) -> int:
    return int.from_bytes(written[at : at + 8], "big")
