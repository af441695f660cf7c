"""The destination fills places with what the source named and nothing else, and gives back what it held."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.content_store import MemoryStore, Shelves
from korora.agents.dataplane.deduplication import Answering
from korora.errors import PeerError
from korora.model.stored import SHARED, Bounds
from korora.ports.content_store import Pins
from korora.protocol.dedup.have import AnySaid, Coming, Held, Put, Settled, decode, encode
from korora.protocol.dedup.names import UNIT_BYTES, Grain, name_of
from korora.protocol.dedup.plan import Plan, Send, parts_of, questions

LETTERS = [bytes(UNIT_BYTES), *(bytes([letter]) * UNIT_BYTES for letter in b"abcd")]
A, B = LETTERS[1], LETTERS[2]
TAIL = b"tail" * 128
ROOM = 1 << 20


class Bytes:
    """A disk in memory."""

    def __init__(self, size: int) -> None:
        self.content = bytearray(size)

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self.content[offset : offset + length])

    def write(self, offset: int, content: bytes) -> None:
        assert offset + len(content) <= len(self.content)
        self.content[offset : offset + len(content)] = content


def pins_of(*has: bytes, room: int = ROOM) -> Pins:
    store = MemoryStore(Shelves(), Bounds(1 << 30, 1 << 20))
    store.keep(SHARED, Path("a"), has)
    return store.pins(None, room).__enter__()


def asked(*parts: bytes, batch: int = 0) -> Coming:
    return Coming(batch, Grain.UNIT, b"".join(map(name_of, parts)))


@given(
    st.lists(st.sampled_from(LETTERS), max_size=30),
    st.sets(st.sampled_from(LETTERS)),
    st.sets(st.integers(0, 29)),
    st.integers(1, 7),
    st.integers(0, 8 * UNIT_BYTES),
)
@settings(max_examples=200, deadline=None)
def test_a_disk_arrives_whole_whatever_is_there_and_whoever_writes_meanwhile(
    units: list[bytes], has: set[bytes], spoilt: set[int], most: int, room: int
) -> None:
    content = b"".join(units) + TAIL
    disk, pins, plan = Bytes(len(content)), pins_of(*has, TAIL, room=room), Plan(Grain.UNIT)
    answering = Answering(len(content), pins, disk)

    def send(actions: list[Send]) -> None:
        for one in actions:
            at = one.place * UNIT_BYTES
            disk.write(at, content[at : at + UNIT_BYTES])

    for parts in questions(parts_of(0, content), most):
        number, coming = plan.ask(parts)
        held = None if coming is None else answering.answer(decode(encode(coming)))
        assert not isinstance(held, Settled)
        send([one for one in plan.actions(number, held) if isinstance(one, Send)])
        if coming is not None:
            was = bytes(disk.content)
            for place in spoilt:  # a guest writes, and writes it back
                if place < len(units):
                    disk.write(place * UNIT_BYTES, b"!")
            settled = answering.answer(decode(encode(plan.put(number))))
            assert isinstance(settled, Settled)
            for place in spoilt - set(plan.put(number).filled):
                if place < len(units):
                    at = place * UNIT_BYTES
                    disk.write(at, was[at : at + 1])
            send(plan.settle(settled))
        else:
            plan.settle(Settled(number, ()))
    assert bytes(disk.content) == content
    held_now = pins.pin([name_of(A)]) if room >= UNIT_BYTES and A in has else [True]
    assert held_now == [True]  # all room was given back


def test_a_held_part_of_another_length_is_lacking_at_that_place() -> None:
    disk = Bytes(UNIT_BYTES + len(TAIL))
    answering = Answering(len(disk.content), pins_of(A, TAIL), disk)
    assert answering.answer(asked(A, TAIL)) == Held(0, b"\xc0")
    assert answering.answer(Put(0, ((0, 1), (1, 0)), ())) == Settled(0, (0, 1))
    assert disk.content == bytes(len(disk.content))
    assert answering.copied_bytes == 0


def test_what_was_copied_is_counted() -> None:
    disk = Bytes(3 * UNIT_BYTES)
    answering = Answering(len(disk.content), pins_of(A), disk)
    answering.answer(asked(A))
    assert answering.answer(Put(0, ((0, 0),), ((0, 0, 2),))) == Settled(0, ())
    assert disk.content == A + bytes(UNIT_BYTES) + A
    assert answering.copied_bytes == 2 * UNIT_BYTES


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (Put(0, ((0, 0),), ()), None),
        (Put(1, ((0, 0),), ()), "malformed-message"),
        (Put(0, ((1, 0),), ()), "malformed-message"),
        (Put(0, ((0, 3),), ()), "malformed-message"),
        (Held(0, b"\x80"), "malformed-message"),
        (Settled(0, ()), "malformed-message"),
        (asked(A), "malformed-message"),
        (asked(A, B, batch=1), "too-many-names"),
    ],
)
def test_what_may_not_come_is_refused_and_nothing_is_written(said: AnySaid, kind: str | None) -> None:
    disk = Bytes(3 * UNIT_BYTES)
    answering = Answering(len(disk.content), pins_of(A), disk)
    assert answering.answer(asked(A, B)) == Held(0, b"\x80")
    if kind is None:
        assert answering.answer(said) == Settled(0, ())
        return
    with pytest.raises(PeerError) as error:
        answering.answer(said)
    assert error.value.kind == kind
    assert disk.content == bytes(3 * UNIT_BYTES)


def test_a_batch_is_put_once() -> None:
    disk = Bytes(UNIT_BYTES)
    answering = Answering(UNIT_BYTES, pins_of(A), disk)
    answering.answer(asked(A))
    answering.answer(Put(0, ((0, 0),), ()))
    with pytest.raises(PeerError):
        answering.answer(Put(0, ((0, 0),), ()))


def test_what_is_held_is_given_back_when_the_session_ends_or_the_disk_fails() -> None:
    class Full(Bytes):
        def write(self, offset: int, content: bytes) -> None:
            raise OSError("no room")

    pins = pins_of(A, room=UNIT_BYTES)
    answering = Answering(UNIT_BYTES, pins, Full(UNIT_BYTES))
    answering.answer(asked(A))
    with pytest.raises(OSError, match="no room"):
        answering.answer(Put(0, ((0, 0),), ()))
    with pytest.raises(KeyError):
        pins.content(name_of(A))
    again = Answering(UNIT_BYTES, pins, Bytes(UNIT_BYTES))
    again.answer(asked(A))
    assert pins.content(name_of(A)) == A
    again.close()
    with pytest.raises(KeyError):
        pins.content(name_of(A))
