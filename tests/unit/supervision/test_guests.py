"""Starting, stopping, adopting and finding VMs again, over a machine in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fakes.guests_boots import FakeAppraiser
from fakes.guests_world import FakeHypervisor, FakeMachine, FakeVtpmAgent, World, until
from fakes.journal import Disk, MemoryJournal
from korora.errors import KororaError, QuestionError, RefusedError, ToolError, UsageError
from korora.model.definition import parse_definition
from korora.model.identity import HostName, VmName
from korora.model.vm import RunState
from korora.ports.clock import SystemClock
from korora.ports.hypervisor import Place
from korora.supervision import recovery
from korora.supervision.guests import Guests
from korora.supervision.watch import Watches

WEB = 'name = "web"\nmemory = "64M"\n'
BARE = 'name = "bare"\nmemory = "64M"\n[vtpm]\nenabled = false\n'


class Site:
    """One host whose daemon can be restarted over the same disk and the same processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.world = World()
        self.disk = Disk()

    def daemon(self) -> Guests:
        clock = SystemClock()
        return Guests(
            FakeHypervisor(self.world),
            FakeVtpmAgent(self.world),
            MemoryJournal(self.disk),
            self.folder / "vms",
            appraiser=FakeAppraiser(),
            clock=clock,
            watches=Watches(FakeAppraiser(), clock, self.world.wait_for_end, poll_s=0.01),
        )

    def rewrite(self, name: str, **changes: Any) -> None:
        self.disk.vms[VmName(name)] = replace(self.disk.vms[VmName(name)], **changes)


Story = Callable[[Site, Guests], Coroutine[Any, Any, None]]


@pytest.fixture
def tell(tmp_path: Path) -> Callable[[Story], None]:
    """Run a story against a fresh host, and let go of it afterwards."""

    def told(story: Story) -> None:
        async def whole() -> None:
            site = Site(tmp_path)
            guests = site.daemon()
            try:
                await asyncio.wait_for(story(site, guests), 60)
            finally:
                await guests.close()

        asyncio.run(whole())

    return told


async def kind_of(work: Coroutine[Any, Any, Any]) -> str:
    with pytest.raises(KororaError) as caught:
        await work
    return caught.value.kind


def test_a_fresh_vm_begins_as_owner_of_epoch_one_and_runs(tell: Callable[[Story], None]) -> None:
    async def story(site: Site, guests: Guests) -> None:
        live = await guests.run(WEB)
        record = site.disk.vms[VmName("web")]
        assert (record.ownership, record.epoch, record.definition) == ("owner", 1, WEB)
        assert live.place.vtpm_socket == live.place.directory / "vtpm.sock"
        assert live.place.directory.stat().st_mode & 0o777 == 0o700
        status = await guests.status("web")
        assert (status.state, status.pid, status.owned) == (RunState.RUNNING, live.machine.pid, True)
        assert guests.live("web") is live

    tell(story)


def test_an_unknown_vm_is_answered_with_the_known_ones(tell: Callable[[Story], None]) -> None:
    async def story(site: Site, guests: Guests) -> None:
        await guests.define(WEB)
        with pytest.raises(UsageError) as caught:
            guests.live("wbe")
        assert caught.value.kind == "unknown-vm"
        assert "web" in caught.value.remedy

    tell(story)


def test_a_vm_that_is_not_running_is_refused_where_a_live_one_is_needed(
    tell: Callable[[Story], None],
) -> None:
    async def story(site: Site, guests: Guests) -> None:
        await guests.define(WEB)
        with pytest.raises(RefusedError) as caught:
            guests.live("web")
        assert caught.value.kind == "not-running"
        assert await kind_of(guests.stop("web")) == "not-running"

    tell(story)


@pytest.mark.parametrize(
    "ownership", ["offered", "starting", "released", "loaded", "wiped", "anything-else", ""]
)
def test_a_vm_that_is_not_owned_is_never_started(tell: Callable[[Story], None], ownership: str) -> None:
    async def story(site: Site, guests: Guests) -> None:
        await guests.define(WEB)
        site.rewrite("web", ownership=ownership, peer=HostName("b"))
        with pytest.raises(RefusedError) as caught:
            await guests.start("web")
        assert caught.value.kind == "not-owner"
        assert caught.value.vm_runs_on == "b"
        assert await kind_of(guests.define(WEB)) == "not-owner"
        assert site.world.told == []

    tell(story)


@pytest.mark.parametrize("ownership", ["in-doubt", "orphaned", "fenced"])
def test_a_vm_that_waits_for_a_persons_decision_is_a_question_and_not_touched(
    tell: Callable[[Story], None], ownership: str
) -> None:
    async def story(site: Site, guests: Guests) -> None:
        await guests.define(WEB)
        site.rewrite("web", ownership=ownership, peer=HostName("b"))
        for refused in (guests.start("web"), guests.stop("web", force=True), guests.define(WEB)):
            with pytest.raises(QuestionError) as caught:
                await refused
            assert (caught.value.kind, caught.value.exit_code) == ("undecided", 4)
            assert "host b" in caught.value.remedy
        assert site.world.told == []

    tell(story)


def test_a_vm_of_which_only_the_epoch_is_remembered_is_unknown_and_not_begun_anew(
    tell: Callable[[Story], None],
) -> None:
    async def story(site: Site, guests: Guests) -> None:
        await guests.define(WEB)
        site.rewrite("web", ownership="absent", epoch=3)
        assert await guests.statuses() == []
        assert await kind_of(guests.status("web")) == "unknown-vm"
        assert await kind_of(guests.run(WEB)) == "not-owner"

    tell(story)


def test_a_vm_that_runs_is_not_started_or_changed_again(tell: Callable[[Story], None]) -> None:
    async def story(site: Site, guests: Guests) -> None:
        await guests.run(WEB)
        assert await kind_of(guests.start("web")) == "running"
        assert await kind_of(guests.define(WEB)) == "running"
        assert await kind_of(guests.run(WEB)) == "running"
        assert site.world.of("web")

    tell(story)


def test_two_starts_at_one_time_make_one_vm(tell: Callable[[Story], None]) -> None:
    async def story(site: Site, guests: Guests) -> None:
        await guests.define(WEB)
        results = await asyncio.gather(guests.start("web"), guests.start("web"), return_exceptions=True)
        assert sum(isinstance(result, RefusedError) for result in results) == 1
        assert len(site.world.processes) == 1

    tell(story)


def test_a_start_that_fails_leaves_no_vtpm_and_no_new_record(tell: Callable[[Story], None]) -> None:
    async def story(site: Site, guests: Guests) -> None:
        site.world.start_fails = True
        with pytest.raises(ToolError):
            await guests.run(WEB)
        assert site.disk.vms == {}
        assert site.world.vtpms == {}
        assert list((site.folder / "vms").iterdir()) == []

    tell(story)


def test_a_changed_definition_whose_start_fails_is_not_kept(tell: Callable[[Story], None]) -> None:
    async def story(site: Site, guests: Guests) -> None:
        await guests.define(WEB)
        site.world.start_fails = True
        with pytest.raises(ToolError):
            await guests.run(WEB.replace("64M", "128M"))
        assert site.disk.vms[VmName("web")].definition == WEB
        assert "vtpm-wiped web" not in site.world.told

    tell(story)


def test_a_guest_that_does_not_shut_down_runs_on(tell: Callable[[Story], None]) -> None:
    async def story(site: Site, guests: Guests) -> None:
        await guests.run(WEB)
        site.world.of("web").deaf = True
        assert await kind_of(guests.stop("web")) == "did-not-stop"
        assert (await guests.status("web")).state is RunState.RUNNING
        await guests.stop("web", force=True)
        assert (await guests.status("web")).state is RunState.STOPPED

    tell(story)


@pytest.mark.parametrize("force", [False, True])
def test_a_stopped_vm_leaves_its_vtpm_at_rest_and_a_reason(
    tell: Callable[[Story], None], force: bool
) -> None:
    async def story(site: Site, guests: Guests) -> None:
        await guests.run(WEB)
        await guests.stop("web", force=force)
        assert site.world.told[-1] == "vtpm-stopped web"
        assert site.world.told.count("vtpm-stopped web") == 1
        status = await guests.status("web")
        assert status.state is RunState.STOPPED
        assert status.life is not None
        assert "by request" in status.life.reason
        await guests.start("web")

    tell(story)


def test_a_qemu_that_dies_is_noticed_and_recorded(tell: Callable[[Story], None]) -> None:
    async def story(site: Site, guests: Guests) -> None:
        await guests.run(WEB)
        site.world.of("web").die()
        await until(lambda: "vtpm-stopped web" in site.world.told)
        status = await guests.status("web")
        assert status.state is RunState.STOPPED
        assert status.life is not None
        assert not status.life.running
        assert "without being asked" in status.life.reason
        assert site.disk.vms[VmName("web")].ownership == "owner"

    tell(story)


def test_a_restarted_daemon_finds_what_runs(tell: Callable[[Story], None]) -> None:
    async def story(site: Site, first: Guests) -> None:
        await first.run(WEB)
        await first.run(BARE)
        await first.close()
        second = site.daemon()
        await second.recover()
        assert (await second.status("web")).state is RunState.RUNNING
        assert second.live("web").vtpm is not None
        assert second.live("bare").vtpm is None
        assert not second.live("bare").vtpm_lost
        site.world.of("web").die()
        await until(lambda: "vtpm-stopped web" in site.world.told)
        await second.close()

    tell(story)


def test_a_restarted_daemon_notices_what_died_meanwhile_and_starts_nothing(
    tell: Callable[[Story], None],
) -> None:
    async def story(site: Site, first: Guests) -> None:
        await first.run(WEB)
        await first.close()
        site.world.of("web").die()
        before = len(site.world.processes)
        second = site.daemon()
        await second.recover()
        status = await second.status("web")
        assert status.state is RunState.STOPPED
        assert status.life is not None
        assert "while the daemon was not running" in status.life.reason
        assert site.world.told[-1] == "vtpm-stopped web"
        assert len(site.world.processes) == before
        await second.close()

    tell(story)


def test_what_a_vm_wrote_elsewhere_is_told_until_it_is_in_its_disks_but_not_while_it_moves(
    tell: Callable[[Story], None],
) -> None:
    async def story(site: Site, guests: Guests) -> None:
        async def told(name: str) -> tuple[str, ...]:
            return (await guests.status(name)).not_in_disks

        await guests.run(WEB)
        await guests.run(BARE)
        assert await told("web") == ()
        site.world.aside = ("/srv/korora-web-data.qcow2",)
        assert (await told("web"), await told("bare")) == (site.world.aside, ())
        guests.begin_move("web")
        assert await told("web") == ()
        await guests.end_move("web")
        assert await told("web") == site.world.aside
        await guests.stop("web", force=True)
        assert await told("web") == site.world.aside
        site.world.aside = ()
        assert await told("web") == ()
        assert (await guests.status("web")).disks_trouble is None
        site.world.record_lost = True
        trouble = (await guests.status("web")).disks_trouble
        assert trouble is not None
        assert (trouble.message, trouble.remedy) == ("the record cannot be read", "restore it")
        assert len(await guests.statuses()) == 2

    tell(story)


def test_a_vm_whose_vtpm_was_lost_is_found_and_said_so(tell: Callable[[Story], None]) -> None:
    async def story(site: Site, first: Guests) -> None:
        await first.run(WEB)
        await first.close()
        site.world.vtpms.clear()
        second = site.daemon()
        await second.recover()
        assert second.live("web").vtpm_lost
        assert (await second.status("web")).vtpm_lost
        await second.close()

    tell(story)


def test_the_remains_of_an_unsettled_hand_over_are_found_and_not_touched(
    tell: Callable[[Story], None],
) -> None:
    async def story(site: Site, first: Guests) -> None:
        live = await first.run(WEB)
        await live.machine.pause()
        await first.close()
        site.rewrite("web", ownership="released", epoch=2, peer=HostName("b"))
        second = site.daemon()
        await second.recover()
        assert (await second.status("web")).state is RunState.PAUSED
        assert await kind_of(second.stop("web", force=True)) == "not-owner"
        site.world.of("web").die()
        await until(lambda: second.counts()["running"] == 0)
        assert "vtpm-stopped web" not in site.world.told
        await second.close()

    tell(story)


def test_one_vm_in_trouble_does_not_hide_the_others(tell: Callable[[Story], None]) -> None:
    async def story(site: Site, first: Guests) -> None:
        await first.define(BARE)
        await first.run(WEB)
        await first.close()
        site.rewrite("bare", definition="not = [a definition")
        second = site.daemon()
        await second.recover()
        assert second.live("web")
        statuses = await second.statuses()
        assert [(status.record.name, status.definition is None) for status in statuses] == [
            ("bare", True),
            ("web", False),
        ]
        await second.close()

    tell(story)


def test_a_process_that_answers_nobody_is_neither_called_stopped_nor_doubled(
    tell: Callable[[Story], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "RETRY_S", 0.001)
    monkeypatch.setattr(recovery, "LATER_RETRY_S", 0.01)

    async def story(site: Site, first: Guests) -> None:
        await first.run(WEB)
        await first.close()
        process = site.world.of("web")
        process.hung = True
        second = site.daemon()
        await second.recover()
        assert (await second.status("web")).state is None
        assert second.unclear("web")
        assert await kind_of(second.start("web")) == "unresponsive"
        assert await kind_of(second.stop("web", force=True)) == "unresponsive"
        assert await kind_of(second.define(WEB)) == "unresponsive"
        with pytest.raises(ToolError):
            second.begin_move("web")
        assert len(site.world.processes) == 1
        process.hung = False
        await until(lambda: second.counts()["running"] == 1)
        assert second.live("web").machine.pid == process.pid
        await second.stop("web")
        await second.close()

    tell(story)


def test_a_process_that_answered_nobody_and_then_died_is_recorded_as_stopped(
    tell: Callable[[Story], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "RETRY_S", 0.001)
    monkeypatch.setattr(recovery, "LATER_RETRY_S", 0.01)

    async def story(site: Site, first: Guests) -> None:
        await first.run(WEB)
        await first.close()
        site.world.of("web").hung = True
        second = site.daemon()
        await second.recover()
        site.world.of("web").die()
        await until(lambda: "vtpm-stopped web" in site.world.told)
        assert (await second.status("web")).state is RunState.STOPPED
        await second.start("web")
        await second.close()

    tell(story)


def test_a_moving_vm_is_locked(tell: Callable[[Story], None]) -> None:
    async def story(site: Site, guests: Guests) -> None:
        await guests.run(WEB)
        guests.begin_move("web")
        assert await kind_of(guests.stop("web", force=True)) == "moving"
        assert await kind_of(guests.start("web")) == "moving"
        assert await kind_of(guests.define(WEB)) == "moving"
        with pytest.raises(RefusedError) as caught:
            guests.begin_move("web")
        assert caught.value.kind == "moving"
        assert (await guests.status("web")).moving
        await guests.end_move("web")
        await guests.end_move("web")
        await guests.stop("web")

    tell(story)


def test_a_vm_that_is_being_started_does_not_move(tell: Callable[[Story], None]) -> None:
    async def story(site: Site, guests: Guests) -> None:
        site.world.go_on = asyncio.Event()
        starting = asyncio.create_task(guests.run(WEB))
        await until(lambda: "vtpm web" in site.world.told)
        with pytest.raises(RefusedError) as caught:
            guests.begin_move("web")
        assert caught.value.kind == "busy"
        site.world.go_on.set()
        await starting

    tell(story)


def test_a_process_that_ends_while_it_moves_is_judged_after_the_move(tell: Callable[[Story], None]) -> None:
    async def story(site: Site, guests: Guests) -> None:
        await guests.run(WEB)
        guests.begin_move("web")
        site.world.of("web").die()
        await asyncio.sleep(0.05)
        assert "vtpm-stopped web" not in site.world.told
        assert guests.live("web")
        await guests.end_move("web")
        assert site.world.told[-1] == "vtpm-stopped web"
        assert (await guests.status("web")).state is RunState.STOPPED

    tell(story)


def test_a_released_vm_is_elsewhere(tell: Callable[[Story], None]) -> None:
    async def story(site: Site, guests: Guests) -> None:
        live = await guests.run(WEB)
        guests.begin_move("web")
        site.rewrite("web", ownership="wiped", epoch=2, peer=HostName("b"))
        await guests.release("web")
        assert isinstance(live.machine, FakeMachine)
        assert not live.machine.closed  # the migration still has to end it
        await live.machine.quit()
        await guests.end_move("web")
        with pytest.raises(RefusedError) as caught:
            guests.live("web")
        assert caught.value.vm_runs_on == "b"
        assert "vtpm-stopped web" not in site.world.told

    tell(story)


def test_an_arriving_vm_is_admitted_only_at_the_epoch_this_host_owns(tell: Callable[[Story], None]) -> None:
    async def story(site: Site, guests: Guests) -> None:
        definition = parse_definition(BARE)
        await guests.define(BARE)
        place = Place(guests.directory("bare"), None)
        machine = await FakeHypervisor(site.world).start(definition, place, incoming=True)
        site.rewrite("bare", ownership="loaded", epoch=2)
        with pytest.raises(RefusedError):
            guests.admit(definition, machine, None, place, 2)
        site.rewrite("bare", ownership="owner", epoch=2)
        with pytest.raises(RefusedError):
            guests.admit(definition, machine, None, place, 3)
        assert guests.admit(definition, machine, None, place, 2) is guests.live("bare")
        await guests.stop("bare")

    tell(story)


def test_an_adopted_qemu_is_supervised_and_found_again(tell: Callable[[Story], None]) -> None:
    async def story(site: Site, first: Guests) -> None:
        foreign = site.world.spawn(parse_definition(BARE), Path("/run/other/qmp.sock"))
        live = await first.adopt(foreign.qmp, "theirs")
        assert live.definition.adopted
        assert live.definition.name == "theirs"
        assert await kind_of(first.adopt(foreign.qmp, "again")) == "adopted-already"
        await first.close()
        second = site.daemon()
        await second.recover()
        assert second.live("theirs").machine.pid == foreign.pid
        await second.stop("theirs")
        assert await kind_of(second.start("theirs")) == "adopted"
        assert site.world.told == []
        await second.close()

    tell(story)


def test_an_adopted_qemu_does_not_take_the_name_of_a_vm_of_ours(tell: Callable[[Story], None]) -> None:
    async def story(site: Site, guests: Guests) -> None:
        await guests.define(WEB)
        foreign = site.world.spawn(parse_definition(BARE), Path("/run/other/qmp.sock"))
        assert await kind_of(guests.adopt(foreign.qmp, "web")) == "name-taken"
        assert await kind_of(guests.adopt(foreign.qmp, "../web")) == "bad-name"
        assert await kind_of(guests.adopt(Path("/nowhere"))) == "qmp"
        assert not foreign.ended.is_set()

    tell(story)


def test_an_adopted_vm_that_moved_away_is_not_adopted_from_its_remains(tell: Callable[[Story], None]) -> None:
    async def story(site: Site, guests: Guests) -> None:
        foreign = site.world.spawn(parse_definition(BARE), Path("/run/other/qmp.sock"))
        await guests.adopt(foreign.qmp)
        await guests.release("bare")
        site.rewrite("bare", ownership="released", epoch=2, peer=HostName("b"))
        assert await kind_of(guests.adopt(foreign.qmp)) == "not-owner"

    tell(story)


def test_nobody_hands_in_a_definition_marked_as_adopted(tell: Callable[[Story], None]) -> None:
    async def story(site: Site, guests: Guests) -> None:
        assert await kind_of(guests.run("adopted = true\n" + WEB)) == "bad-definition"
        assert site.disk.vms == {}

    tell(story)
