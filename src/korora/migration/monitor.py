"""The rules in force: every procedure of a migration is asked for before it is done, and every answer logged.

Promise: what the rules refuse is not done; the log has a procedure before anything that rests on it is done.
Limit: answers to a visit that brings no order are not logged, for nobody asked for anything yet.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from korora.errors import QuestionError, RefusedError
from korora.migration.papers.docket import Docket
from korora.migration.papers.file import MigrationFile
from korora.migration.papers.values import value_of
from korora.migration.setting import Setting
from korora.model.identity import SessionId, VmName, sha256
from korora.model.question import Said
from korora.policy.machine.beginning import APPROVER, OPERATOR, STEPS
from korora.policy.machine.language.vocabulary import Procedure
from korora.policy.machine.monitor import ReferenceMonitor, Taken
from korora.policy.machine.running.machine import Answer, Decision
from korora.protocol import decision
from korora.protocol.decision import PolicyDecision

Role = Literal["source", "destination"]
Step = Callable[[], Awaitable[None]]

_THIS: Final = "migration"  # in the model each migration is alone, so its name is always the same
_ORDER: Final = tuple(procedure for procedure in STEPS if procedure is not Procedure.APPROVE)


@dataclass(frozen=True, slots=True)
class Subject:
    """Which migration it is, as far as this host knows."""

    vm: VmName | Literal[""] = ""
    session: SessionId | Literal[""] = ""
    file: MigrationFile | None = None


class Monitor:
    """Of one migration on one host. `subject` is asked each time: it grows as the migration goes on."""

    def __init__(self, at: Setting, role: Role, subject: Callable[[], Subject]) -> None:
        self._at = at
        self._role: Role = role
        self._subject = subject
        self._model = ReferenceMonitor(_THIS)
        self._unlogged: list[PolicyDecision] = []
        self._number = 0
        self._void = False
        self._spent_ms = 0.0

    async def around(self, step: Step, *procedures: Procedure) -> None:
        """Ask for these, play the step, and note those that the step has not noted itself."""
        self.permit(*procedures)
        try:
            await step()
        except (RefusedError, QuestionError) as refused:
            self._denied(procedures, refused)
            raise
        for procedure in procedures:
            self.did(procedure)

    def permit(self, *procedures: Procedure) -> None:
        """RefusedError(kind="policy") unless all of them may be done now, one after another."""
        with self._timed():
            refused = self._model.may([one for one in procedures if not self._model.done(one)])
            if refused is not None:
                self._refuse(refused)

    def did(self, procedure: Procedure) -> None:
        """It is done, and durably so once this returns. Done before: nothing happens.

        RefusedError(kind="policy") if it may not have been; ToolError if the log cannot be written.
        """
        if self._void or self._model.done(procedure):
            return
        with self._timed():
            taken = self._model.take(procedure, value_of(procedure, self._subject().file))
            if not taken.decision.allowed:
                self._refuse(taken)
            self._note(self._told(taken))

    def agreed_to(self, said: Said | None) -> None:
        """A second person was needed, and has agreed: nothing is agreed without that from now on."""
        if said is not None:
            if not self._model.demand_approval().allowed:
                raise RefusedError("a second person is demanded too late", kind="policy")
            self.did(Procedure.SUBMIT)
            self.did(Procedure.APPROVE)

    def nothing_is_done(self) -> None:
        """It was only asked what would be."""
        self._void = True

    def withdraw(self) -> None:
        """The migration is given up, if anything of it was done."""
        if self._model.may([Procedure.WITHDRAW]) is None and self._model.done(Procedure.SUBMIT):
            self.did(Procedure.WITHDRAW)
            self._write()

    # -- after a restart --------------------------------------------------------------------------------

    @classmethod
    def reopened(cls, at: Setting, session: SessionId, docket: Docket, file: MigrationFile) -> Monitor:
        """As far as the log and the durable statements of this session go.

        What a statement proves was done, and a crash kept out of the log, is noted now.
        """
        role: Role = "source" if docket.move.source == at.host else "destination"
        monitor = cls(at, role, lambda: Subject(file.request.vm, session, file))
        request = sha256(file.envelope)
        for told in map(decision.read, at.journal.log()):
            if told is not None and told.request == request and told.session in {session, ""}:
                monitor._replay(told)
        for procedure in _proved(docket):
            monitor.did(procedure)
        return monitor

    def _replay(self, told: PolicyDecision) -> None:
        self._number = max(self._number, told.number + 1)
        if told.answer == "yes" and told.procedure in STEPS:  # a person's cancelling is none of them
            self._model.take(Procedure(told.procedure), told.value)

    # -- inside -----------------------------------------------------------------------------------------

    @contextmanager
    def _timed(self) -> Iterator[None]:
        """How long the rules take is told with the outcome."""
        begun = self._at.clock.monotonic()
        try:
            yield
        finally:
            self._spent_ms += (self._at.clock.monotonic() - begun) * 1000
            if (file := self._subject().file) is not None:
                file.decisions_ms = self._spent_ms

    def _refuse(self, taken: Taken) -> None:
        self._note(self._told(taken))
        self._write()
        no, session = taken.decision, self._subject().session
        raise RefusedError(
            f"the rules do not allow {taken.procedure} now: {no.rule}.{no.clause} ({no.protects})",
            kind="policy",
            remedy=f"korora policy explain {session[:16]}" if session else "see the log: korora log show",
        )

    def _denied(self, procedures: Sequence[Procedure], refused: RefusedError | QuestionError) -> None:
        """Not by these rules, but within what they asked for: by the host's policy, or by an appraisal."""
        stopped = next((one for one in procedures if not self._model.done(one)), None)
        if stopped is None or self._void:
            return
        answer = Answer.QUESTION if isinstance(refused, QuestionError) else Answer.NO
        no = Decision(answer, stopped.value, {}, stopped.value, refused.kind)
        self._note(self._told(Taken(stopped, no, 0)))
        if self._subject().file is not None:
            self._write()

    def _note(self, told: PolicyDecision) -> None:
        """Held back until the migration has a name in both hosts' logs."""
        self._unlogged.append(told)
        subject = self._subject()
        if subject.session and subject.file is not None:
            self._write()

    def _write(self) -> None:
        subject = self._subject()
        request = sha256(subject.file.envelope) if subject.file is not None else ""
        while self._unlogged:
            told = msgspec.structs.replace(
                self._unlogged[0], vm=subject.vm, request=request, session=subject.session
            )
            self._at.journal.append_log(told.leaf())
            del self._unlogged[0]

    def _told(self, taken: Taken) -> PolicyDecision:
        step, said, file = STEPS[taken.procedure], taken.decision, self._subject().file
        user = step.user
        if file is not None and user == OPERATOR:
            user = f"{OPERATOR} {file.request.operator}"
        elif file is not None and file.said is not None and user == APPROVER:
            user = f"{APPROVER} {file.said.by}"
        number, self._number = self._number, self._number + 1
        return PolicyDecision(
            vm="",
            request="",
            session="",
            role=self._role,
            number=number,
            procedure=taken.procedure,
            user=user,
            agent=step.agent,
            takes=step.takes,
            makes=step.makes,
            value=value_of(taken.procedure, file),
            answer=said.answer.value,
            rule=said.rule,
            clause=said.clause,
            protects=said.protects,
            at=int(self._at.clock.now()),
        )


def _proved(docket: Docket) -> Sequence[Procedure]:
    """What must have been done, for these statements to be there."""
    statements = {
        Procedure.RELEASE: docket.release,
        Procedure.ACCEPT: docket.accept,
        Procedure.MEASURE: docket.manifest,
    }
    for last, said in statements.items():
        if said is not None:
            return _ORDER[: _ORDER.index(last) + 1]
    return ()
