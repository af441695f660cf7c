"""A diff applied: to a base that is read, into a new image; or to the image itself.

Promise: a chunk is written only if it has the leaf that the diff names. A new image is well only if `walked`
comes to its end: only there it is known that all of the base had the root that the diff is for.
Limit: that the result can be read again as it was written is the caller's to see.
Memory does not grow with the disk: some 100 MiB at most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final

from korora.agents.integrity.disks.content import Progress, Run, Told, runs
from korora.model.identity import Digest
from korora.ports.image import OpenImage
from korora.ports.image_writer import WritableImage
from korora.protocol.content_tree import CHUNK_BYTES, ContentTree, leaf
from korora.protocol.disk_diff.chunks import Data, Record, Zeros, length_of, wrong_base
from korora.protocol.disk_diff.chunks import runs as runs_of_blocks
from korora.protocol.disk_diff.statement import DiskDiff, bad

Put = Callable[[int, bytes], None]
_RUNS_AT_ONCE: Final = 4096
_PIECE_BYTES: Final = 64 << 10
"""Zeros of this size, and aligned to it, are not written."""
_NOTHING: Final = bytes(_PIECE_BYTES)


def walked(said: DiskDiff, records: Iterator[Record], base: OpenImage, put: Put, told: Told) -> None:
    """Hands each piece of the result that is not zeros to `put`, in order.

    IntegrityError(kind="wrong-base") or "bad-diff" when the two do not make what was signed.
    """
    check_size(said, base)
    before, after = ContentTree(), _Result(said, put)
    pending = next(records, None)
    for run, found, content in _chunks(base):
        if run.zero:
            before.add_zeros(run.count)
        else:
            before.add(found)
        at, end = run.first, min(run.first + run.count, after.chunks)
        while at < end:
            if pending is None or pending.first > at:
                stop = end if pending is None else min(end, pending.first)
                after.keep(at, stop, found, content, zero=run.zero)
                at = stop
                continue
            stop = min(end, pending.end)
            after.change(pending, at, stop, content)
            at = stop
            if stop == pending.end:
                pending = next(records, None)
        told(Progress(min(before.count * CHUNK_BYTES, base.size), base.size, before.count, ()))
    while pending is not None:  # behind the base's end every chunk is named
        after.change(pending, max(pending.first, after.tree.count), pending.end, None)
        pending = next(records, None)
    check_root(said, before.root(base.size))
    if after.tree.root(said.result.size) != said.result.root:
        raise bad("what it makes has another root than the one that was signed")


def check_size(said: DiskDiff, base: OpenImage) -> None:
    if base.size != said.base.size:
        raise wrong_base(f"it has {base.size} bytes, the other one {said.base.size}")


def check_root(said: DiskDiff, root: Digest) -> None:
    if root != said.base.root:
        raise wrong_base(f"its root is {root}, the other one's {said.base.root}")


class _Result:
    """The result's tree, and what is not zeros in it, given on."""

    def __init__(self, said: DiskDiff, put: Put) -> None:
        self.tree = ContentTree()
        self._size = said.result.size
        self._put = put
        self.chunks = -(-self._size // CHUNK_BYTES)

    def keep(self, first: int, end: int, found: bytes, content: bytes | None, *, zero: bool) -> None:
        """As in the base."""
        if zero:
            self.tree.add_zeros(end - first)
            return
        self.tree.add(found)
        self._write(first, content)

    def change(self, record: Record, first: int, end: int, old: bytes | None) -> None:
        """As the record has it; `old` is None where the base has zeros, or nothing."""
        if isinstance(record, Data):
            length = length_of(record.first, self._size)
            content = record.patched(bytes(length) if old is None else old, length)
            self.tree.add(record.leaf)
            self._write(record.first, content)
            return
        short = end == self.chunks and self._size % CHUNK_BYTES
        self.tree.add_zeros(end - first - (1 if short else 0))
        if short:
            self.tree.add(leaf(bytes(self._size % CHUNK_BYTES)))

    def _write(self, chunk: int, content: bytes | None) -> None:
        if content is None:
            return
        begin = chunk * CHUNK_BYTES
        for at, end, is_zero in _pieces(content, 0, len(content)):
            if not is_zero:
                self._put(begin + at, content[at:end])


def _chunks(base: OpenImage) -> Iterator[tuple[Run, bytes, bytes | None]]:
    """Each run with its leaf, and its bytes if they are not zeros."""
    plan = runs(base.extents(), base.size)
    while some := list(islice(plan, _RUNS_AT_ONCE)):
        ranges = [(run.first * CHUNK_BYTES, length_of(run.first, base.size)) for run in some if not run.zero]
        read = base.each(ranges, _read)
        for run in some:
            if run.zero:
                yield run, b"", None
            else:
                yield run, *next(read)


def _read(content: memoryview) -> tuple[bytes, bytes | None]:
    pieces = _pieces(content, 0, len(content))
    is_zero = all(zero for _, _, zero in pieces)
    return leaf(content), None if is_zero else bytes(content)


def _pieces(content: bytes | memoryview, begin: int, end: int) -> Iterator[tuple[int, int, bool]]:
    """(begin, end, whether they are zeros): neighbours of one kind as one."""
    at, held = begin, begin
    kind: bool | None = None
    while at < end:
        stop = min(end, (at // _PIECE_BYTES + 1) * _PIECE_BYTES)
        is_zero = content[at:stop] == _NOTHING[: stop - at]
        if kind is not None and kind is not is_zero:
            yield held, at, kind
            held = at
        kind, at = is_zero, stop
    if kind is not None:
        yield held, end, kind


# -- in place ----------------------------------------------------------------------------------------------


def applied_in_place(said: DiskDiff, records: Iterator[Record], image: WritableImage, told: Told) -> None:
    """Writes what changed. The image has the base's content, or that in which some of this same diff was
    written before: it may be done over as often as it is broken off. IntegrityError(kind="wrong-base") at the
    first chunk of which that is not true.
    """
    check_size(said, image)
    for record in records:
        if isinstance(record, Zeros):
            begin, end = record.first * CHUNK_BYTES, min(record.end * CHUNK_BYTES, said.result.size)
            image.zero(begin, end - begin)
        else:
            _write_blocks(record, image)
        done = min(record.end * CHUNK_BYTES, image.size)
        told(Progress(done, image.size, record.end, ()))
    image.flush()


def _write_blocks(record: Data, image: WritableImage) -> None:
    begin, length = record.first * CHUNK_BYTES, length_of(record.first, image.size)
    whole = record.is_whole(length)
    old = b"" if whole else next(iter(image.each([(begin, length)], bytes)))
    new = record.patched(old, length)
    for first, last in runs_of_blocks(record.blocks, length):
        for at, end, is_zero in _pieces(new, first, last):
            if is_zero:
                image.zero(begin + at, end - at)
            else:
                image.put(begin + at, new[at:end])
