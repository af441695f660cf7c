"""A disk that is copied by the daemon is whole there, whatever the destination has or says that it has."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.content_store import MemoryStore, Shelves
from fakes.image import MemoryImage
from fakes.written_disks import There
from korora.agents.dataplane.deduplication import Answering
from korora.agents.io import copying
from korora.agents.io.copying import GENTLE_BYTES, GENTLE_UP_TO, Copying, Pace
from korora.agents.io.sharing import Sharing
from korora.errors import PeerError, ToolError
from korora.model.image import Extent
from korora.model.stored import SHARED, Bounds
from korora.ports.clock import SystemClock
from korora.protocol.content_tree import CHUNK_BYTES, chunks_of, leaf
from korora.protocol.dedup import have
from korora.protocol.dedup.have import AnySaid, Coming, Held, Put, Settled, bits_of
from korora.protocol.dedup.names import UNIT_BYTES

T = TypeVar("T")
NOISE = random.Random(3).randbytes(3 * CHUNK_BYTES)
CHUNKS = [
    bytes(CHUNK_BYTES),
    NOISE[:CHUNK_BYTES],
    NOISE[CHUNK_BYTES : 2 * CHUNK_BYTES],
    NOISE[: CHUNK_BYTES // 2] + bytes(CHUNK_BYTES // 2),
    (NOISE[:UNIT_BYTES] + NOISE[UNIT_BYTES : 2 * UNIT_BYTES] + bytes(2 * UNIT_BYTES)) * 64,
]
TAIL = b"tail" * 200
UNPACED = Pace(0, SystemClock())


class Counted:
    """An image of which is told what was read."""

    def __init__(self, content: bytes, broken: Sequence[int] = ()) -> None:
        self._image = MemoryImage(content, broken=broken)
        self.size = len(content)
        self.reads: list[tuple[int, int]] = []

    def extents(self, offset: int = 0) -> Iterator[Extent]:
        return self._image.extents(offset)

    def written(self) -> Iterator[tuple[int, int]]:
        return self._image.written()

    def each(self, ranges: Iterable[tuple[int, int]], work: Callable[[memoryview], T]) -> Iterator[T]:
        for one in ranges:
            self.reads.append(one)
            yield from self._image.each([one], work)


class Filled:
    """The destination's disk, as `Answering` fills it: the same bytes that the source writes to."""

    def __init__(self, content: bytearray) -> None:
        self.content = content

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self.content[offset : offset + length])

    def write(self, offset: int, content: bytes) -> None:
        self.content[offset : offset + len(content)] = content


def leaves_of(content: bytes) -> bytes:
    return b"".join(leaf(content[at : at + CHUNK_BYTES]) for at in range(0, len(content), CHUNK_BYTES))


def ask_of(answering: Answering) -> Callable[[AnySaid], Any]:
    async def ask(said: AnySaid) -> AnySaid:
        return have.decode(have.encode(answering.answer(have.decode(have.encode(said)))))

    return ask


def answering_of(content: bytearray, has: Sequence[bytes], room: int = 64 << 20) -> Answering:
    store = MemoryStore(Shelves(), Bounds(1 << 30, 1 << 20))
    store.keep(SHARED, Path("a"), has)
    return Answering(len(content), store.pins(None, room).__enter__(), Filled(content))


@given(
    st.lists(st.sampled_from(CHUNKS), max_size=7),
    st.booleans(),
    st.randoms(use_true_random=False),
    st.sampled_from([0, 1 << 40, GENTLE_UP_TO]),
)
@settings(max_examples=40, deadline=None)
def test_all_of_it_arrives_in_any_order_and_is_read_once(
    chunks: list[bytes], tail: bool, chance: random.Random, pace: int
) -> None:
    content = b"".join(chunks) + TAIL * tail
    image, there = Counted(content), There(bytearray(len(content)))
    order = list(range(chunks_of(len(content))))
    chance.shuffle(order)
    made = Copying(len(content), there, Pace(pace, SystemClock()))
    half = len(order) // 2
    asyncio.run(made.copy(image, order[:half]))
    asyncio.run(made.copy(image, iter(order[half:])))
    assert there.content == content
    assert made.taken_leaves() == leaves_of(content)
    assert b"".join(content[at : at + length] for at, length in sorted(image.reads)) == content
    assert sum(length for _, length in image.reads) == len(content)
    assert all(length <= (GENTLE_BYTES if pace == GENTLE_UP_TO else CHUNK_BYTES) for _, length in image.reads)
    assert made.done == len(content)
    assert there.put_bytes <= len(content) - sum(len(one) for one in chunks if not any(one))


@given(
    st.lists(st.sampled_from(CHUNKS), max_size=6),
    st.sets(st.sampled_from(CHUNKS)),
    st.sampled_from([0, 3 * UNIT_BYTES, CHUNK_BYTES + 1, 64 << 20]),
    st.randoms(use_true_random=False),
)
@settings(max_examples=60, deadline=None)
def test_what_the_destination_has_is_not_sent_and_the_disk_is_whole(
    chunks: list[bytes], has: set[bytes], room: int, chance: random.Random
) -> None:
    content = b"".join(chunks) + TAIL
    there = There(bytearray(len(content)))
    answering = answering_of(there.content, sorted(has), room)
    sharing = Sharing(ask_of(answering))
    made = Copying(len(content), there, UNPACED, sharing)
    order = list(range(chunks_of(len(content))))
    chance.shuffle(order)
    asyncio.run(made.copy(Counted(content), order))
    assert there.content == content
    assert made.taken_leaves() == leaves_of(content)
    assert there.put_bytes == sharing.sent_bytes
    if has >= set(chunks) and room > CHUNK_BYTES * (len(chunks) + 1):
        assert sharing.sent_bytes == len(TAIL)


@pytest.mark.parametrize("says", ["has all and puts none", "has none"])
def test_a_destination_that_says_what_is_not_so_is_sent_everything(says: str) -> None:
    content = NOISE + TAIL
    there = There(bytearray(len(content)))

    async def ask(said: AnySaid) -> AnySaid:
        match said:
            case Coming():
                return Held(said.batch, bits_of([says != "has none"] * said.count))
            case Put():
                return Settled(said.batch, tuple(sorted(said.filled)))
        raise AssertionError(said)

    made = Copying(len(content), there, UNPACED, Sharing(ask))
    asyncio.run(made.copy(Counted(content), range(4)))
    assert there.content == content


@pytest.mark.parametrize("turned", [Held(0, b"\0"), Settled(0, ())])
def test_an_answer_that_belongs_elsewhere_ends_it(turned: AnySaid) -> None:
    async def ask(said: AnySaid) -> AnySaid:
        right = isinstance(turned, Held)
        if isinstance(said, Coming) and right:
            return Held(said.batch, bits_of([False] * said.count))
        return turned

    there = There(bytearray(CHUNK_BYTES))
    with pytest.raises(PeerError) as refused:
        asyncio.run(Copying(CHUNK_BYTES, there, UNPACED, Sharing(ask)).copy(Counted(CHUNKS[1]), [0]))
    assert refused.value.kind == "malformed-message"


def test_where_hardly_a_unit_is_there_most_of_the_rest_is_not_named_by_units() -> None:
    content = random.Random(4).randbytes(copying.WINDOW * 20 * 4 * UNIT_BYTES)
    content = content[: len(content) // CHUNK_BYTES * CHUNK_BYTES]
    there, asked = There(bytearray(len(content))), [0]

    async def ask(said: AnySaid) -> AnySaid:
        if isinstance(said, Coming):
            asked[0] += said.count if said.grain == UNIT_BYTES else 0
            return Held(said.batch, bits_of([False] * said.count))
        return Settled(said.batch, ())

    made = Copying(len(content), there, UNPACED, Sharing(ask))

    async def story() -> None:
        for chunk in range(chunks_of(len(content))):
            await made.copy(Counted(content), [chunk])

    asyncio.run(story())
    assert there.content == content
    assert 0 < asked[0] < len(content) // UNIT_BYTES // 3


def test_what_cannot_be_read_ends_it_once_what_was_read_is_there() -> None:
    content = NOISE * 20
    broken = (copying.WINDOW + 3) * CHUNK_BYTES + 7
    there = There(bytearray(len(content)))
    with pytest.raises(ToolError, match="cannot be read"):
        asyncio.run(
            Copying(len(content), there, UNPACED).copy(Counted(content, [broken]), range(len(content) >> 20))
        )
    assert there.content[: copying.WINDOW * CHUNK_BYTES] == content[: copying.WINDOW * CHUNK_BYTES]


def test_a_pace_is_asked_for_what_is_read_and_no_more() -> None:
    class Asked(Pace):
        def __init__(self) -> None:
            super().__init__(1 << 40, SystemClock())
            self.lengths: list[int] = []

        async def keep(self, length: int) -> None:
            self.lengths.append(length)

    content, pace = NOISE + TAIL, Asked()
    made = Copying(len(content), There(bytearray(len(content))), pace)
    asyncio.run(made.copy(Counted(content), range(4)))
    assert sum(pace.lengths) == len(content)


def test_a_pace_gives_time_between_and_does_not_make_up_for_what_was_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept: list[float] = []

    class Clock:
        at = 100.0

        def monotonic(self) -> float:
            return self.at

        def now(self) -> float:
            return self.at

    async def sleep(seconds: float) -> None:
        slept.append(round(seconds, 6))
        clock.at += seconds

    clock = Clock()
    monkeypatch.setattr(asyncio, "sleep", sleep)

    async def story() -> None:
        pace = Pace(10 * CHUNK_BYTES, clock)
        for _ in range(3):
            await pace.keep(CHUNK_BYTES)
        clock.at += 50
        for _ in range(2):
            await pace.keep(CHUNK_BYTES)

    asyncio.run(story())
    assert slept == [0, 0.1, 0.1, 0, 0.1]


@pytest.mark.parametrize("pace", [0, GENTLE_UP_TO, 1 << 40])
def test_where_the_disk_is_looked_through_for_what_it_holds_the_daemon_goes_on(pace: int) -> None:
    asked_by: set[int] = set()

    def order() -> Iterator[int]:
        asked_by.add(threading.get_ident())  # which may ask QEMU, and wait for it
        yield from range(3)

    there = There(bytearray(len(NOISE)))
    made = Copying(len(NOISE), there, Pace(pace, SystemClock()))
    asyncio.run(made.copy(Counted(NOISE), order()))
    assert there.content == NOISE
    assert asked_by
    assert threading.get_ident() not in asked_by
