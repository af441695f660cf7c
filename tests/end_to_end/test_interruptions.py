"""Daemons die, networks break, people press Ctrl-C, at any moment: in the end just one host runs the guest.

Where a strike is timed by a message, a man in the middle counts TLS records: he sees no more of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from end_to_end.conftest import Lab
from end_to_end.records import Strike
from end_to_end.travelling import (
    HOSTS,
    Ended,
    Traveller,
    kill_daemon,
    restart_daemon,
    start_daemon,
    through_a_forwarder,
    until,
)
from korora.lab.forwarder import Forwarder
from korora.lab.layout import LabHost
from korora.lab.lifecycle import end_daemon
from korora.lab.site import configuration_through
from korora.lab.tampering import Action, Direction, Fault, Sort

pytestmark = pytest.mark.end_to_end

REFUSED, TOOL = 3, 6
SETTLED_S = 60.0
THERE, BACK = Direction.FORWARD, Direction.RETURN

# Which record of the control channel carries what, for a guest without a variable store.
MANIFEST, RELEASE, DRAFT, FILED = 11, 12, 13, 16
ANSWER, READY, ACCEPT, RUNNING, COUNTERSIGNED = 12, 13, 15, 16, 17


@contextmanager
def strike_at(
    walker: Traveller, direction: Direction, record: int, then: Callable[[], None] = lambda: None
) -> Iterator[Path]:
    """The way to the other host breaks when that record comes, after `then` was done."""
    there, layout = walker.other(), walker.lab.layout
    strike = Strike(direction, record, then)
    target = (there.ip, int(there.address.rpartition(":")[2]))
    listen = (layout.switch_ip, 0)
    with Forwarder(listen, target, inside=walker.lab.inside, editors=strike.editor) as forwarder:
        address = "{}:{}".format(*forwarder.address)
        yield configuration_through(layout, layout.hosts(HOSTS), {there.name: address}, "strike")
    assert strike.done, strike.seen


def settled_on(walker: Traveller, source: LabHost, there: LabHost) -> LabHost:
    """Wait until every daemon agrees; exactly one host runs it, whole, and the other has nothing of it."""

    def agreed() -> bool:
        views = walker.views()
        owners = [name for name, view in views.items() if view.owned and view.state == "running"]
        rest = {view.ownership for name, view in views.items() if name not in owners}
        return len(owners) == 1 and rest <= {"wiped", "absent"} and not any(v.moving for v in views.values())

    until(agreed, SETTLED_S)
    winner = source if walker.views()[source.name].owned else there
    loser = there if winner == source else source
    walker.left_nothing_on(loser)
    assert walker.host == winner
    walker.is_whole()
    return winner


def told_the_truth(done: Ended, winner: LabHost, source: LabHost) -> None:
    """Whatever the exit code, it agrees with where the guest is."""
    match done.exit_code:
        case 0:
            assert winner != source
        case 5 | 6 | 3:
            assert done.error["vm_runs_on"] == winner.name, done.outcome
        case 7:
            assert done.error["vm_runs_on"] in {None, winner.name}
        case _:
            raise AssertionError(done.outcome)


# -- the network breaks at one message --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("direction", "record", "stays"),
    [
        (BACK, ANSWER, True),
        (BACK, READY, True),
        (THERE, MANIFEST, True),
        (BACK, ACCEPT, True),
        (THERE, RELEASE, False),
        (BACK, RUNNING, False),
        (THERE, DRAFT, False),
        (BACK, COUNTERSIGNED, False),
        (THERE, FILED, False),
    ],
    ids=["answer", "ready", "manifest", "accept", "release", "running", "draft", "countersigned", "filed"],
)
def test_a_message_that_is_lost_leaves_exactly_one_running(
    walker: Traveller, direction: Direction, record: int, stays: bool
) -> None:
    source, there = walker.host, walker.other()
    with strike_at(walker, direction, record) as config:
        done = walker.move(there, config=config)
        winner = settled_on(walker, source, there)
    told_the_truth(done, winner, source)
    assert winner == (source if stays else there)
    if record in {DRAFT, COUNTERSIGNED} and not stays:
        assert "but the receipt was not completed" in done.error["message"]


# -- daemons die at one message ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("victim", "direction", "record", "stays"),
    [
        ("destination", THERE, RELEASE, False),
        ("source", BACK, ACCEPT, True),
        ("source", BACK, RUNNING, False),
        ("destination", BACK, RUNNING, False),
    ],
    ids=[
        "the destination before it hears the release",
        "the source before it hears the acceptance",
        "the source before it hears that it runs",
        "the destination when it has said that it runs",
    ],
)
def test_a_daemon_that_is_killed_at_the_hand_over_settles_when_it_is_back(
    walker: Traveller, lab: Lab, victim: str, direction: Direction, record: int, stays: bool
) -> None:
    source, there = walker.host, walker.other()
    dying = source if victim == "source" else there
    with strike_at(walker, direction, record, then=lambda: kill_daemon(lab, dying)) as config:
        order = walker.order(there, config=config)
        until(lambda: _is_dead(lab, dying), 60)
        start_daemon(lab, dying)
        done = order.ended()
        winner = settled_on(walker, source, there)
    told_the_truth(done, winner, source)
    assert winner == (source if stays else there)


def _is_dead(lab: Lab, host: LabHost) -> bool:
    return lab.korora("host", "show", host.name).returncode != 0


# -- before the switchover --------------------------------------------------------------------------------


@contextmanager
def held(walker: Traveller, *faults: Fault) -> Iterator[tuple[Forwarder, Path]]:
    """The network stalls at a chosen point, so that there is time to do something there."""
    with through_a_forwarder(walker.lab, walker.other()) as (forwarder, config):
        forwarder.arm(*faults)
        yield forwarder, config


@pytest.fixture
def hasty(walker: Traveller) -> Iterator[None]:
    """The guest's host gives a silent peer up soon."""
    host = walker.host
    before = host.configuration.read_text()
    host.configuration.write_text(f"{before}\n[limits]\nstall_seconds = 3\n")
    restart_daemon(walker.lab, host)
    yield
    host.configuration.write_text(before)
    restart_daemon(walker.lab, host)


IN_TRANSFER = Fault(Action.STALL, frame=30)


def test_a_destination_whose_daemon_is_killed_before_the_switchover_leaves_the_guest_alone(
    walker: Traveller, lab: Lab
) -> None:
    source, there = walker.host, walker.other()
    with held(walker, IN_TRANSFER) as (forwarder, config):
        order = walker.order(there, config=config)
        until(lambda: forwarder.connections and len(forwarder.connections) == 2, 60)
        assert order.until_phase("transfer")
        kill_daemon(lab, there)
        forwarder.cut()
        done = order.ended()
    assert done.exit_code == TOOL, done.outcome
    assert done.error["vm_runs_on"] == source.name
    walker.is_whole()
    start_daemon(lab, there)
    walker.stayed(source, there)


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
def test_a_source_whose_daemon_ends_in_the_transfer_keeps_the_guest(
    walker: Traveller, lab: Lab, how: str
) -> None:
    source, there = walker.host, walker.other()
    with held(walker, IN_TRANSFER) as (_, config):
        order = walker.order(there, config=config)
        assert order.until_phase("transfer")
        if how == "SIGTERM":
            end_daemon(lab.layout, source)
        else:
            kill_daemon(lab, source)
        start_daemon(lab, source)
        done = order.ended()
    assert done.exit_code in {REFUSED, TOOL}, done.outcome
    assert done.error["vm_runs_on"] == source.name
    walker.stayed(source, there)


# -- Ctrl-C -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "phase"),
    [
        (Fault(Action.STALL, offset=100, sort=Sort.CONTROL), "attest"),
        (Fault(Action.STALL, offset=400, direction=BACK, sort=Sort.CONTROL, connection=0), "attest"),
        (Fault(Action.STALL, offset=7740, direction=BACK, sort=Sort.CONTROL), "agree"),
        (Fault(Action.STALL, offset=8100, direction=BACK, sort=Sort.CONTROL), "baseline"),
        (IN_TRANSFER, "transfer"),
        (Fault(Action.STALL, frame="last"), "switchover"),
        (Fault(Action.STALL, frame="end"), "switchover"),
        (Fault(Action.STALL, offset=10000, direction=BACK, sort=Sort.CONTROL), "verify"),
    ],
    ids=["connecting", "attesting", "agree", "baseline", "transfer", "switchover", "at the end", "verify"],
)
def test_ctrl_c_ends_a_migration_and_the_guest_runs_on(walker: Traveller, fault: Fault, phase: str) -> None:
    source, there = walker.host, walker.other()
    with held(walker, fault) as (forwarder, config):
        order = walker.order(there, config=config)
        assert order.until_phase(phase) == phase
        until(lambda: fault in forwarder.struck or _struck(forwarder, fault), 30)
        order.interrupt()
        done = order.ended(60)
    assert done.exit_code == REFUSED, (done.outcome, done.stderr)
    assert (done.outcome["outcome"], done.kind) == ("cancelled", "cancelled")
    assert done.error["vm_runs_on"] == source.name
    walker.stayed(source, there)


def test_ctrl_c_past_the_release_waits_for_the_truth(walker: Traveller, hasty: None) -> None:
    source, there = walker.host, walker.other()
    lost_running = Fault(Action.STALL, offset=13500, direction=BACK, sort=Sort.CONTROL)
    with held(walker, lost_running) as (forwarder, config):
        order = walker.order(there, config=config)
        assert order.until_phase("commit")
        until(lambda: _struck(forwarder, lost_running), 30)
        order.interrupt()
        done = order.ended()
    # The connection hangs, so the source asks anew: it was moved, and only the common receipt is missing.
    assert (done.exit_code, done.outcome["outcome"]) == (0, "completed"), done.outcome
    assert settled_on(walker, source, there) == there


def _struck(forwarder: Forwarder, fault: Fault) -> bool:
    return any(fault in connection.struck for connection in forwarder.connections)


# -- a daemon restarts beside a running guest -------------------------------------------------------------


def test_the_guest_does_not_notice_that_its_daemon_restarts_or_dies_and_moves_afterwards(
    walker: Traveller, lab: Lab
) -> None:
    here = walker.host
    pid = walker.views()[here.name].pid
    restart_daemon(lab, here)
    assert walker.views()[here.name].pid == pid
    walker.is_whole()
    kill_daemon(lab, here)
    walker.is_whole()  # also while there is no daemon
    start_daemon(lab, here)
    shown = lab.answer("vm", "show", walker.name)
    assert (shown["host"], shown["state"], shown["pid"], shown["vtpm_lost"]) == (
        here.name,
        "running",
        pid,
        False,
    )
    outcome = walker.moved(walker.other())
    assert outcome["vtpm"] == {"ek_same": True, "pcrs_same": True, "nv_same": True}
    assert lab.korora("receipt", "verify", outcome["receipt"]).returncode == 0
