"""What no policy decides waits for a person, and what he says decides one request, once, on each host."""

from __future__ import annotations

import secrets
import time
from typing import Any

import msgspec
import pytest

from fakes.migration_site import APPROVER, OPERATOR, VM, LabHost, Site, Tell, decisions_in
from korora.errors import IntegrityError, KororaError, RefusedError, UsageError
from korora.migration.greeting import questions
from korora.model.authorization import Authorized, NeedsApproval, Uncovered
from korora.model.identity import HostName, OperatorName
from korora.model.plan import MigrationRequest, Mode
from korora.model.question import Matter, Question, QuestionId, Stage, Why
from korora.policy.machine.language.vocabulary import Procedure
from korora.protocol import answer as statement
from korora.protocol.dsse import KeyPair

TWO = NeedsApproval("the test's two-person rule")


def signed(said: str = "yes", key: KeyPair = APPROVER, **other: Any) -> bytes:
    now = int(time.time())
    given = statement.Answer(
        by="bob",
        answer="yes",
        reason="seen",
        operator="alice",
        procedure="migrate",
        vm=VM,
        source="a",
        destination="b",
        mode=Mode.LIVE,
        nonce=secrets.token_hex(32),
        issued_at=now,
        not_after=now + 600,
    )
    return statement.signed(msgspec.structs.replace(given, answer=said, **other), key)


async def answered(site: Site, host: str, envelope: bytes) -> Question:
    migrations = site[host].migrations
    question = await site[host].do(lambda: migrations.answer(envelope))
    assert isinstance(question, Question)
    return question


def refusal(site: Site, host: str, envelope: bytes) -> KororaError:
    with pytest.raises(KororaError) as caught:
        site[host].migrations.answer(envelope)
    return caught.value


def yeses(host: LabHost) -> list[str]:
    return [told.procedure for told in decisions_in(host.disk.leaves) if told.answer == "yes"]


@pytest.mark.parametrize("says", [TWO, Uncovered("no policy speaks of it")])
def test_a_question_waits_and_its_answer_lets_one_migration_happen(tell: Tell, says: Any) -> None:
    async def story(site: Site) -> None:
        for host in site.hosts.values():
            host.authorizer.says = says
        for times in (1, 2):
            outcome = await site.migrate("a", "b")
            assert outcome["error"]["exit_code"] == 4
            (question,) = site["a"].migrations.questions()
            assert (question.stage, question.times) == (Stage.OPEN, times)
        assert question.id in outcome["error"]["remedy"]
        assert site["b"].migrations.questions() == []
        envelope = signed()
        for name in "ab":
            assert (await answered(site, name, envelope)).stage is Stage.ANSWERED
        outcome = await site.migrate("a", "b")
        assert outcome["outcome"] == "completed", outcome["error"]
        for host in site.hosts.values():
            assert host.migrations.questions() == []
            assert {"answer", "approve"} <= set(yeses(host))
        await site.recover()
        site.runs_only_on("b")

    tell(story)


def test_an_answer_is_used_up(tell: Tell) -> None:
    async def story(site: Site) -> None:
        for host in site.hosts.values():
            host.authorizer.says = TWO
            host.migrations.answer(signed())
        await site.migrate("a", "b")
        await site.recover()
        # The same matter again, as if the VM had come back: nobody has agreed to that.
        request = MigrationRequest(
            OperatorName("alice"), "migrate", VM, HostName("a"), HostName("b"), Mode.LIVE, "00", 0, 1
        )
        assert questions.said_to(site["a"].setting, request) is None
        assert site["a"].migrations.question(Matter.of(request).id).stage is Stage.USED

    tell(story)


def test_a_no_refuses_one_request_and_then_it_is_a_question_again(tell: Tell) -> None:
    async def story(site: Site) -> None:
        site["a"].authorizer.says = TWO
        await site.migrate("a", "b")
        await answered(site, "a", signed("no"))
        refused = await site.migrate("a", "b")
        assert (refused["error"]["kind"], refused["error"]["exit_code"]) == ("answered-no", 3)
        assert "bob has answered no to it: seen" in refused["error"]["message"]
        again = await site.migrate("a", "b")
        assert again["error"]["kind"] == Why.SECOND_PERSON
        site.runs_only_on("a")

    tell(story)


def test_without_the_second_persons_procedure_the_rules_themselves_refuse(
    tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    from korora.migration.monitor import Monitor

    def only_demanded(monitor: Monitor, said: object) -> None:
        monitor._model.demand_approval()

    monkeypatch.setattr(Monitor, "agreed_to", only_demanded)

    async def story(site: Site) -> None:
        outcome = await site.migrate("a", "b")
        assert outcome["error"]["kind"] == "policy"
        assert "agree.approved (two-persons)" in outcome["error"]["message"]
        site.runs_only_on("a")

    tell(story)


def test_questions_and_answers_outlive_the_daemon(tell: Tell) -> None:
    async def story(site: Site) -> None:
        site["a"].authorizer.says = TWO
        await site.migrate("a", "b")
        await answered(site, "a", signed())
        await site["a"].crash()
        await site.recover()
        (question,) = site["a"].migrations.questions()
        assert question.said is not None
        assert question.said.by == "bob"
        assert (await site.migrate("a", "b"))["outcome"] == "completed"

    tell(story)


@pytest.mark.parametrize(
    ("envelope", "kind"),
    [
        (lambda: signed(key=OPERATOR), "signature"),
        (lambda: signed(by="mallory"), "unknown-operator"),
        (lambda: signed(by="alice", key=OPERATOR), "own-request"),
        (lambda: signed(by="alice", key=OPERATOR, operator="carol"), "not-allowed"),
        (lambda: signed(source="x", destination="y"), "answer-mismatch"),
        (lambda: signed(not_after=int(time.time()) - 1), "expired-answer"),
        (
            lambda: signed(issued_at=int(time.time()) + 3600, not_after=int(time.time()) + 7200),
            "bad-validity",
        ),
        (lambda: signed(not_after=int(time.time()) + 30 * 86400), "bad-validity"),
        (lambda: signed(vm="../x"), "malformed-statement"),
        (lambda: b"{}", "signature"),
        (lambda: b"\xff", "signature"),
        (lambda: signed().replace(b"payload", b"payl0ad"), "signature"),
    ],
)
def test_an_answer_that_is_not_a_persons_own_timely_and_permitted_word_is_not_taken(
    tell: Tell, envelope: Any, kind: str
) -> None:
    async def story(site: Site) -> None:
        error = refusal(site, "a", envelope())
        assert isinstance(error, RefusedError | IntegrityError)
        assert error.kind == kind
        assert site["a"].migrations.questions() == []
        assert site["a"].disk.leaves == []

    tell(story)


def test_an_answer_is_taken_once_also_after_it_was_used(tell: Tell) -> None:
    async def story(site: Site) -> None:
        envelope = signed()
        await answered(site, "a", envelope)
        assert refusal(site, "a", envelope).kind == "replayed-answer"

    tell(story)


def test_an_answer_that_has_expired_decides_nothing(tell: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(site: Site) -> None:
        site["a"].authorizer.says = TWO
        await answered(site, "a", signed(not_after=int(time.time()) + 60))
        monkeypatch.setattr(type(site["a"].setting.clock), "now", lambda _: time.time() + 100)
        request = MigrationRequest(
            OperatorName("alice"), "migrate", VM, HostName("a"), HostName("b"), Mode.LIVE, "00", 0, 1
        )
        assert questions.said_to(site["a"].setting, request) is None

    tell(story)


def test_an_answer_that_was_not_needed_is_kept_for_when_it_is(tell: Tell) -> None:
    async def story(site: Site) -> None:
        site["a"].authorizer.says = Authorized("anyway")
        await answered(site, "a", signed())
        assert (await site.migrate("a", "b"))["outcome"] == "completed"
        assert Procedure.APPROVE not in yeses(site["a"])
        (question,) = site["a"].migrations.questions()
        assert question.stage is Stage.ANSWERED

    tell(story)


def test_ten_thousand_questions_wait_and_too_many_are_refused(
    tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(site: Site) -> None:
        setting = site["a"].setting
        for number in range(10_000):
            request = MigrationRequest(
                OperatorName(f"o{number}"), "migrate", VM, HostName("a"), HostName("b"), Mode.LIVE, "", 0, 1
            )
            questions.put(setting, request, Why.UNCOVERED, "no policy")
        assert len(site["a"].migrations.questions()) == 10_000
        monkeypatch.setattr(questions, "MOST", 10_000)
        questions.put(setting, request, Why.UNCOVERED, "the same again")
        with pytest.raises(RefusedError, match="wait already"):
            questions.put(
                setting,
                MigrationRequest(
                    OperatorName("more"), "migrate", VM, HostName("a"), HostName("b"), Mode.LIVE, "", 0, 1
                ),
                Why.UNCOVERED,
                "no policy",
            )

    tell(story)


def test_an_unknown_question_is_said_to_be_one(tell: Tell) -> None:
    async def story(site: Site) -> None:
        with pytest.raises(UsageError, match="has no question") as caught:
            questions.found(site["a"].setting, QuestionId("0" * 16))
        assert caught.value.kind == "unknown-question"

    tell(story)


def test_an_answer_can_become_a_policy_which_decides_from_then_on(tell: Tell) -> None:
    async def story(site: Site) -> None:
        site["a"].authorizer.says = TWO
        await site.migrate("a", "b")
        question = await answered(site, "a", signed(policy="permit(principal, action, resource);"))
        assert question.stage is Stage.USED
        assert site["a"].authorizer.adopted == [
            (f"answered-{question.id}", "permit(principal, action, resource);")
        ]
        assert site["a"].migrations.questions() == []
        assert (await site.migrate("a", "b"))["outcome"] == "completed"

    tell(story)


def test_a_policy_that_is_not_sound_leaves_the_question_open(tell: Tell) -> None:
    async def story(site: Site) -> None:
        site["a"].authorizer.says = TWO
        await site.migrate("a", "b")
        before = list(site["a"].disk.leaves)
        assert refusal(site, "a", signed(policy="unsound")).kind == "unsound-policy"
        assert refusal(site, "a", signed("no", policy="permit")).kind == "answer-mismatch"
        (question,) = site["a"].migrations.questions()
        assert question.stage is Stage.OPEN
        assert site["a"].disk.leaves == before

    tell(story)


@pytest.mark.parametrize("procedure", ["approve", "govern", "observe", "fly", ""])
def test_who_may_approve_may_not_migrate_for_that(tell: Tell, procedure: str) -> None:
    async def story(site: Site) -> None:
        envelope = site.request("a", "b", operator=OperatorName("bob"), procedure=procedure, key=APPROVER)
        migrations = site["a"].migrations
        outcome = await site.follow("a", await site["a"].do(lambda: migrations.begin(envelope, None)))
        assert (outcome["outcome"], outcome["error"]["kind"]) == ("refused", "unknown-procedure")
        site.runs_only_on("a")

    tell(story)


def test_what_is_asked_only_of_an_attested_state_waits_as_well(tell: Tell) -> None:
    async def story(site: Site) -> None:
        site["a"].authorizer.says_of_states = TWO
        refused = await site.migrate("a", "b")
        assert (refused["error"]["kind"], refused["error"]["vm_runs_on"]) == (Why.SECOND_PERSON, "a")
        (question,) = site["a"].migrations.questions()
        assert question.id in refused["error"]["remedy"]
        await answered(site, "a", signed())
        assert (await site.migrate("a", "b"))["outcome"] == "completed"
        assert site["a"].migrations.questions() == []
        assert Procedure.APPROVE in yeses(site["a"])

    tell(story)
