"""The reference monitor of one migration on one host: every procedure is asked for here before it is done.

It opens what the procedure takes and makes, asks for the procedure itself, and closes again: each of that is
a request that the rules answer. Source: Anderson 1972 (the reference monitor); requirement P4: the running
system refuses what the model refuses, by the same code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from korora.policy.machine.beginning import APPROVER, IDENTITY_PROVIDER, OPERATOR, STEPS, beginning, item
from korora.policy.machine.language.vocabulary import Access, Procedure
from korora.policy.machine.omega.rules import RULES
from korora.policy.machine.running.machine import Decision, Machine
from korora.policy.machine.running.state import State

PENDING = "pending"
"""The value of what is not made yet, while it is only asked whether it may be."""


@dataclass(frozen=True, slots=True)
class Taken:
    """One procedure, as it was decided: the decision that counts, and the number of its entry."""

    procedure: Procedure
    decision: Decision
    entry: int


class ReferenceMonitor:
    """Holds the state; whoever migrates asks."""

    def __init__(self, session: str) -> None:
        self.session = session
        self._state = State(beginning(session))
        self._machine = Machine(RULES, self._state)
        self._entries = 0

    def done(self, procedure: Procedure) -> bool:
        return (self.session, procedure.value) in self._state.relations["done"]

    def demand_approval(self) -> Decision:
        """From now on nothing is agreed without a second person; a *no* once it is agreed."""
        return self._machine.decide("demand-approval", {"u": IDENTITY_PROVIDER, "m": self.session})

    def may(self, procedures: Sequence[Procedure]) -> Taken | None:
        """None if these may be done now, one after another; or the first that may not. Nothing changes."""
        entries = self._entries
        try:
            with self._state.rehearsal():
                taken = (self.take(procedure, PENDING) for procedure in procedures)
                return next((one for one in taken if not one.decision.allowed), None)
        finally:
            self._entries = entries

    def take(self, procedure: Procedure, value: str) -> Taken:
        """Decide one procedure; with a *yes* it is done, and its output has this value (a digest)."""
        for decision in self._decisions(procedure, value):
            if not decision.allowed or decision.request == procedure.value:
                self._close(procedure)
                break
        entry = self._entries
        self._entries += decision.allowed
        return Taken(procedure, decision, entry)

    def _decisions(self, procedure: Procedure, value: str) -> Iterator[Decision]:
        """What is asked, in order; the last is the procedure itself."""
        step = STEPS[procedure]
        takes, makes = item(self.session, step.takes), item(self.session, step.makes)
        if step.user in {OPERATOR, APPROVER}:
            yield from self._authenticate(step.user)
        if (step.agent, takes, Access.READ.value) in self._state.relations["matrix"]:
            yield self._get(step.agent, takes, Access.READ)
        yield self._get(step.agent, makes, Access.APPEND)
        yield self._machine.decide(
            procedure.value,
            {
                "u": step.user,
                "h": step.agent,
                "m": self.session,
                "i": takes,
                "o": makes,
                "v": value,
                "n": self._entries,
            },
        )

    def _authenticate(self, person: str) -> Iterator[Decision]:
        credential = item(self.session, f"credential of {person}")
        yield self._get(IDENTITY_PROVIDER, credential, Access.READ)
        yield self._machine.decide("authenticate", {"u": IDENTITY_PROVIDER, "s": person, "o": credential})

    def _get(self, subject: str, thing: str, access: Access) -> Decision:
        return self._machine.decide("get", {"u": subject, "o": thing, "x": access.value})

    def _close(self, procedure: Procedure) -> None:
        """Whatever was opened for it; what was not, stays closed."""
        step = STEPS[procedure]
        for thing, access in ((step.takes, Access.READ), (step.makes, Access.APPEND)):
            self._machine.decide(
                "release-access", {"u": step.agent, "o": item(self.session, thing), "x": access.value}
            )
