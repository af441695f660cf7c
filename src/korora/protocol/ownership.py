"""Who owns a VM: exactly one host, through every crash, lost message and dead hypervisor (S8).

One pure table (`protocol.ownership_table`). `step(state, event)` gives the next state and what to do, in
order: first what only takes away (PAUSE), then JOURNAL, then what gives or destroys. Every message may be
lost, repeated or reordered, and both daemons may die between any two actions: after a restart, the
journalled state and a RESTARTED event lead on. What the table does not foresee is a Refused value and
changes nothing.

The *epoch* of a VM grows by one at each hand-over; a host may run the VM only while its journal says
`owner` or `starting`. No action of the table destroys the last copy of the VM.

Limit: a person's decision is believed. One who declares a host gone that still runs the VM makes two owners
until the two hosts meet again; then the lower epoch is fenced.
Model-checked in tests/unit/protocol/test_ownership_model.py; drawn in docs/ownership.md.
"""

from __future__ import annotations

from dataclasses import replace

from korora.model.ownership import (
    MESSAGES,
    STATEMENTS,
    Action,
    Do,
    End,
    Ended,
    Event,
    On,
    OwnershipState,
    Refused,
    Status,
    Step,
)
from korora.protocol.ownership_table import GONE, TABLE, Row, When


def step(state: OwnershipState, event: Event) -> Step | Refused:
    """What follows from `event`. Do the actions in order, and give no other event before the last is done."""
    if event.on in MESSAGES and event.session != state.session:
        return _of_another_session(state, event)
    if event.on in STATEMENTS and event.epoch != _handover_epoch(state):
        return Refused(
            "wrong-epoch", f"{event.on} is about epoch {event.epoch}, this host is at {_short(state)}"
        )
    seen = _as_seen(state, event)
    row = _ROWS.get((state.status, event.on), ())
    taken = next((fit for fit in row if _holds(fit.when, seen, event)), None)
    return _no_row(state, event) if taken is None else _taken(state, seen, event, taken)


def answer(how: End | None, on: On) -> Do | None:
    """What to send when `on` comes for a session that is over here, or was never known (None)."""
    match how:
        case End.CLOSED if on in (On.ACCEPT, On.DECLINE, On.QUERY):
            return Do.SEND_CLOSED
        case End.OVERRULED:
            return Do.SEND_DECISION
        case End.RAN if on in (On.MANIFEST, On.RELEASE):
            return Do.SEND_RUNNING
        case End.DECLINED if on in (On.MANIFEST, On.RELEASE):
            return Do.SEND_DECLINE
        case End.DISCARDED | None if on in (On.MANIFEST, On.RELEASE):
            return Do.SEND_ABORT
        case _:
            # To a QUERY about a session it never knew a host says nothing: its own journal may be the one
            # that was lost, and CLOSED would destroy the other's copy.
            return None


def _by_place(table: tuple[Row, ...]) -> dict[tuple[Status, On], tuple[Row, ...]]:
    places = {(status, row.on) for row in table for status in row.at}
    return {
        (status, on): tuple(row for row in table if status in row.at and row.on is on)
        for status, on in places
    }


_ROWS = _by_place(TABLE)


def _of_another_session(state: OwnershipState, event: Event) -> Step:
    if event.on is On.ABORT:
        return Step(state)  # what is over here is over there
    return Step(state, (Action(Do.REPEAT, event.session),))


def _handover_epoch(state: OwnershipState) -> int:
    return state.epoch + 1 if state.status is Status.OFFERED else state.epoch


def _as_seen(state: OwnershipState, event: Event) -> OwnershipState:
    match event.on:
        case On.HYPERVISOR_FAILED:
            return replace(state, copy=False)
        case On.RESTARTED:
            return replace(state, copy=bool(event.copy))
        case _:
            return state


def _holds(when: When, seen: OwnershipState, event: Event) -> bool:
    match when:
        case When.ALWAYS:
            return True
        case When.COPY:
            return seen.copy
        case When.NO_COPY:
            return not seen.copy
        case When.NEW:
            return seen.epoch == 0
        case When.NOT_OLDER:
            return event.epoch is not None and event.epoch >= max(seen.epoch, 1)
        case When.NEWER:
            return event.epoch is not None and event.epoch > seen.epoch


def _taken(before: OwnershipState, seen: OwnershipState, event: Event, row: Row) -> Step:
    after = _after(seen, event, row)
    about = before.session if event.session is None else event.session
    journal = (Do.JOURNAL,) if replace(after, copy=before.copy) != before else ()
    first = tuple(do for do in row.do if do is Do.PAUSE)  # taking away is safe at any time, and urgent
    rest = tuple(do for do in row.do if do is not Do.PAUSE)
    if about is None:  # after a decision no session is left to speak in
        rest = tuple(do for do in rest if not do.startswith("send"))
    actions = tuple(Action(do, about) for do in (*first, *journal, *rest))
    return Step(after, actions, _ended(before, after, row))


def _after(seen: OwnershipState, event: Event, row: Row) -> OwnershipState:
    epoch = seen.epoch + row.epoch if row.epoch is not None else event.epoch or 0
    after = replace(seen, status=row.then or seen.status, epoch=epoch)
    if row.on in (On.OFFERED, On.BEGUN):
        # There is a copy: what is offered (a stopped VM's files too), or the empty VM that waits.
        after = replace(after, session=event.session, peer=event.peer, copy=True)
    elif row.ends is not None:
        after = replace(after, session=None, peer=None)
    return replace(after, copy=False) if after.status in GONE else after


def _ended(before: OwnershipState, after: OwnershipState, row: Row) -> Ended | None:
    if before.session is None or before.session == after.session:
        return None
    if row.ends is not None:
        return Ended(before.session, row.ends)
    # A new session took the old one's place: it was over, with the VM handed on.
    return Ended(before.session, End.PROVED if before.status is Status.WIPED else End.RAN)


def _no_row(state: OwnershipState, event: Event) -> Refused:
    if event.on is On.BEGUN and state.status in GONE:
        return Refused(
            "stale-epoch", f"epoch {event.epoch} is offered, but this host has seen epoch {state.epoch}"
        )
    if event.on in (On.BEGUN, On.OFFERED):
        return Refused("busy", f"this host is at {_short(state)}: that comes first")
    return Refused("illegal-step", f"{event.on} has no place at {_short(state)}")


def _short(state: OwnershipState) -> str:
    return f"{state.status}({state.epoch})"
