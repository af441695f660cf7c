"""Every part of a disk gets one action, what stands there twice is sent once, and the disks end equal."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from korora.errors import PeerError
from korora.protocol.dedup import have
from korora.protocol.dedup.have import Held, Settled, bits_of
from korora.protocol.dedup.names import UNIT_BYTES, Grain, name_of, split
from korora.protocol.dedup.plan import (
    Copy,
    Named,
    Part,
    Plan,
    Repeat,
    Send,
    Zeros,
    asked_bytes,
    parts_of,
    questions,
)

UNITS = [bytes([letter]) * UNIT_BYTES for letter in range(5)]  # the first is zero


def cut(content: bytes) -> list[Part]:
    return list(parts_of(0, content))


class Destination:
    """It has some units, and a disk that it fills; now and then what it wrote was changed by a guest."""

    def __init__(self, has: set[bytes], spoilt: set[int], places: int) -> None:
        self.has = {name_of(unit): unit for unit in has}
        self.spoilt = spoilt
        self.disk = [UNITS[0]] * places
        self.settled = Settled(0, ())

    def answers(self, coming: have.Coming) -> Held:
        return Held(coming.batch, bits_of(name in self.has for name in split(coming.names)))

    def put(self, put: have.Put, coming: have.Coming | None) -> Settled:
        names = split(coming.names) if coming else []
        if coming:
            have.check_put(put, coming, [name in self.has for name in names], len(self.disk))
        lacking = []
        for number, place in put.copies:
            self.disk[place] = self.has[names[number]]
        for number, of, place in put.repeats:
            there = b"changed" if of in self.spoilt else self.disk[of]
            if name_of(there) == names[number]:
                self.disk[place] = there
            else:
                lacking.append(place)
        return Settled(put.batch, tuple(sorted(lacking)))


@given(
    st.lists(st.sampled_from(UNITS), max_size=40),
    st.sets(st.sampled_from(UNITS[1:])),
    st.sets(st.integers(0, 40)),
    st.integers(1, 9),
    st.integers(0, 5),
)
@settings(max_examples=300)
def test_the_destinations_disk_is_the_sources_whatever_it_has(
    disk: list[bytes], has: set[bytes], spoilt: set[int], most: int, remembered: int
) -> None:
    there = Destination(has, spoilt, len(disk))
    plan = Plan(Grain.UNIT, remembered)
    sent = []
    for parts in questions(cut(b"".join(disk)), most):
        number, coming = plan.ask(parts)
        assert asked_bytes(coming) <= 32 * most
        actions = plan.actions(number, there.answers(coming) if coming else None)
        assert [action.place for action in actions] == [part.place for part in parts]
        for action in actions:
            if isinstance(action, Send):
                there.disk[action.place] = disk[action.place]
                sent.append(action.place)
        for again in plan.settle(there.put(plan.put(number), coming)):
            there.disk[again.place] = disk[again.place]
    assert there.disk == disk
    assert not [place for place in sent if disk[place] in has or disk[place] == UNITS[0]]
    if remembered >= len(UNITS):
        assert len({disk[place] for place in sent}) == len(sent)


def test_zeros_are_runs_and_have_no_names() -> None:
    assert cut(UNITS[0] * 3 + UNITS[1] + UNITS[0]) == [Zeros(0, 3), Named(3, name_of(UNITS[1])), Zeros(4, 1)]
    assert list(parts_of(2, UNITS[1])) == [Named(512, name_of(UNITS[1]))]
    assert list(parts_of(2, b"")) == []
    plan = Plan(Grain.UNIT)
    number, coming = plan.ask([Zeros(0, 7)])
    assert coming is None
    assert plan.actions(number, None) == [Zeros(0, 7)]


def test_what_is_held_is_copied_what_was_sent_is_repeated() -> None:
    plan = Plan(Grain.UNIT)
    number, coming = plan.ask(cut(UNITS[1] + UNITS[2] + UNITS[1] + UNITS[2]))
    assert coming is not None
    assert split(coming.names) == [name_of(UNITS[1]), name_of(UNITS[2])]
    assert plan.actions(number, Held(0, bits_of([True, False]))) == [
        Copy(0, 0),
        Send(1),
        Copy(2, 0),
        Repeat(3, 1, 1),
    ]
    assert plan.put(number) == have.Put(0, ((0, 0), (0, 2)), ((1, 1, 3),))


def test_no_place_repeats_one_beyond_it_whatever_the_order() -> None:
    plan, name = Plan(Grain.CHUNK), name_of(UNITS[1])
    told = []
    for place in (7, 3, 5, 9):
        number, coming = plan.ask([Named(place, name)])
        assert coming is not None
        told += plan.actions(number, Held(number, bits_of([False])))
        put = plan.put(number)
        assert have.decode(have.encode(put)) == put
        plan.settle(Settled(number, ()))
    assert told == [Send(7), Send(3), Repeat(5, 3, 0), Repeat(9, 3, 0)]


def test_a_destination_that_does_not_answer_is_sent_everything_once() -> None:
    plan = Plan(Grain.UNIT)
    number, _ = plan.ask(cut(UNITS[1] + UNITS[1] + UNITS[2]))
    assert plan.actions(number, None) == [Send(0), Repeat(1, 0, 0), Send(2)]


def test_what_is_lacking_is_sent() -> None:
    plan = Plan(Grain.UNIT)
    number, _ = plan.ask(cut(UNITS[1]))
    plan.actions(number, Held(0, b"\x80"))
    assert plan.settle(Settled(0, (0,))) == [Send(0)]
    with pytest.raises(PeerError, match="not put"):
        plan.settle(Settled(0, ()))


def test_no_more_batches_are_open_than_the_destination_holds_bytes_for() -> None:
    plan = Plan(Grain.UNIT)
    for _ in range(have.MAX_BATCHES):
        number, _ = plan.ask(cut(UNITS[1]))
        plan.actions(number, None)
    with pytest.raises(ValueError, match="settle a batch"):
        plan.ask(cut(UNITS[1]))
    plan.settle(Settled(0, ()))
    assert plan.ask(cut(UNITS[1]))[0] == have.MAX_BATCHES


def test_too_many_names_are_refused() -> None:
    parts: list[Part] = [Named(number, number.to_bytes(32, "big")) for number in range(have.MAX_NAMES + 1)]
    with pytest.raises(ValueError, match="more than"):
        Plan(Grain.CHUNK).ask(parts)
    assert [len(batch) for batch in questions(parts)] == [have.MAX_NAMES, 1]


def test_what_is_remembered_is_bounded() -> None:
    plan = Plan(Grain.CHUNK, remembered=10)
    for first in range(0, 100, 20):
        number, _ = plan.ask([Named(at, at.to_bytes(32, "big")) for at in range(first, first + 20)])
        plan.actions(number, None)
        plan.settle(Settled(number, ()))
    assert len(plan._seen) == 10
