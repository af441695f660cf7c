"""The fake hypervisor notices what never may happen; without that, tests on it would prove nothing."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from fakes.hypervisor import FakeHypervisor, FakeMachine, Trouble, World
from korora.errors import ToolError
from korora.model.definition import parse_definition
from korora.model.vm import RunState
from korora.ports.hypervisor import Place, StreamSettings, StreamState

VM = parse_definition('name = "tiny"\nmemory = "64M"\n')


def tell(story: Callable[[World, Path], Awaitable[None]]) -> World:
    world = World()

    async def bounded(base: Path) -> None:
        async with asyncio.timeout(10):
            await story(world, base)

    with tempfile.TemporaryDirectory(prefix="korora-fake-") as name:
        asyncio.run(bounded(Path(name)))
    return world


async def at_switchover(world: World, base: Path) -> tuple[FakeMachine, FakeMachine]:
    source = await FakeHypervisor("a", world).start(VM, Place(base / "a", None), incoming=False)
    destination = await FakeHypervisor("b", world).start(VM, Place(base / "b", None), incoming=True)
    await destination.listen(base / "s", StreamSettings())
    await source.send(base / "s", StreamSettings())
    async for state in source.stream_states():
        if state is StreamState.PRE_SWITCHOVER:
            break
    return source, destination


async def moved(world: World, base: Path) -> tuple[FakeMachine, FakeMachine]:
    source, destination = await at_switchover(world, base)
    await source.switch_over()
    assert [state async for state in source.stream_states()][-1] is StreamState.COMPLETED
    return source, destination


def test_a_good_move_has_no_violation_and_brings_the_memory() -> None:
    async def story(world: World, base: Path) -> None:
        source, destination = await moved(world, base)
        assert destination.guest.memory == source.guest.memory
        await destination.resume()
        assert world.running("tiny") == ["b"]

    assert tell(story).violations == []


def test_two_that_run_are_a_violation() -> None:
    async def story(world: World, base: Path) -> None:
        source, destination = await moved(world, base)
        await destination.resume()
        await source.resume()

    assert any("runs on b and a" in violation for violation in tell(story).violations)


def test_an_old_copy_that_runs_again_is_a_violation() -> None:
    async def story(world: World, base: Path) -> None:
        source, destination = await moved(world, base)
        await destination.resume()
        await destination.quit()
        await source.resume()

    assert tell(story).violations == ["an old copy of tiny runs again on a"]


def test_a_loaded_copy_that_runs_after_its_source_went_on_is_a_violation() -> None:
    async def story(world: World, base: Path) -> None:
        source, destination = await moved(world, base)
        await source.resume()
        await source.quit()
        await destination.resume()

    assert tell(story).violations == ["an old copy of tiny runs again on b"]


def test_wiping_what_runs_is_a_violation() -> None:
    async def story(world: World, base: Path) -> None:
        machine = await FakeHypervisor("a", world).start(VM, Place(base / "a", None), incoming=False)
        assert machine.memory is not None
        machine.memory.wipe()

    assert len(tell(story).violations) == 1


@pytest.mark.parametrize("step", ["pause", "resume", "send", "switch_over", "stream_status", "cpu_features"])
@pytest.mark.parametrize("trouble", [Trouble.FAIL, Trouble.FAIL_AFTER, Trouble.DIE, Trouble.DIE_AFTER])
def test_a_step_fails_as_it_was_told_to_and_only_once(step: str, trouble: Trouble) -> None:
    async def story(world: World, base: Path) -> None:
        source, _ = await at_switchover(world, base)
        world.trouble(step, trouble, "a")
        act = getattr(source, step)
        with pytest.raises(ToolError):
            await (act(base / "s2", StreamSettings()) if step == "send" else act())
        died = trouble in {Trouble.DIE, Trouble.DIE_AFTER}
        assert (await source.run_state() is RunState.STOPPED) == died

    assert tell(story).troubles == []


@pytest.mark.parametrize("step", ["stream-device", "stream-load"])
def test_a_stream_that_breaks_at_switchover_gives_the_vm_back(step: str) -> None:
    async def story(world: World, base: Path) -> None:
        source, _ = await at_switchover(world, base)
        world.trouble(step, Trouble.FAIL)
        await source.switch_over()
        assert [state async for state in source.stream_states()][-1] is StreamState.FAILED
        assert world.running("tiny") == ["a"]

    assert tell(story).violations == []


def test_a_stalled_step_waits_until_the_test_lets_it_go_on() -> None:
    async def story(world: World, base: Path) -> None:
        source, _ = await at_switchover(world, base)
        world.trouble("switch_over", Trouble.STALL)
        stalled = asyncio.create_task(source.switch_over())
        await asyncio.sleep(0.05)
        assert not stalled.done()
        world.go_on.set()
        await stalled

    tell(story)


def test_a_hook_sees_every_step_and_may_stop_it() -> None:
    async def story(world: World, base: Path) -> None:
        async def crash(host: str, step: str) -> None:
            if step == "pause":
                raise RuntimeError("the daemon died here")

        world.before = crash
        machine = await FakeHypervisor("a", world).start(VM, Place(base / "a", None), incoming=False)
        with pytest.raises(RuntimeError):
            await machine.pause()
        assert await machine.run_state() is RunState.RUNNING

    assert tell(story).steps == [("a", "start"), ("a", "pause"), ("a", "run_state")]
