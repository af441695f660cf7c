"""The rules are in force: nothing of a migration is done that they do not allow, and every answer is kept."""

from __future__ import annotations

from typing import Any

import pytest

from fakes.migration_site import VM, LabHost, Site, Tell, decisions_in
from korora.migration.phases import arrive, depart
from korora.model.identity import HostName, OperatorName, sha256
from korora.model.plan import Inquiry, Mode
from korora.policy.machine import monitor as reference
from korora.policy.machine.beginning import STEPS, beginning
from korora.policy.machine.language.vocabulary import Procedure
from korora.policy.machine.running.state import Facts
from korora.protocol.decision import PolicyDecision

LATER = {Procedure.APPROVE, Procedure.RECLAIM, Procedure.WITHDRAW}
"""Of these no phase is made."""
AT_SOURCE = [procedure for procedure in STEPS if procedure not in LATER]
AT_DESTINATION = ["challenge", "attest", "submit", "authorize", *AT_SOURCE[4:]]
AT_DESTINATION.remove(Procedure.WIPE)


def told(host: LabHost) -> list[PolicyDecision]:
    return decisions_in(host.disk.leaves)


def answers(host: LabHost) -> list[tuple[str, str]]:
    return [(one.procedure, one.answer) for one in told(host)]


class Under:
    """Notes which procedures are asked for, as phases are played."""

    def __init__(self) -> None:
        self.asked: list[Procedure] = []

    async def around(self, step: Any, *procedures: Procedure) -> None:
        self.asked += procedures


def test_every_phase_asks_for_what_it_is_made_of() -> None:
    import asyncio
    from unittest.mock import MagicMock

    for story, expected in ((depart, AT_SOURCE), (arrive, AT_DESTINATION)):
        under = Under()
        host = MagicMock(monitor=under, dry_run=False)

        async def tell(phase: Any, play: Any) -> None:
            await play()

        asyncio.run(story(host, tell))
        assert under.asked == expected
    assert {*AT_SOURCE, *AT_DESTINATION} == set(STEPS) - LATER


@pytest.mark.parametrize("mode", Mode)
def test_both_logs_tell_every_procedure_in_its_order(tell: Tell, mode: Mode) -> None:
    async def story(site: Site) -> None:
        envelope = site.request("a", "b", mode)
        migrations = site["a"].migrations
        outcome = await site.follow("a", await site["a"].do(lambda: migrations.begin(envelope, None)))
        assert answers(site["a"]) == [(procedure, "yes") for procedure in AT_SOURCE]
        assert answers(site["b"]) == [(procedure, "yes") for procedure in AT_DESTINATION]
        for host, role in (("a", "source"), ("b", "destination")):
            for number, one in enumerate(told(site[host])):
                assert (one.vm, one.session, one.role) == (VM, outcome["session"], role)
                assert (one.request, one.number) == (sha256(envelope), number)
                assert one.value.startswith("sha256:")
        assert told(site["a"])[0].user == "operator alice"

    tell(story)


@pytest.mark.parametrize("refused", AT_SOURCE)
def test_what_the_rules_refuse_is_not_done(
    tell: Tell, refused: Procedure, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_the_triple(session: str) -> Facts:
        facts = beginning(session)
        return frozenset((name, row) for name, row in facts if name != "triple" or row[1] != refused.value)

    monkeypatch.setattr(reference, "beginning", without_the_triple)

    async def story(site: Site) -> None:
        outcome = await site.migrate("a", "b")
        error = outcome["error"]
        assert error["kind"] == "policy", error
        assert f"{refused}.triple" in error["message"]
        assert "every-entry-is-permitted" in error["message"]
        moved = refused in {Procedure.WIPE, Procedure.RECEIPT}
        assert error["vm_runs_on"] == ("b" if moved else "a")
        if not moved:
            await site.recover()  # the destination undoes in its own time
            site.runs_only_on("a")
        assert site.world.running(VM) == ["b" if moved else "a"]
        for host in site.hosts.values():
            assert (refused.value, "yes") not in answers(host)
        noes = [one for host in site.hosts.values() for one in told(host) if one.answer == "no"]
        assert (refused, "triple") in [(no.procedure, no.clause) for no in noes]

    tell(story)


def test_a_request_that_the_hosts_policy_denies_is_kept_as_a_no(tell: Tell) -> None:
    async def story(site: Site) -> None:
        envelope = site.request("a", "b", operator=OperatorName("mallory"))
        migrations = site["a"].migrations
        outcome = await site.follow("a", await site["a"].do(lambda: migrations.begin(envelope, None)))
        assert outcome["outcome"] == "refused"
        (only,) = told(site["a"])
        assert (only.procedure, only.answer, only.clause) == ("submit", "no", outcome["error"]["kind"])
        assert told(site["b"]) == []

    tell(story)


def test_what_is_given_up_is_withdrawn_on_both_hosts(tell: Tell) -> None:
    async def story(site: Site) -> None:
        site.distrusted.add("b")
        await site.migrate("a", "b")
        assert answers(site["a"])[-2:] == [("challenge", "no"), ("withdraw", "yes")]
        site.distrusted.clear()
        before = len(told(site["a"]))
        assert (await site.migrate("a", "b"))["outcome"] == "completed"
        assert len(told(site["a"])) == before + len(AT_SOURCE)  # the next one begins anew

    tell(story)


def test_a_crash_between_deed_and_log_leaves_no_hole(tell: Tell) -> None:
    async def story(site: Site) -> None:
        site.plan.deeds["a:say Release#1"] = site.part
        await site.migrate("a", "b")
        await site.recover()
        site.runs_only_on("b")
        done = [procedure for procedure, answer in answers(site["a"]) if answer == "yes"]
        assert done == [procedure for procedure in AT_SOURCE if procedure is not Procedure.RECEIPT]
        done = [procedure for procedure, answer in answers(site["b"]) if answer == "yes"]
        assert done == [procedure for procedure in AT_DESTINATION if procedure != Procedure.RECEIPT]

    tell(story)


def test_to_ask_what_would_be_leaves_nothing_in_a_log(tell: Tell) -> None:
    async def story(site: Site) -> None:
        asked = Inquiry(VM, HostName("b"), Mode.LIVE, OperatorName("alice"), None)
        await site["a"].do(lambda: site["a"].migrations.check(asked))
        assert [told(host) for host in site.hosts.values()] == [[], []]

    tell(story)
