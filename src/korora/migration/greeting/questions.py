"""The queue of questions: what this host's policies leave to a person, and what persons have said (P2, S2).

Promise: a question is durable when the request that raised it is refused; an answer is taken only from a
person who may approve and is not the one who asked, signed, in time, once; and it decides one request, once.
Limit: at most MOST are open; beyond that a request is refused like any that no policy allows.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import msgspec

from korora.errors import RefusedError, ToolError, UsageError
from korora.migration.setting import Setting
from korora.model.authorization import Authorized
from korora.model.identity import OperatorName, sha256
from korora.model.plan import MigrationRequest
from korora.model.question import Matter, Question, QuestionId, Said, Stage, Why
from korora.ports.journal import QuestionRecord
from korora.protocol import answer as statement
from korora.protocol.answer import Answer
from korora.protocol.decision import PolicyDecision
from korora.supervision import signed

MOST: Final = 20_000
LONGEST_DAYS: Final = 7


def waiting(at: Setting) -> list[Question]:
    """Open and answered ones, each kind in the order in which they were first asked."""
    records = [record for stage in (Stage.OPEN, Stage.ANSWERED) for record in at.journal.questions(stage)]
    return [_read(record) for record in records]


def found(at: Setting, question: QuestionId) -> Question:
    record = at.journal.question(question)
    if record is None:
        raise unknown(at, question)
    return _read(record)


def unknown(at: Setting, question: str) -> UsageError:
    return UsageError(
        f"host {at.host} has no question {question[:32]!r}",
        kind="unknown-question",
        remedy="see: korora question list",
    )


def put(at: Setting, request: MigrationRequest, why: Why, reason: str) -> Question:
    """Ask, durably. Asked before, it is the same question. RefusedError when too many are open."""
    matter, now = Matter.of(request), int(at.clock.now())
    record = at.journal.question(matter.id)
    if record is not None and record.stage == Stage.OPEN:
        known = _read(record)
        question = replace(known, why=why, reason=reason, asked_at=now, times=known.times + 1)
    else:
        if at.journal.count_questions(Stage.OPEN) >= MOST:
            raise RefusedError(
                f"{reason}, and {MOST} questions wait already",
                kind="not-allowed",
                remedy="have them answered: korora question list",
            )
        question = Question(matter, why, reason, now)
    _write(at, question)
    return question


def said_to(at: Setting, request: MigrationRequest) -> Said | None:
    """What a person has answered to this, if that is still good."""
    record = at.journal.question(Matter.of(request).id)
    question = _read(record) if record is not None and record.stage == Stage.ANSWERED else None
    if question is None or question.said is None or question.said.until < at.clock.now():
        return None
    return question.said


def use(at: Setting, request: MigrationRequest) -> None:
    """It decides this request, and no other."""
    _write(at, replace(found(at, Matter.of(request).id), stage=Stage.USED))


def take(at: Setting, envelope: bytes) -> Question:
    """A person's answer. Kept and logged before this returns; RefusedError or IntegrityError otherwise."""
    answer = statement.opened(envelope, signed.key_of(at, statement.peek(envelope).by))
    matter, now = answer.matter, at.clock.now()
    signed.check_time("answer", answer.issued_at, answer.not_after, now, days=LONGEST_DAYS)
    if answer.policy and answer.answer == "no":
        raise RefusedError("a no needs no policy", kind="answer-mismatch", remedy="write a forbid by hand")
    if at.host not in {matter.source, matter.destination}:
        raise RefusedError(
            f"the answer is about {matter.text}; this is {at.host}",
            kind="answer-mismatch",
            remedy=f"send it to {matter.source} and {matter.destination}",
        )
    _check_person(at, answer, matter, now)
    if not at.journal.spend_nonce(answer.nonce, answer.not_after):
        raise RefusedError("this answer was given before", kind="replayed-answer", remedy="sign a new one")
    if answer.policy:
        asked_for = _asked(answer, matter.operator, matter.procedure)
        at.authorizer.check_policy(answer.policy, asked_for, OperatorName(answer.by), now)
    record = at.journal.question(matter.id)
    asked = _read(record) if record is not None else Question(matter, Why.UNCOVERED, "", int(now), times=0)
    said = Said(OperatorName(answer.by), answer.answer, answer.reason, answer.not_after, envelope)
    # A policy decides the next such request, and every other that it speaks of: no answer is left over.
    question = replace(asked, stage=Stage.USED if answer.policy else Stage.ANSWERED, said=said)
    at.journal.append_log(_leaf(at, question, said))
    if answer.policy:
        at.authorizer.adopt(f"answered-{matter.id}", answer.policy)  # never before the log has it
    _write(at, question)
    return question


def _check_person(at: Setting, answer: Answer, matter: Matter, now: float) -> None:
    if answer.by == matter.operator:
        raise RefusedError(
            f"{answer.by} asked for this, so somebody else must answer",
            kind="own-request",
            remedy="ask another person who may approve it",
        )
    procedure = "govern" if answer.policy else "approve"
    allowed = at.authorizer.decide(_asked(answer, OperatorName(answer.by), procedure), now)
    if not isinstance(allowed, Authorized):
        raise RefusedError(
            f"no policy lets {answer.by} {procedure} what is asked: {matter.text}",
            kind="not-allowed",
            remedy=f"a policy for the action {procedure} gives that right",
        )


def _asked(answer: Answer, operator: OperatorName, procedure: str) -> MigrationRequest:
    """As a request to the policies, about the same VM and hosts."""
    matter = answer.matter
    return MigrationRequest(
        operator=operator,
        procedure=procedure,
        vm=matter.vm,
        source=matter.source,
        destination=matter.destination,
        mode=matter.mode,
        nonce=answer.nonce,
        issued_at=answer.issued_at,
        not_after=answer.not_after,
    )


def _leaf(at: Setting, question: Question, said: Said) -> bytes:
    matter = question.matter
    return PolicyDecision(
        vm=matter.vm,
        request=sha256(said.envelope),
        session="",
        role="source" if at.host == matter.source else "destination",
        number=0,
        procedure="answer",
        user=f"approver {said.by}",
        agent="identity-provider",
        takes="approval-form",
        makes="approval",
        value=sha256(said.envelope),
        answer=said.answer,
        rule=question.id,
        clause="",
        protects="",
        at=int(at.clock.now()),
    ).leaf()


def _write(at: Setting, question: Question) -> None:
    at.journal.write_question(QuestionRecord(question.id, question.stage, msgspec.json.encode(question)))


def _read(record: QuestionRecord) -> Question:
    try:
        return msgspec.json.decode(record.detail, type=Question)
    except msgspec.MsgspecError as error:
        raise ToolError(
            f"question {record.id} in the journal cannot be read: {error}",
            kind="journal",
            remedy="it was written by another version of Korora: answer it with that one",
        ) from error
