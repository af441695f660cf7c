"""Nobody asks for more names than a disk has parts, or out of turn."""

from __future__ import annotations

import pytest

from korora.errors import PeerError
from korora.protocol.dedup.allowance import Allowance
from korora.protocol.dedup.have import MAX_BATCHES, Coming, Settled
from korora.protocol.dedup.names import Grain

NAME = b"n" * 32
MIB = 1 << 20


def question(batch: int, count: int = 1, grain: Grain = Grain.CHUNK) -> Coming:
    return Coming(batch, grain, NAME * count)


def test_a_disk_has_as_many_places_as_parts_the_last_one_shorter() -> None:
    allowance = Allowance(2 * MIB + 1)
    assert [allowance.places(grain) for grain in Grain] == [3, 513]
    assert Allowance(0).places(Grain.CHUNK) == 0


def test_as_many_names_of_each_grain_as_there_are_parts() -> None:
    allowance = Allowance(3 * MIB)
    allowance.take(question(0, 2))
    allowance.take(question(1, 1))
    allowance.take(question(2, 768, Grain.UNIT))
    for grain in Grain:
        with pytest.raises(PeerError) as error:
            Allowance(3 * MIB).take(question(0, 3 * MIB // grain + 1, grain))
        assert error.value.kind == "too-many-names"
    with pytest.raises(PeerError):
        allowance.take(question(3, 1))


@pytest.mark.parametrize("batch", [0, 4])
def test_batches_come_in_order_and_those_without_a_question_are_passed_over(batch: int) -> None:
    allowance = Allowance(100 * MIB)
    allowance.take(question(4))
    with pytest.raises(PeerError) as error:
        allowance.take(question(batch))
    assert error.value.kind == "malformed-message"
    allowance.take(question(9))


def test_few_are_open_until_they_are_settled() -> None:
    allowance = Allowance(100 * MIB)
    for batch in range(MAX_BATCHES):
        allowance.take(question(batch))
    allowance.settled(Settled(3, ()))
    allowance.settled(Settled(99, ()))
    allowance.take(question(MAX_BATCHES))
    with pytest.raises(PeerError, match="too many at a time"):
        allowance.take(question(MAX_BATCHES + 1))
