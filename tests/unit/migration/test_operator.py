"""What an operator orders, cancels or repeats, and what becomes of it on both hosts."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from fakes.faults import Fault
from fakes.migration_site import PATIENCE_S, VM, Site, Tell
from korora.errors import RefusedError
from korora.migration.greeting.conversation import Conversation
from korora.model.identity import OperatorName
from korora.model.plan import Mode


def test_a_cancel_at_any_point_leaves_the_vm_here_or_comes_too_late(tell: Tell) -> None:
    points: list[str] = []

    async def record(site: Site) -> None:
        await site.migrate("a", "b")
        await site.recover()
        points.extend(point for point in site.plan.passed if point.startswith("a:"))

    tell(record)

    for point in points[::2]:

        async def story(site: Site, point: str = point) -> None:
            async def cancel() -> None:
                (only,) = site["a"].migrations.list()
                await site["a"].migrations.cancel(only["id"])

            site.plan.deeds[point] = lambda: site.loop.call_soon_threadsafe(lambda: site.spawn(cancel()))
            outcome = await site.migrate("a", "b")
            await site.recover()
            site.runs_only_on("b" if outcome["outcome"] == "completed" else "a")
            assert outcome["outcome"] in {"completed", "cancelled"}, (point, outcome)

        tell(story)


@pytest.mark.parametrize(
    "point", ["a:machine.cancel_stream#1", "a:machine.run_state#2", "a:machine.resume#1"]
)
def test_a_second_cancel_while_the_first_is_undone_leaves_nothing_half_undone(tell: Tell, point: str) -> None:
    async def story(site: Site) -> None:
        async def cancel() -> None:
            (only,) = site["a"].migrations.list()
            await site["a"].migrations.cancel(only["id"])

        def soon() -> None:
            site.loop.call_soon_threadsafe(lambda: site.spawn(cancel()))

        site.plan.deeds |= {"a:machine.switch_over#1": soon, point: soon}
        outcome = await site.migrate("a", "b", Mode.OFFLINE)
        assert point in site.plan.passed
        assert outcome["outcome"] == "cancelled"
        await site.recover()
        site.runs_only_on("a")

    tell(story)


def test_the_stream_is_undone_while_a_peer_does_not_take_the_farewell(
    tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(site: Site) -> None:
        undone = asyncio.Event()

        async def abort(_talk: Conversation, _error: BaseException) -> None:
            await asyncio.wait_for(undone.wait(), PATIENCE_S)

        monkeypatch.setattr(Conversation, "abort", abort)
        site.plan.deeds["a:machine.cancel_stream#1"] = undone.set
        site.plan.faults["a:machine.switch_over#1"] = Fault.FAIL
        outcome = await site.migrate("a", "b")
        assert outcome["error"]["kind"] == "fault"
        await site.recover()
        site.runs_only_on("a")

    tell(story)


def test_an_offered_guest_runs_again_before_the_peer_is_told(tell: Tell) -> None:
    async def story(site: Site) -> None:
        site.plan.faults["b:say Accept#1"] = Fault.FAIL
        assert (await site.migrate("a", "b"))["outcome"] != "completed"
        passed = site.plan.passed
        assert passed.index("a:machine.resume#1") < passed.index("a:say Closed#1")
        await site.recover()
        site.runs_only_on("a")

    tell(story)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"not_after": int(time.time()) - 5, "issued_at": int(time.time()) - 60}, "expired-request"),
        ({"issued_at": int(time.time()) + 3600, "not_after": int(time.time()) + 3700}, "bad-validity"),
        ({"not_after": int(time.time()) + 10**6}, "bad-validity"),
        ({"operator": OperatorName("mallory")}, "unknown-operator"),
    ],
)
def test_a_request_that_is_no_good_is_refused_here(tell: Tell, change: dict[str, Any], kind: str) -> None:
    async def story(site: Site) -> None:
        outcome = await _ask(site, site.request("a", "b", **change))
        assert outcome["outcome"] == "refused"
        assert outcome["error"]["kind"] == kind
        site.runs_only_on("a")
        assert not any("say" in point for point in site.plan.passed)

    tell(story)


def test_a_request_for_another_source_is_not_even_begun(tell: Tell) -> None:
    async def story(site: Site) -> None:
        with pytest.raises(RefusedError) as refused:
            site["a"].migrations.begin(site.request("b", "a"), None)
        assert refused.value.kind == "request-mismatch"

    tell(story)


def test_a_request_is_good_once_on_either_host_also_after_a_restart(tell: Tell) -> None:
    async def story(site: Site) -> None:
        request = site.request("a", "b")
        assert (await _ask(site, request))["outcome"] == "completed"
        await site.recover()
        assert (await site.migrate("b", "a"))["outcome"] == "completed"
        await site.recover()
        for host in site.hosts.values():
            await host.crash()
        await site.recover()
        again = await _ask(site, request)
        assert again["error"]["kind"] == "replayed-request"
        site["a"].disk.nonces.clear()  # a source that plays along
        again = await _ask(site, request)
        assert again["error"]["kind"] == "replayed-request"
        await site.recover()
        site.runs_only_on("a")

    tell(story)


def test_a_vm_that_moves_cannot_move_elsewhere_meanwhile(tell: Tell) -> None:
    async def story(site: Site) -> None:
        one, two = await site.begin("a", "b"), await site.begin("a", "c")
        outcomes = [await site.follow("a", name) for name in (one, two)]
        assert sorted(outcome["outcome"] for outcome in outcomes) == ["completed", "refused"]
        refused = next(outcome for outcome in outcomes if outcome["outcome"] == "refused")
        assert refused["error"]["kind"] == "moving"
        await site.recover()
        site.runs_only_on("b" if outcomes[0]["outcome"] == "completed" else "c")

    tell(story, hosts="abc")


def test_a_vm_whose_hand_over_is_open_does_not_move_elsewhere(tell: Tell) -> None:
    async def story(site: Site) -> None:
        site.plan.deeds["a:say Release#1"] = site.part
        assert (await site.migrate("a", "b"))["outcome"] == "in-doubt"
        outcome = await site.migrate("a", "c")
        assert outcome["error"]["kind"] == "not-owner"
        assert not any(guest.host == "c" for guest in site.world.guests)
        await site.recover()
        site.runs_only_on("b")

    tell(story, hosts="abc")


def test_a_vm_that_is_unknown_or_stopped_is_refused_and_said_to_run_nowhere(tell: Tell) -> None:
    async def story(site: Site) -> None:
        outcome = await site.migrate("b", "a")
        assert (outcome["error"]["kind"], outcome["error"]["vm_runs_on"]) == ("unknown-vm", None)
        await site["a"].do(lambda: site["a"].guests.stop(VM, force=True))
        outcome = await site.migrate("a", "b")
        assert (outcome["error"]["kind"], outcome["error"]["vm_runs_on"]) == ("not-running", None)

    tell(story)


async def _ask(site: Site, request: bytes) -> dict[str, Any]:
    migrations = site["a"].migrations
    return await site.follow("a", await site["a"].do(lambda: migrations.begin(request, None)))
