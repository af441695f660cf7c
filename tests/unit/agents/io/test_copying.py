"""A disk that is copied by the daemon is whole there, whatever the destination has or says that it has."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.content_store import MemoryStore, Shelves
from fakes.image import MemoryImage
from fakes.written_disks import There
from korora.agents.dataorg.popularity import Popularity
from korora.agents.dataplane.deduplication import Answering
from korora.agents.io import copying
from korora.agents.io.copying import GENTLE_BYTES, GENTLE_UP_TO, Copying, Pace
from korora.agents.io.sharing import Sharing
from korora.errors import PeerError, ToolError
from korora.migration.crossing.copying.agenda import Agenda
from korora.migration.crossing.copying.asking import Asking
from korora.migration.crossing.disks.following import merged
from korora.model.image import Extent
from korora.model.stored import SHARED, Bounds
from korora.ports.clock import SystemClock
from korora.protocol import messages
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
    assert merged(image.reads) == ([(0, len(content))] if content else [])
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


class Talk:
    def __init__(self) -> None:
        self.said: asyncio.Queue[messages.Parts] = asyncio.Queue()
        self.heard: asyncio.Queue[messages.Parts] = asyncio.Queue()
        self.channel = cast(Any, type("Channel", (), {"peer": "b"}))

    async def say(self, message: messages.Parts) -> None:
        await self.said.put(message)

    async def expect(self, kind: type, _: float | None) -> messages.Parts:
        return await self.heard.get()


@pytest.mark.parametrize("pace", [0, 1 << 40])
def test_where_the_disk_is_looked_through_for_what_it_holds_the_daemon_goes_on(pace: int) -> None:
    content, asked_by = NOISE, set[int]()

    class Slow(Counted):
        def extents(self, offset: int = 0) -> Iterator[Extent]:
            asked_by.add(threading.get_ident())
            return super().extents(offset)

    image, there = Slow(content), There(bytearray(len(content)))
    made = Copying(len(content), there, Pace(pace, SystemClock()))
    asyncio.run(made.copy(image, Agenda(image, None)))
    assert there.content == content
    assert asked_by
    assert threading.get_ident() not in asked_by


def test_an_answer_to_who_has_given_up_is_no_news() -> None:
    async def story() -> None:
        talk = Talk()
        asking = Asking(cast(Any, talk))
        listening = asyncio.create_task(asking.listen())
        asked = asyncio.create_task(asking.ask("a", Held(0, b"\x80")))
        told = await talk.said.get()
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        await talk.heard.put(told)
        assert not (await asyncio.wait([listening], timeout=0.2))[0]
        await talk.heard.put(told)
        with pytest.raises(PeerError, match="nothing was asked"):
            await listening

    asyncio.run(story())


def test_answers_reach_whoever_asked_and_one_that_nobody_awaits_ends_it() -> None:
    async def story() -> None:
        talk = Talk()
        asking = Asking(cast(Any, talk))
        listening = asyncio.create_task(asking.listen())
        questions = {name: Held(number, b"\x80") for number, name in enumerate("ab")}
        tasks = {name: asyncio.create_task(asking.ask(name, said)) for name, said in questions.items()}
        told = [await talk.said.get() for _ in tasks]
        assert {one.disk: have.decode(one.said) for one in told} == questions
        for one in reversed(told):
            await talk.heard.put(one)
        assert {name: await task for name, task in tasks.items()} == questions
        await talk.heard.put(told[0])
        with pytest.raises(PeerError, match="nothing was asked") as refused:
            await listening
        assert refused.value.kind == "out-of-order"

    asyncio.run(story())


def test_what_is_read_often_comes_first_and_what_is_zero_not_at_all() -> None:
    size = 40 * CHUNK_BYTES
    said = [Extent(0, size // 2, zero=False), Extent(size // 2, size // 2, zero=True)]
    image = MemoryImage(bytes(size), said)
    habits = Popularity(size)
    for at in range(100):
        reads, writes = (np.array([(chunk * CHUNK_BYTES, 4096)] * 50, np.int64) for chunk in (17, 2))
        habits.add(float(at), 1.0, reads, writes)
    agenda = Agenda(image, habits)
    order = list(agenda)
    assert sorted(order) == list(range(20))
    assert agenda.bytes == 20 * CHUNK_BYTES
    assert order.index(17) < order.index(5) < order.index(2)
    assert list(Agenda(image, None)) == list(range(20))
