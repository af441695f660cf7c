"""Who may watch and cancel what somebody else began: the policies say it, and the log has who cancelled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from fakes.migration_site import Site, Tell, decisions_in
from korora.errors import RefusedError, UsageError
from korora.model.authorization import Answer, Authorized, Denied, NeedsApproval, Uncovered
from korora.model.identity import OperatorName
from korora.model.plan import MigrationRequest

BOB, MALLORY = OperatorName("bob"), OperatorName("mallory")
MIDDLE = "a:machine.switch_over#1"


class Rights:
    """The site's authorizer, and who may observe and cancel beside it."""

    def __init__(self, site: Site, **rights: Answer) -> None:
        self._then = site["a"].authorizer.decide
        self._rights = rights
        site["a"].authorizer.decide = self.decide  # type: ignore[method-assign]

    def decide(self, request: MigrationRequest, now: float, peer_state: str | None = None) -> Answer:
        if request.procedure in {"observe", "cancel"}:
            return (
                self._rights.get(request.procedure, Denied("denied", "no policy", ""))
                if (request.operator == BOB)
                else Denied("denied", "no policy", "")
            )
        return self._then(request, now, peer_state)


async def met(site: Site, by: OperatorName) -> Mapping[str, Any]:
    """What `by` finds and does in the middle of a migration, and how that ends."""
    seen: dict[str, Any] = {}

    async def look() -> None:
        migrations = site["a"].migrations
        (only,) = migrations.list()
        seen["listed"] = list(migrations.list(by))
        try:
            await anext(migrations.events(only["id"], by))
            seen["watched"] = True
        except RefusedError as refused:
            seen["watched"] = refused.kind
        try:
            await migrations.cancel(only["id"], by)
            seen["cancelled"] = True
        except RefusedError as refused:
            seen["cancelled"] = refused.kind

    site.plan.deeds[MIDDLE] = lambda: site.loop.call_soon_threadsafe(lambda: site.spawn(look()))
    outcome = await site.migrate("a", "b")
    await site.recover()
    return seen | {"outcome": outcome["outcome"]}


def told(site: Site) -> list[tuple[str, str]]:
    return [
        (one.user, one.answer) for one in decisions_in(site["a"].disk.leaves) if one.procedure == "cancel"
    ]


def test_who_has_both_rights_watches_and_cancels_and_the_log_has_it(tell: Tell) -> None:
    async def story(site: Site) -> None:
        Rights(site, observe=Authorized("watchers"), cancel=Authorized("stoppers"))
        seen = await met(site, BOB)
        assert len(seen["listed"]) == 1
        assert (seen["watched"], seen["cancelled"]) == (True, True)
        assert seen["outcome"] in {"cancelled", "completed"}
        assert told(site) == [("operator bob", "yes")]

    tell(story)


@pytest.mark.parametrize("who", [BOB, MALLORY])
def test_who_has_no_right_sees_nothing_and_stops_nothing(tell: Tell, who: OperatorName) -> None:
    async def story(site: Site) -> None:
        Rights(site)
        seen = await met(site, who)
        expected = {"listed": [], "watched": "not-allowed", "cancelled": "not-allowed"}
        assert seen == expected | {"outcome": "completed"}
        assert told(site) == [(f"operator {who}", "no")]
        site.runs_only_on("b")

    tell(story)


@pytest.mark.parametrize("answer", [NeedsApproval("two"), Uncovered("nobody said")])
def test_what_is_no_plain_yes_is_a_no(tell: Tell, answer: Answer) -> None:
    async def story(site: Site) -> None:
        Rights(site, observe=answer, cancel=answer)
        seen = await met(site, BOB)
        assert (seen["watched"], seen["cancelled"], seen["outcome"]) == (
            "not-allowed",
            "not-allowed",
            "completed",
        )

    tell(story)


def test_a_host_goes_on_after_a_crash_though_a_cancelling_is_in_its_log(tell: Tell) -> None:
    async def story(site: Site) -> None:
        Rights(site)

        async def ask() -> None:
            (only,) = site["a"].migrations.list()
            await site["a"].migrations.cancel(only["id"])  # an administrator, when it is too late

        site.plan.deeds["b:machine.resume#1"] = lambda: site.loop.call_soon_threadsafe(
            lambda: site.spawn(ask())
        )
        outcome = await site.migrate("a", "b")
        await site["a"].crash()
        await site.recover()
        assert outcome["outcome"] == "completed"
        site.runs_only_on("b")
        assert told(site) == [("administrator", "yes")]

    tell(story)


def test_a_question_is_shown_to_those_who_may_answer_it_and_is_unknown_to_others(tell: Tell) -> None:
    async def story(site: Site) -> None:
        site["a"].authorizer.says = NeedsApproval("two persons")
        await site.migrate("a", "b")
        migrations = site["a"].migrations
        (question,) = migrations.questions()
        assert list(migrations.questions(BOB)) == [question]  # he approves
        assert migrations.question(question.id, BOB) == question
        assert list(migrations.questions(MALLORY)) == []
        with pytest.raises(UsageError) as caught:
            migrations.question(question.id, MALLORY)
        assert caught.value.kind == "unknown-question"

    tell(story)
