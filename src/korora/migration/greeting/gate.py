"""Both hosts ask the same questions of an operator's request before anything else (S2, S5).

Signed by whom it names, in time, for this VM and these hosts, never seen before, and allowed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from korora.errors import QuestionError, RefusedError
from korora.migration.greeting import questions
from korora.migration.setting import Setting
from korora.model.authorization import Authorized, Denied, NeedsApproval, Uncovered
from korora.model.identity import HostName, sha256
from korora.model.plan import MigrationRequest
from korora.model.question import Said, Why
from korora.protocol import dsse, statements
from korora.supervision import signed

PROCEDURE: Final = "migrate"
ANSWERED_NO: Final = "answered-no"
LONGEST_DAYS: Final = 1


@dataclass(frozen=True, slots=True)
class Admission:
    """The request, and what allows it."""

    envelope: bytes
    request: MigrationRequest
    by: str
    said: Said | None = None  # by a person, to this request


def admit(
    setting: Setting,
    envelope: bytes,
    *,
    source: HostName,
    destination: HostName,
    peer_state: str | None = None,
) -> Admission:
    """Check the request and spend its nonce, durably. RefusedError otherwise, each with its own kind;
    QuestionError when a person must decide. `peer_state` as `Authorizer.decide`.
    """
    request = _opened(setting, envelope)
    if request.procedure != PROCEDURE:
        # Whoever may approve or govern may not migrate for that: policies know those words as well.
        raise RefusedError(
            f"a request for {request.procedure!r} moves nothing",
            kind="unknown-procedure",
            remedy=f"ask for {PROCEDURE!r}",
        )
    now = setting.clock.now()
    signed.check_time("request", request.issued_at, request.not_after, now, days=LONGEST_DAYS)
    if (request.source, request.destination) != (source, destination):
        raise RefusedError(
            f"the request moves {request.vm} from {request.source} to {request.destination},"
            f" but it was brought to a session from {source} to {destination}",
            kind="request-mismatch",
            remedy="send the request to the host that it names as source",
        )
    by, said = _asked(setting, request, peer_state, questions.said_to(setting, request))
    if not setting.journal.spend_nonce(request.nonce, request.not_after):
        raise RefusedError(
            "this request was used before",
            kind="replayed-request",
            remedy="a request is good for one migration: sign a new one (the command line does it each time)",
        )
    if said is not None:
        questions.use(setting, request)
    return Admission(envelope, request, by, said)


def confirm(setting: Setting, admission: Admission, peer_state: str) -> Said | None:
    """Ask the policies again, now that the other host's state is known.

    What a person has said to it, if that was needed; it is used up then. Raises as `admit`.
    """
    request, said = admission.request, admission.said
    _, needed = _asked(setting, request, peer_state, said or questions.said_to(setting, request))
    if needed is not None and said is None:
        questions.use(setting, request)
    return needed


def _asked(
    setting: Setting, request: MigrationRequest, peer_state: str | None, said: Said | None
) -> tuple[str, Said | None]:
    """As `allowed`; what only a person can decide is put to one, and a person's no is used up."""
    try:
        return allowed(setting, request, peer_state, said)
    except RefusedError as refused:
        if refused.kind == ANSWERED_NO:
            questions.use(setting, request)
        raise
    except QuestionError as question:
        put = questions.put(setting, request, Why(question.kind), question.message)
        question.remedy = f"another person answers: korora question answer {put.id} yes; then ask again"
        raise


def allowed(
    setting: Setting, request: MigrationRequest, peer_state: str | None, said: Said | None = None
) -> tuple[str, Said | None]:
    """What allows it now: policies, and what a person has said to it, if that was needed. Nothing is spent.

    RefusedError, or QuestionError (of a kind in `Why`) when a person must be asked.
    """
    answer = setting.authorizer.decide(request, setting.clock.now(), peer_state)
    match answer:
        case Authorized(by):
            return by, None
        case Denied(kind, reason, remedy):
            raise RefusedError(reason, kind=kind, remedy=remedy)
        case NeedsApproval(by):
            why, reason = Why.SECOND_PERSON, f"{by} lets {_deed(request)} only if a second person agrees"
        case Uncovered(reason):
            by, why = "no policy", Why.UNCOVERED
    if said is None:
        raise QuestionError(reason, kind=why, remedy="see: korora question list")
    if said.answer == "no":
        raise RefusedError(
            f"{said.by} has answered no to it: {said.reason or 'without a reason'}",
            kind=ANSWERED_NO,
            remedy=f"ask {said.by}; the next request is a question again",
        )
    return f"{by}, and {said.by} by the answer {sha256(said.envelope)}", said


def _deed(request: MigrationRequest) -> str:
    return f"{request.operator} {request.procedure} {request.vm}"


def _opened(setting: Setting, envelope: bytes) -> MigrationRequest:
    key = signed.key_of(setting, statements.peek_request(envelope).operator)
    return statements.open_request(envelope, {dsse.key_id(key): key})
