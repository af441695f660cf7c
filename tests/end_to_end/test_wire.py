"""A man in the middle of a real migration: whatever he does to it, the guest runs on where it ran, whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest

from end_to_end.conftest import Lab
from end_to_end.hostd import impatient
from end_to_end.ordering import Ended
from end_to_end.travelling import HOSTS, Traveller, through_a_forwarder
from korora.lab.forwarder import Forwarder
from korora.lab.tampering import Action, Direction, Fault, Sort

pytestmark = pytest.mark.end_to_end

STALL_S = 8
INTEGRITY, TOOL = 5, 6
ALTERED = {"frame-altered"}
ORDER = {"frame-out-of-order"}
# A missing frame shows by the number of the next, a length that is none, or bytes that never come.
BROKEN = {"frame-altered", "frame-out-of-order", "frame-malformed", "truncated", "connection-lost", "stalled"}
Place = Literal["last", "end"] | int
MIDDLE = 40  # of some hundred frames


@pytest.fixture(scope="module", autouse=True)
def giving_up_soon(lab: Lab) -> Iterator[None]:
    a, b = lab.layout.hosts(HOSTS)[:2]
    with impatient(lab, a, STALL_S), impatient(lab, b, STALL_S):
        yield


@contextmanager
def attacked(walker: Traveller, *faults: Fault) -> Iterator[tuple[Forwarder, Path]]:
    """The way to the other host leads through a man in the middle who has these faults in store."""
    with through_a_forwarder(walker.lab, walker.other()) as (forwarder, config):
        forwarder.arm(*faults)
        yield forwarder, config


def refused(walker: Traveller, *faults: Fault) -> Ended:
    """A migration that meets the faults, fails, and leaves the guest where it was."""
    source, there = walker.host, walker.other()
    with attacked(walker, *faults) as (forwarder, config):
        done = walker.move(there, config=config)
        assert forwarder.struck == list(faults), (done.outcome, done.stderr)
    assert done.exit_code in {INTEGRITY, TOOL}, (done.outcome, done.stderr)
    assert done.outcome["outcome"] == "failed"
    assert done.error["vm_runs_on"] == source.name
    assert done.error["exit_code"] == done.exit_code
    assert done.error["message"]
    assert done.error["remedy"]
    walker.stayed(source, there)
    return done


@pytest.mark.parametrize("frame", [0, MIDDLE, "last"], ids=["first", "middle", "last"])
@pytest.mark.parametrize("action", [Action.FLIP, Action.DROP, Action.REPEAT, Action.SWAP, Action.TRUNCATE])
def test_a_data_frame_that_was_meddled_with_stops_the_migration(
    walker: Traveller, action: Action, frame: Place
) -> None:
    done = refused(walker, Fault(action, frame=frame))
    if action is Action.TRUNCATE:
        assert done.kind in BROKEN
        return
    assert done.exit_code == INTEGRITY, done.error
    assert done.kind in (ALTERED if action is Action.FLIP else ALTERED | ORDER), done.error


@pytest.mark.parametrize("action", [Action.FLIP, Action.DROP, Action.REPEAT, Action.TRUNCATE])
def test_an_end_of_the_stream_that_was_meddled_with_stops_the_migration(
    walker: Traveller, action: Action
) -> None:
    done = refused(walker, Fault(action, frame="end"))
    assert done.kind in BROKEN | {"bytes-after-end"}, done.error


# All that comes back from QEMU: it has heard the source; it has loaded everything; the end.
WAY_BACK: dict[str, Place] = {"first": 0, "middle": 1, "last": "end"}
SPOILING = [Action.FLIP, Action.DROP, Action.REPEAT, Action.SWAP, Action.TRUNCATE]


@pytest.mark.parametrize(
    ("action", "place"),
    [
        (action, place)
        for place in WAY_BACK
        for action in SPOILING
        if (action, place) != (Action.SWAP, "last")  # nothing follows the end
    ],
)
def test_a_frame_of_the_way_back_that_was_meddled_with_stops_the_migration(
    walker: Traveller, action: Action, place: str
) -> None:
    done = refused(walker, Fault(action, frame=WAY_BACK[place], direction=Direction.RETURN))
    match action, place:
        case (Action.TRUNCATE, _) | (Action.DROP, "last"):
            assert done.exit_code == TOOL, done.error
            assert done.kind in {"truncated", "connection-lost", "stalled"}, done.error
        case Action.FLIP, _:
            assert done.kind in ALTERED, done.error
        case Action.REPEAT, "last":
            assert done.kind == "bytes-after-end", done.error
        case _:
            assert done.kind in ORDER, done.error


@pytest.mark.parametrize("direction", list(Direction))
@pytest.mark.parametrize("offset", [1500, 9000], ids=["handshake", "session"])
def test_a_flipped_byte_on_the_control_channel_stops_the_migration(
    walker: Traveller, direction: Direction, offset: int
) -> None:
    done = refused(walker, Fault(Action.FLIP, offset=offset, direction=direction, sort=Sort.CONTROL))
    assert done.exit_code == TOOL


def test_a_network_that_stalls_is_given_up(walker: Traveller) -> None:
    done = refused(walker, Fault(Action.STALL, frame=MIDDLE))
    assert done.kind == "stalled"
    assert f"{STALL_S} s" in done.error["message"]


def test_a_connection_that_is_cut_is_named(walker: Traveller) -> None:
    assert refused(walker, Fault(Action.CUT, frame=MIDDLE)).kind in {"connection-lost", "truncated"}
    assert refused(walker, Fault(Action.CUT, offset=8000, sort=Sort.CONTROL)).kind == "peer-gone"


def test_after_all_of_that_the_guest_moves_through_the_same_way(walker: Traveller) -> None:
    there = walker.other()
    with attacked(walker) as (forwarder, config):
        walker.moved(there, config=config)
        assert {connection.sort for connection in forwarder.connections} == {Sort.CONTROL, Sort.DATA}
