"""A VM's standing on this host: the pure ownership table, driven and journalled.

The one place that writes ownership to the journal. `JOURNAL` is durable before whatever follows it, and what
this object believes is never ahead of the journal.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

import structlog

from korora.errors import PeerError
from korora.model.identity import SessionId, VmName
from korora.model.ownership import NOTHING, Do, Ended, Event, OwnershipState, Refused, Status
from korora.ports.journal import Journal, VmRecord
from korora.protocol import ownership

Hand = Callable[[], Awaitable[None]]
log = structlog.get_logger("korora.migration")


class Standing:
    """One VM on this host. Events come in, one at a time; hands do what the table says."""

    def __init__(self, journal: Journal, vm: VmName, *, copy: bool) -> None:
        self._journal = journal
        self._vm = vm
        self.definition = ""
        record = journal.vm(vm)
        if record is None:
            self.state = NOTHING
        else:
            self.definition = record.definition
            self.state = OwnershipState(
                Status(record.ownership), record.epoch, record.session, record.peer, copy
            )

    async def on(self, event: Event, hands: Mapping[Do, Hand]) -> None:
        """Take the step and do its actions, in order. An action without a hand is left to the next event.

        PeerError when the table refuses the event: it has no place here, and nothing changed. When a hand
        fails, the new state stands if it was journalled, and does not otherwise.
        """
        step = ownership.step(self.state, event)
        if isinstance(step, Refused):
            raise PeerError(f"{self._vm}: {step.reason}", kind=step.kind)
        for action in step.actions:
            if action.do is Do.JOURNAL:
                self._write(step.state, step.ended)
                self.state = step.state
            elif action.do in hands:
                await hands[action.do]()
        if all(action.do is not Do.JOURNAL for action in step.actions):
            self.state = step.state  # only whether the copy lives may differ

    def _write(self, state: OwnershipState, ended: Ended | None) -> None:
        if ended is not None:
            self._note_end(ended)
        known = self._journal.vm(self._vm) or VmRecord(self._vm, self.definition, state.status, state.epoch)
        self._journal.write_vm(
            replace(
                known,
                definition=self.definition or known.definition,
                ownership=state.status,
                epoch=state.epoch,
                session=state.session,
                peer=state.peer,
                # What arrives runs in a place of ours, also where a VM of its name was adopted once.
                qmp_socket=None if state.status is Status.LOADING else known.qmp_socket,
            )
        )
        log.info("ownership", vm=self._vm, status=state.status, epoch=state.epoch, session=state.session)

    def _note_end(self, ended: Ended) -> None:
        record = self._journal.session(SessionId(ended.session))
        if record is not None:
            self._journal.write_session(replace(record, outcome=ended.how))
