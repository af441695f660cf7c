"""One fault at every point of the story, on either host: every call of a port, every message in either
direction, either daemon or both. Afterwards the VM runs on exactly one host, and nothing of it is elsewhere.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import pytest

from fakes.faults import Fault, possible
from fakes.migration_site import VM, Site
from korora.model.plan import Mode

AT_ONCE = 16  # stories that are told side by side: most of each is waiting
OFFERED = "a:journal.write_vm#1"
RELEASED = "a:journal.write_vm#2"  # the record that says `released`
STORIES = 25  # of chance, for each seed; KORORA_STORY names the first of others
FIRST_STORY = int(os.environ.get("KORORA_STORY", "0"))
Prepare = Callable[[Site], None]


async def _started(site: Site, mode: Mode, *, cold: bool) -> None:
    await site.start()
    if cold:
        site.plan.quiet = True
        await site["a"].do(lambda: site["a"].guests.stop(VM, force=True))
        site.plan.quiet = False


async def _points(directory: Path, mode: Mode, *, cold: bool) -> list[str]:
    site = Site(directory)
    try:
        await _started(site, mode, cold=cold)
        outcome = await site.migrate("a", "b", mode)
        assert outcome["outcome"] == "completed", outcome
        await site.recover()
        return list(site.plan.passed)
    finally:
        await site.stop()


async def _told(directory: Path, prepare: Prepare, mode: Mode, *, cold: bool, kept: bool) -> str | None:
    """Why the story did not end as it must; None when it did."""
    site = Site(directory)
    try:
        await _started(site, mode, cold=cold)
        prepare(site)
        outcome = await site.migrate("a", "b", mode)
        await site.recover()
        owner = site.owner()
        (site.rests_only_on if cold else site.runs_only_on)(owner)
        if kept and outcome.get("outcome") != "completed":
            assert owner == "a", f"it was not released, but runs on {owner}: {outcome}"
        where = (outcome.get("error") or {}).get("vm_runs_on")
        assert where in {None, owner}, f"the outcome says {where}, it runs on {owner}: {outcome}"
        assert outcome.get("outcome") != "completed" or owner == "b", outcome
    except AssertionError as error:
        return str(error)[:600]
    finally:
        await site.stop()
    return None


def _each(
    directory: Path,
    cases: Callable[[list[str]], Iterable[tuple[str, Prepare, bool]]],
    mode: Mode = Mode.LIVE,
    *,
    cold: bool = False,
) -> None:
    """Tell all, and say of all that went wrong what."""

    async def all_of_them() -> dict[str, str]:
        points = await _points(directory / "first", mode, cold=cold)
        free = asyncio.Semaphore(AT_ONCE)
        wrong: dict[str, str] = {}

        async def one(number: int, name: str, prepare: Prepare, kept: bool) -> None:
            async with free:
                found = await _told(directory / str(number), prepare, mode, cold=cold, kept=kept)
            if found is not None:
                wrong[name] = found

        told: list[Awaitable[None]] = [
            one(number, name, prepare, kept) for number, (name, prepare, kept) in enumerate(cases(points))
        ]
        assert told
        await asyncio.gather(*told)
        return wrong

    wrong = asyncio.run(all_of_them())
    assert not wrong, "\n".join(f"{name}: {why}" for name, why in wrong.items())


def _before_the_release(points: list[str], point: str, fault: Fault | None) -> bool:
    """Whether the source cannot have heard ACCEPT by then, so that it must keep the VM."""
    arrived = point == "b:say Accept#1" and fault in {Fault.FAIL_AFTER, Fault.CRASH_AFTER}
    return points.index(point) < points.index(RELEASED) and not arrived


@pytest.mark.parametrize("fault", Fault)
def test_one_fault_anywhere_leaves_one_running_vm(tmp_path: Path, fault: Fault) -> None:
    _each(tmp_path, _with(fault))


@pytest.mark.parametrize("fault", [Fault.FAIL, Fault.CRASH])
def test_one_fault_anywhere_in_offline_mode_leaves_it_running_too(tmp_path: Path, fault: Fault) -> None:
    _each(tmp_path, _with(fault), Mode.OFFLINE)


@pytest.mark.parametrize("fault", Fault)
def test_one_fault_anywhere_leaves_one_stopped_vm_that_moves_cold(tmp_path: Path, fault: Fault) -> None:
    _each(tmp_path, _with(fault), Mode.OFFLINE, cold=True)


def _with(fault: Fault) -> Callable[[list[str]], Iterable[tuple[str, Prepare, bool]]]:
    def cases(points: list[str]) -> Iterable[tuple[str, Prepare, bool]]:
        for point in points:
            if possible(point, fault):
                yield (
                    f"{point} {fault}",
                    lambda site, point=point: site.plan.faults.__setitem__(point, fault),  # type: ignore[misc]
                    _before_the_release(points, point, fault),
                )

    return cases


def test_both_daemons_may_die_at_any_message(tmp_path: Path) -> None:
    def both_die(site: Site, point: str) -> None:
        def deed() -> None:
            for host in site.hosts.values():
                if host.daemon is not None:
                    host.daemon.kill()

        site.plan.deeds[point] = deed

    def cases(points: list[str]) -> Iterable[tuple[str, Prepare, bool]]:
        for point in points:
            if " " in point:
                yield (
                    f"{point} both die",
                    lambda site, point=point: both_die(site, point),  # type: ignore[misc]
                    _before_the_release(points, point, None),
                )

    _each(tmp_path, cases)


@pytest.mark.parametrize("seed", range(4))
def test_many_faults_one_after_another_also_in_recovery(tmp_path: Path, seed: int) -> None:
    """What happens at a point follows from its name and the number of the story: it can be told again."""

    def doom(site: Site, number: int) -> None:
        left = 5

        def fate(point: str) -> Fault | None:
            nonlocal left
            dice = random.Random(f"{number} {point}")
            fault = dice.choice(list(Fault))
            late = number % 2 and OFFERED not in site.plan.passed
            likely = 0.12 if number % 2 else 0.05
            if not left or late or dice.random() > likely or not possible(point, fault):
                return None
            left -= 1
            struck.setdefault(number, []).append(f"{point} {fault}")
            return fault

        site.plan.fate = fate

    struck: dict[int, list[str]] = {}

    def cases(_: list[str]) -> Iterable[tuple[str, Prepare, bool]]:
        for number in range(FIRST_STORY + STORIES * seed, FIRST_STORY + STORIES * (seed + 1)):
            yield f"story {number}", lambda site, number=number: doom(site, number), False  # type: ignore[misc]

    try:
        _each(tmp_path, cases)
    except AssertionError as error:
        told = {number: faults for number, faults in struck.items() if f"story {number}:" in str(error)}
        raise AssertionError(f"{error}\n{told}") from None
