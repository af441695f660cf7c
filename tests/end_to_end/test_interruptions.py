"""Daemons die, networks break, people press Ctrl-C at any moment: in the end just one host runs the guest."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from end_to_end.conftest import Lab
from end_to_end.hostd import frozen, impatient
from end_to_end.ordering import Ended, Order
from end_to_end.striking import (
    ACCEPT,
    ANSWER,
    BACK,
    CLIENT_HELLO,
    COUNTERSIGNED,
    DRAFT,
    FILED,
    HELLO,
    MANIFEST,
    READY,
    RELEASE,
    RUNNING,
    THERE,
    held_at,
    strike_at,
)
from end_to_end.travelling import (
    INTERPOSER,
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
from korora.lab.tampering import Action, Direction, Fault

pytestmark = pytest.mark.end_to_end

REFUSED, TOOL = 3, 6
SETTLED_S = 120.0


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
    with impatient(walker.lab, walker.host, 8):
        yield


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


def cancelled(walker: Traveller, order: Order, source: LabHost, there: LabHost) -> None:
    """Before the release: the command says so, and the guest runs where it ran."""
    done = order.ended()
    assert done.exit_code == REFUSED, (done.outcome, done.stderr)
    assert (done.outcome["outcome"], done.kind) == ("cancelled", "cancelled")
    assert done.error["vm_runs_on"] == source.name
    assert "cancelled" in done.error["message"]
    assert "cancelling" in done.stderr
    walker.stayed(source, there)


def test_ctrl_c_before_the_daemon_has_said_yes_is_carried_out_as_soon_as_it_has(walker: Traveller) -> None:
    source, there = walker.host, walker.other()
    with frozen(walker.lab, source):
        order = walker.order(there, source=source)
        until(lambda: order.is_connected, 60)
        order.interrupt()
        until(lambda: "cancelling" in order.stderr, 60)
    cancelled(walker, order, source, there)


@pytest.mark.parametrize(
    ("direction", "record", "phase"),
    [
        (THERE, CLIENT_HELLO, "attest"),
        (BACK, HELLO, "attest"),
        (BACK, ANSWER, "agree"),
        (BACK, READY, "baseline"),
        (BACK, ACCEPT, "verify"),
    ],
    ids=["connecting", "attesting", "agree", "baseline", "verify"],
)
def test_ctrl_c_while_a_message_is_held_up_ends_a_migration_and_the_guest_runs_on(
    walker: Traveller, direction: Direction, record: int, phase: str
) -> None:
    source, there, held_up = walker.host, walker.other(), threading.Event()
    with strike_at(walker, direction, record, held_up.set, Action.STALL) as config:
        order = walker.order(there, config=config)
        assert order.until_phase(phase) == phase
        assert held_up.wait(60)
        order.interrupt()
        cancelled(walker, order, source, there)


@pytest.mark.parametrize(
    ("fault", "phase"),
    [
        (IN_TRANSFER, "transfer"),
        (Fault(Action.STALL, frame="last"), "switchover"),
        (Fault(Action.STALL, frame="end"), "switchover"),
    ],
    ids=["transfer", "switchover", "at the end"],
)
def test_ctrl_c_while_the_stream_is_held_up_ends_a_migration_and_the_guest_runs_on(
    walker: Traveller, fault: Fault, phase: str
) -> None:
    source, there = walker.host, walker.other()
    with held(walker, fault) as (forwarder, config):
        order = walker.order(there, config=config)
        assert order.until_phase(phase) == phase
        until(lambda: _struck(forwarder, fault), 60)
        order.interrupt()
        cancelled(walker, order, source, there)


def arrived_though_cancelled(walker: Traveller, done: Ended, source: LabHost, there: LabHost) -> None:
    """Past the release: the command says that the move was completed, and it was."""
    assert (done.exit_code, done.outcome["outcome"]) == (0, "completed"), (done.outcome, done.stderr)
    assert "cancelling" in done.stderr
    assert done.outcome["error"] is None
    assert settled_on(walker, source, there) == there


@pytest.mark.parametrize(
    ("record", "phase"), [(RUNNING, "commit"), (COUNTERSIGNED, "receipt")], ids=["commit", "receipt"]
)
def test_ctrl_c_past_the_release_is_too_late_and_the_migration_is_completed(
    walker: Traveller, lab: Lab, record: int, phase: str
) -> None:
    source, there = walker.host, walker.other()
    with held_at(walker, BACK, record) as hold:
        order = walker.order(there, config=hold.config)
        assert hold.reached.wait(60)
        assert order.until_phase(phase) == phase
        order.interrupt()
        until(lambda: "cancelling" in order.stderr, 60)
        hold.go_on.set()
        done = order.ended()
    arrived_though_cancelled(walker, done, source, there)
    assert lab.korora("receipt", "verify", done.outcome["receipt"]).returncode == 0


def test_ctrl_c_while_the_source_is_wiped_is_too_late_and_the_wipe_is_completed(
    walker: Traveller, lab: Lab
) -> None:
    source, there, held_up = walker.host, walker.other(), threading.Event()
    vtpm = walker.processes(source, INTERPOSER)  # the first that the wipe asks something
    assert len(vtpm) == 1

    def hold() -> None:
        for pid in vtpm:
            os.kill(pid, signal.SIGSTOP)
        held_up.set()

    with strike_at(walker, BACK, RUNNING, hold, how=None) as config:
        order = walker.order(there, config=config)
        assert held_up.wait(60)
        try:
            assert order.until_phase("wipe") == "wipe"
            order.interrupt()
            until(lambda: "cancelling" in order.stderr, 60)
        finally:
            for pid in vtpm:
                os.kill(pid, signal.SIGCONT)
        done = order.ended()
    arrived_though_cancelled(walker, done, source, there)
    assert lab.korora("receipt", "verify", done.outcome["receipt"]).returncode == 0


def test_ctrl_c_past_the_release_waits_for_the_truth(walker: Traveller, hasty: None) -> None:
    source, there, held_up = walker.host, walker.other(), threading.Event()
    with strike_at(walker, BACK, RUNNING, held_up.set, Action.STALL) as config:
        order = walker.order(there, config=config)
        assert held_up.wait(60)
        assert order.until_phase("commit") == "commit"
        order.interrupt()
        done = order.ended()
    # The connection hangs, so the source asks anew: it was moved, and only the common receipt is missing.
    arrived_though_cancelled(walker, done, source, there)
    assert done.outcome["receipt"] is None


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
