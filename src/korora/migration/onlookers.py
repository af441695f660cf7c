"""Who may watch or cancel a migration that somebody began, and see what waits for an answer (S2).

Promise: who asked to cancel, and the answer, are in the log before anything is stopped.
Limit: that somebody watched is not logged, or a watcher could fill the log. The machine's administrator
(None) is never refused: whoever is root can stop a process by other means.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from korora.errors import RefusedError
from korora.migration.papers.file import MigrationFile
from korora.migration.setting import Setting
from korora.model.authorization import Answer, Authorized
from korora.model.identity import OperatorName, SessionId, sha256
from korora.model.plan import MigrationRequest
from korora.model.question import Matter
from korora.protocol.decision import PolicyDecision

Deed = Literal["observe", "cancel", "approve"]


def may(at: Setting, request: MigrationRequest, deed: Deed, by: OperatorName | None) -> bool:
    return by is None or isinstance(_answer(at, request, deed, by), Authorized)


def check(at: Setting, request: MigrationRequest, deed: Deed, by: OperatorName | None) -> None:
    """RefusedError(kind="not-allowed") unless a policy lets him, without a second person."""
    if not may(at, request, deed, by):
        raise _refused(request, deed, by)


def asks_to_cancel(
    at: Setting, file: MigrationFile, session: SessionId | Literal[""], by: OperatorName | None
) -> None:
    """Decide, and log it. RefusedError(kind="not-allowed")."""
    allowed = may(at, file.request, "cancel", by)
    at.journal.append_log(_leaf(at, file, session, by, allowed=allowed).leaf())
    if not allowed:
        raise _refused(file.request, "cancel", by)


def may_see(at: Setting, matter: Matter, by: OperatorName | None) -> bool:
    """Of questions, an operator sees those that he may answer, and those about what he may watch."""
    asked = MigrationRequest(
        matter.operator, matter.procedure, matter.vm, matter.source, matter.destination, matter.mode, "", 0, 0
    )
    return may(at, asked, "approve", by) or may(at, asked, "observe", by)


def _refused(request: MigrationRequest, deed: Deed, by: OperatorName | None) -> RefusedError:
    return RefusedError(
        f"no policy lets {by} {deed} the migration of {request.vm} "
        f"from {request.source} to {request.destination}",
        kind="not-allowed",
        remedy=f"a policy for the action {deed} gives that right",
    )


def _answer(at: Setting, request: MigrationRequest, deed: Deed, by: OperatorName) -> Answer:
    return at.authorizer.decide(replace(request, operator=by, procedure=deed), at.clock.now())


def _leaf(
    at: Setting,
    file: MigrationFile,
    session: SessionId | Literal[""],
    by: OperatorName | None,
    *,
    allowed: bool,
) -> PolicyDecision:
    request = sha256(file.envelope)
    return PolicyDecision(
        vm=file.request.vm,
        request=request,
        session=session,
        role="source",
        number=0,
        procedure="cancel",
        user="administrator" if by is None else f"operator {by}",
        agent="identity-provider",
        takes="record",
        makes="withdrawal",
        value=request,
        answer="yes" if allowed else "no",
        rule="cancel",
        clause="" if allowed else "not-allowed",
        protects="" if allowed else "discretionary",
        at=int(at.clock.now()),
    )
