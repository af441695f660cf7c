"""Open hand-overs brought to their end: silence, lies, and machines of which nothing can be told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from fakes.faults import Fault
from fakes.hypervisor import Trouble
from fakes.journal import MemoryJournal
from fakes.migration_site import VM, HostKey, Site, Tell, receipts_in
from korora.errors import PeerError, ToolError
from korora.migration.recovery.settling import Settling
from korora.migration.recovery.standing import Standing
from korora.model.identity import HostName, SessionId
from korora.model.ownership import Do, Event, On, Status
from korora.model.vm import RunState
from korora.ports.journal import VmRecord
from korora.protocol import dsse, messages, statements
from korora.protocol.messages import decode, encode

SESSION = SessionId("ab" * 64)


async def _until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def _status(site: Site, host: str) -> Status:
    (one,) = site.standings_of(site[host])
    return one.status


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Status]:
    """The standing of each VM about which a person was asked."""
    questions: list[Status] = []
    ask = Settling._ask

    async def asks(settling: Settling) -> None:
        questions.append(settling.status)
        await ask(settling)

    monkeypatch.setattr(Settling, "_ask", asks)
    return questions


# -- silence --------------------------------------------------------------------------------------------


def test_two_hosts_that_ask_each_other_at_once_do_not_wait_for_each_other(tell: Tell) -> None:
    async def story(site: Site) -> None:
        site.plan.deeds["b:hear Release#1"] = site.part
        assert (await site.migrate("a", "b"))["outcome"] == "in-doubt"
        await asyncio.wait_for(site.recover(), 30)
        site.runs_only_on("b")

    tell(story)


def test_a_release_that_arrives_late_still_completes_without_a_common_receipt(tell: Tell) -> None:
    async def story(site: Site) -> None:
        await site.settle_patiently()
        site.plan.faults["a:say Release#1"] = Fault.FAIL
        outcome = await site.migrate("a", "b")
        assert (outcome["outcome"], outcome["receipt"]) == ("completed", None)
        assert any("receipt" in limit for limit in outcome["limits"])
        await site.recover()
        site.runs_only_on("b")

    tell(story)


def test_after_long_silence_both_hosts_ask_a_person_and_still_settle(tell: Tell) -> None:
    async def story(site: Site) -> None:
        site.settle_hastily()
        for host in site.hosts.values():
            await host.crash()
            await host.start()
        site.plan.deeds["a:say Release#1"] = site.part
        assert (await site.migrate("a", "b"))["outcome"] == "in-doubt"
        await _until(lambda: _status(site, "a") is Status.IN_DOUBT and _status(site, "b") is Status.ORPHANED)
        assert site.world.running(VM) == []
        outcome = await site.migrate("a", "b")
        assert (outcome["outcome"], outcome["error"]["kind"]) == ("refused", "undecided")
        assert (outcome["error"]["exit_code"], outcome["error"]["vm_runs_on"]) == (4, None)
        await site.recover()
        site.runs_only_on("b")

    tell(story)


def test_a_source_that_lost_an_offered_vm_asks_a_person_when_its_destination_stays_silent(
    tell: Tell, asked: list[Status]
) -> None:
    async def story(site: Site) -> None:
        site.settle_hastily()
        site.plan.faults["a:hear Accept#1"] = Fault.CRASH
        await site.migrate("a", "b")
        await site["a"].crash()
        next(guest for guest in site.world.living(VM) if guest.host == "a").die()
        site.part()
        await site["a"].start()
        await _until(lambda: asked.count(Status.OFFERED) > 1)  # and again, while it lasts
        assert _status(site, "a") is Status.OFFERED
        await site.recover()
        site.runs_only_on("b")

    tell(story)


def test_a_destination_that_declined_asks_a_person_when_its_source_stays_silent(
    tell: Tell, asked: list[Status]
) -> None:
    async def story(site: Site) -> None:
        site.settle_hastily()
        await site["b"].crash()
        await site["b"].start()
        site.world.trouble("resume", Trouble.FAIL, "b")
        site.plan.deeds["b:say Decline#1"] = site.part
        assert (await site.migrate("a", "b"))["outcome"] == "in-doubt"
        await _until(lambda: asked.count(Status.DECLINED) > 1)
        await site.recover()
        site.runs_only_on("a")

    tell(story)


@pytest.mark.parametrize("point", ["b:hear Release#1", "b:say Accept#1", "b:say Running#1"])
def test_a_destination_that_fell_silent_is_heard_again_on_a_new_connection(tell: Tell, point: str) -> None:
    """Its old connection looks alive at the source, which waits in it for minutes."""

    async def story(site: Site) -> None:
        site["b"].dies_unheard = True
        site.plan.faults[point] = Fault.CRASH
        name = await site.begin("a", "b")
        await _until(lambda: not site["b"].up)
        await site["b"].crash()
        await site["b"].start()
        outcome = await site.follow("a", name)
        await site.recover()
        site.runs_only_on(site.owner())
        assert (outcome["error"] or {}).get("vm_runs_on") in {None, site.owner()}

    tell(story)


# -- what cannot be told --------------------------------------------------------------------------------


@pytest.mark.parametrize(("host", "point"), [("b", "b:hear Release#1"), ("a", "a:say Release#1")])
def test_a_vm_that_does_not_answer_is_not_taken_for_lost(tell: Tell, host: str, point: str) -> None:
    async def story(site: Site) -> None:
        site.plan.faults[point] = Fault.CRASH
        await site.migrate("a", "b")
        await site[host].crash()
        for _ in range(30):
            site.world.trouble("attach", Trouble.FAIL, host)
        await site[host].start()
        assert site[host].guests.unclear(VM)
        before = site.standings()
        await asyncio.sleep(0.05)
        assert Status.DECLINED not in {one.status for one in site.standings()}
        assert Status.ABSENT not in {one.status for one in before}
        await site.recover()
        site.runs_only_on("b")

    tell(story)


def test_a_source_that_came_back_in_offered_without_its_process_asks_for_accept(tell: Tell) -> None:
    async def story(site: Site) -> None:
        site.plan.faults["a:hear Accept#1"] = Fault.CRASH
        await site.migrate("a", "b")
        await site["a"].crash()
        next(guest for guest in site.world.living(VM) if guest.host == "a").die()
        await site.recover()
        site.runs_only_on("b")

    tell(story)


def test_an_offer_that_nobody_accepted_of_a_vm_that_died_is_the_sources_to_start_again(tell: Tell) -> None:
    async def story(site: Site) -> None:
        site.plan.faults["a:say Manifest#1"] = Fault.CRASH
        await site.migrate("a", "b")
        await site["a"].crash()
        next(guest for guest in site.world.living(VM) if guest.host == "a").die()
        await site.recover()
        assert site.owner() == "a"
        assert not site.world.living(VM)
        site.holds_only("a")

    tell(story)


def test_a_stopped_vm_survives_both_daemons_at_the_release(tell: Tell) -> None:
    async def story(site: Site) -> None:
        from korora.model.plan import Mode

        await site["a"].do(lambda: site["a"].guests.stop(VM, force=True))
        site.plan.faults["a:say Release#1"] = Fault.CRASH
        await site.migrate("a", "b", Mode.OFFLINE)
        for host in site.hosts.values():
            await host.crash()
        await site.recover()
        site.rests_only_on("b")

    tell(story)


# -- lies -----------------------------------------------------------------------------------------------


def _resigned(envelope: bytes, kind: Any, host: str, **changed: Any) -> bytes:
    said = statements.opened(envelope, kind, HostKey(host).public)
    return statements.signed(msgspec.structs.replace(said, **changed), HostKey(host))


def _lying(kind: type[messages.Message], lie: Callable[[Any], Any]) -> Callable[[bytes], bytes]:
    def change(body: bytes) -> bytes:
        message = decode(body)
        return encode(lie(message)) if isinstance(message, kind) else body

    return change


def _other_roots(message: messages.Accept) -> messages.Accept:
    said = statements.opened(message.envelope, statements.Accept, HostKey("b").public)
    carried = replace(said.carried, payload_bytes=said.carried.payload_bytes + 1)
    return messages.Accept(_resigned(message.envelope, statements.Accept, "b", carried=carried))


def test_a_destination_that_saw_something_else_gets_no_release(tell: Tell) -> None:
    async def story(site: Site) -> None:
        site["b"].change = _lying(messages.Accept, _other_roots)
        outcome = await site.migrate("a", "b")
        assert outcome["error"]["kind"] == "evidence-differs"
        assert outcome["error"]["vm_runs_on"] == "a"
        await site.recover()
        site.runs_only_on("a")

    tell(story)


def test_nor_does_it_when_it_is_asked_again_in_recovery(tell: Tell) -> None:
    async def story(site: Site) -> None:
        site.plan.faults["a:hear Accept#1"] = Fault.CRASH
        await site.migrate("a", "b")
        await site["a"].crash()
        next(guest for guest in site.world.living(VM) if guest.host == "a").die()
        site["b"].change = _lying(messages.Accept, _other_roots)
        await site["a"].start()
        await asyncio.sleep(0.1)
        assert _status(site, "a") is Status.OFFERED
        assert site.world.running(VM) == []

    tell(story)


def test_a_manifest_of_something_else_is_not_accepted(tell: Tell) -> None:
    def lie(message: messages.Manifest) -> messages.Manifest:
        said = statements.opened(message.envelope, statements.Manifest, HostKey("a").public)
        carried = replace(said.carried, blobs=None)
        return messages.Manifest(_resigned(message.envelope, statements.Manifest, "a", carried=carried))

    async def story(site: Site) -> None:
        site["a"].change = _lying(messages.Manifest, lie)
        outcome = await site.migrate("a", "b")
        assert outcome["error"]["kind"] == "evidence-differs"
        await site.recover()
        site.runs_only_on("a")

    tell(story)


def test_running_that_another_host_signed_is_not_believed(tell: Tell) -> None:
    def lie(message: messages.Running) -> messages.Running:
        payload = dsse.parse(message.envelope).payload
        return messages.Running(dsse.envelope(statements.Running.TYPE, payload, [HostKey("c")]))

    async def story(site: Site) -> None:
        site["b"].change = _lying(messages.Running, lie)
        outcome = await site.migrate("a", "b")
        assert outcome["outcome"] == "in-doubt"
        assert _status(site, "a") is Status.RELEASED
        assert site.guest_state("a") is not RunState.RUNNING
        site["b"].change = None
        await site.recover()
        site.runs_only_on("b")

    tell(story)


def test_a_receipt_that_tells_another_story_is_not_countersigned(tell: Tell) -> None:
    def lie(message: messages.ReceiptDraft) -> messages.ReceiptDraft:
        from korora.protocol.receipt import document

        told = document.opened(message.envelope, [HostKey("a").public])
        return messages.ReceiptDraft(document.signed(msgspec.structs.replace(told, epoch=9), HostKey("a")))

    async def story(site: Site) -> None:
        site["a"].change = _lying(messages.ReceiptDraft, lie)
        outcome = await site.migrate("a", "b")
        assert outcome["error"]["kind"] == "receipt-differs"
        assert outcome["error"]["vm_runs_on"] == "b"
        await site.recover()
        site.runs_only_on("b")
        assert [receipts_in(host.disk.leaves) for host in site.hosts.values()] == [[], []]

    tell(story)


def test_a_stranger_learns_and_changes_nothing_about_anothers_session(tell: Tell) -> None:
    async def story(site: Site) -> None:
        site.plan.deeds["a:say Release#1"] = site.part
        outcome = await site.migrate("a", "b")
        site.parted = {frozenset("ab")}
        channel = await site["c"].do(lambda: site["c"].setting.dial(HostName("a"), "address of a"))
        await site["c"].do(lambda: channel.send(encode(messages.Query(outcome["session"]))))
        answer = decode(await site["c"].do(lambda: channel.receive(5)))
        assert isinstance(answer, messages.Abort)
        assert answer.kind == "unknown-session"
        await site.recover()
        site.runs_only_on("b")

    tell(story, hosts="abc")


# -- the journal ----------------------------------------------------------------------------------------


class BrokenJournal(MemoryJournal):
    def write_vm(self, record: VmRecord) -> None:
        raise ToolError("no space left on the device", kind="journal")


def _offered() -> MemoryJournal:
    journal = MemoryJournal()
    journal.write_vm(VmRecord(VM, "", Status.OFFERED, 1, SESSION, HostName("b")))
    return journal


async def _nothing() -> None:
    """A hand that does its work."""


async def _broken() -> None:
    raise PeerError("the connection is gone")


def test_what_was_not_journalled_is_not_believed() -> None:
    standing = Standing(BrokenJournal(_offered().disk), VM, copy=True)
    accept = Event(On.ACCEPT, SESSION, epoch=2)
    with pytest.raises(ToolError):
        asyncio.run(standing.on(accept, {Do.SEND_RELEASE: _nothing}))
    assert standing.state.status is Status.OFFERED
    assert standing.state.owns


def test_what_was_journalled_stands_though_the_hand_after_it_failed() -> None:
    journal = _offered()
    standing = Standing(journal, VM, copy=True)
    with pytest.raises(PeerError):
        asyncio.run(standing.on(Event(On.ACCEPT, SESSION, epoch=2), {Do.SEND_RELEASE: _broken}))
    assert standing.state.status is Status.RELEASED
    assert journal.disk.vms[VM].ownership == Status.RELEASED


def test_an_event_without_a_place_changes_nothing() -> None:
    journal = _offered()
    standing = Standing(journal, VM, copy=True)
    before = replace(journal.disk.vms[VM])
    with pytest.raises(PeerError):
        asyncio.run(standing.on(Event(On.RELEASE, SESSION, epoch=2), {}))
    assert journal.disk.vms[VM] == before


def test_a_socket_that_a_killed_daemon_left_is_gone_after_its_restart(tell: Tell) -> None:
    async def story(site: Site) -> None:
        left = site["a"].directory / "vms" / VM / "out.sock"
        left.write_bytes(b"")
        await site["a"].crash()
        await site.recover()
        assert not left.exists()
        site.runs_only_on("a")

    tell(story)
