"""Every reachable world of the ownership table is walked: never two owners running, never the last copy
destroyed, wiped only after the VM ran elsewhere, and from everywhere a way to an end or to a person.

The larger walks (three faults at once; two migrations with faults) run with KORORA_EXHAUSTIVE=1.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

import pytest

from fakes import ownership_world
from fakes.ownership_world import Limits, UnsafeError, World, check, first_world, moves, settled
from korora.model.ownership import Do, End, On, Status
from korora.protocol import ownership
from korora.protocol.ownership_table import TABLE, Row, When

CRASH = Limits(sessions=1, crashes=1, deaths=0, departures=0)
DEATH = Limits(sessions=1, crashes=0, deaths=1, departures=0)
QUICK = [
    replace(CRASH, losses=1),
    DEATH,
    Limits(sessions=1, crashes=0, deaths=0, departures=1, losses=1),
    Limits(sessions=2, crashes=0, deaths=0, departures=0, returns=True, refusals=0, patient=True),
]
EXHAUSTIVE = [
    Limits(sessions=1, crashes=2, deaths=1, departures=0, losses=1),
    Limits(sessions=1, crashes=1, deaths=1, departures=1, losses=1),
    Limits(sessions=2, crashes=1, deaths=0, departures=0, losses=1, returns=True),
    Limits(sessions=2, crashes=0, deaths=1, departures=0, losses=1, returns=True),
    Limits(sessions=2, crashes=1, deaths=1, departures=0, losses=1, returns=True, refusals=0, patient=True),
]
exhaustive = pytest.mark.skipif(
    not os.environ.get("KORORA_EXHAUSTIVE"), reason="minutes long; set KORORA_EXHAUSTIVE=1"
)


class Walk:
    """All worlds that can be reached, each with how it was reached first."""

    def __init__(self, limits: Limits) -> None:
        start = first_world(limits)
        self.came: dict[World, tuple[World, str] | None] = {start: None}
        self.before: dict[World, list[World]] = {}
        self.met: set[Status] = set()
        queue = [start]
        for world in queue:
            self._look(world, queue, limits)

    def _look(self, world: World, queue: list[World], limits: Limits) -> None:
        self.met.update(host.journal.status for host in world.hosts)
        try:
            check(world)
            for move in moves(world, limits):
                if move.world not in self.came:
                    self.came[move.world] = (world, move.name)
                    queue.append(move.world)
                if not move.fault:
                    self.before.setdefault(move.world, []).append(world)
        except UnsafeError as error:
            raise UnsafeError(f"{error}, after: {self.story(world)}") from error

    def story(self, world: World) -> str:
        told: list[str] = []
        came = self.came[world]
        while came is not None:
            world, name = came
            told.append(name)
            came = self.came[world]
        return "; ".join(reversed(told))

    def stuck(self) -> set[World]:
        """The worlds from which, without further faults, no run ends."""
        ends = [world for world in self.came if settled(world)]
        lively = set(ends)
        while ends:
            for earlier in self.before.get(ends.pop(), ()):
                if earlier not in lively:
                    lively.add(earlier)
                    ends.append(earlier)
        return set(self.came) - lively


@pytest.mark.parametrize("limits", [*QUICK, *(pytest.param(more, marks=exhaustive) for more in EXHAUSTIVE)])
def test_in_every_world_the_vm_is_safe_and_the_run_can_end(limits: Limits) -> None:
    walk = Walk(limits)
    stuck = walk.stuck()
    assert not stuck, walk.story(next(iter(stuck)))
    assert {Status.RELEASED, Status.TAKEN_OVER, Status.WIPED, Status.ORPHANED} <= walk.met or limits.patient


class Alter(Protocol):
    def __call__(self, at: Status, on: On, *rows: Row) -> None: ...


@pytest.fixture
def altered(monkeypatch: pytest.MonkeyPatch) -> Iterator[Alter]:
    """Use another table for a while."""

    def alter(at: Status, on: On, *rows: Row) -> None:
        monkeypatch.setitem(ownership._ROWS, (at, on), rows)
        ownership_world.cached_step.cache_clear()

    yield alter
    monkeypatch.undo()
    ownership_world.cached_step.cache_clear()


def row(at: Status, on: On, then: Status | None, *do: Do, epoch: int = 0, ends: End | None = None) -> Row:
    return Row((at,), on, then, do, "a mistake", When.ALWAYS, epoch, ends)


MISTAKES = {
    "the source takes back what it released": (
        row(Status.RELEASED, On.PEER_SILENT, Status.OWNER, Do.RESUME, epoch=1, ends=End.CLOSED),
        CRASH,
        "twice|two hosts",
    ),
    "the source wipes once it has released": (
        row(Status.RELEASED, On.ACCEPT, Status.TAKEN_OVER, Do.WIPE),
        CRASH,
        "wipes before",
    ),
    "the source wipes for a refusal": (
        row(Status.RELEASED, On.DECLINE, Status.TAKEN_OVER, Do.WIPE),
        CRASH,
        "wipes before",
    ),
    "the destination gives up what it accepted": (
        row(Status.LOADED, On.FAILED, Status.ABSENT, Do.DESTROY, ends=End.DISCARDED),
        CRASH,
        "last copy|stuck",
    ),
    "the destination runs what it accepted": (
        row(Status.LOADED, On.REMINDED, Status.STARTING, Do.RUN),
        CRASH,
        "twice|two hosts",
    ),
    "the destination declines what may have run": (
        row(Status.STARTING, On.HYPERVISOR_FAILED, Status.DECLINED, Do.SEND_DECLINE),
        DEATH,
        "old or empty",
    ),
    "the destination forgets its refusal too early": (
        row(Status.DECLINED, On.REMINDED, Status.ABSENT, Do.DESTROY, ends=End.DISCARDED),
        CRASH,
        "last copy",
    ),
    "the source gives up although the other copy may be the last": (
        row(Status.OFFERED, On.HYPERVISOR_FAILED, Status.OWNER, Do.SEND_CLOSED, ends=End.CLOSED),
        DEATH,
        "last copy",
    ),
    "the source keeps silent about a closed session": (
        row(Status.OFFERED, On.FAILED, Status.OWNER, Do.RESUME),
        CRASH,
        "stuck|two hosts|twice|old or empty",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_walk_finds_a_mistake_in_the_table(mistake: str, altered: Alter) -> None:
    wrong, limits, says = MISTAKES[mistake]
    altered(wrong.at[0], wrong.on, wrong)
    with pytest.raises(AssertionError, match=says):
        assert not Walk(limits).stuck(), "stuck"


def test_no_row_is_dead_and_no_two_rows_contradict() -> None:
    for place, rows in ownership._ROWS.items():
        always = [index for index, each in enumerate(rows) if each.when is When.ALWAYS]
        assert always in ([], [len(rows) - 1]), f"{place}: a row behind one that always fits"
        assert len({each.when for each in rows}) == len(rows), place
    assert all(each.why for each in TABLE)
