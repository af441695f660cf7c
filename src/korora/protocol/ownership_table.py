"""The transition table of ownership: from where, on what, under which condition, whereto and why.

Only data. `protocol.ownership.step` reads it, docs/ownership.md is generated from it, and the model check
walks it. What no row foresees is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from korora.model.ownership import Do, End, On, Status


class When(StrEnum):
    """On what condition a row applies, beside state and event."""

    ALWAYS = ""
    COPY = "the copy lives"
    NO_COPY = "the copy is lost"
    NEW = "never known here"
    NOT_OLDER = "its epoch is not older"
    NEWER = "its epoch is newer"


EVENTS_EPOCH = None  # take the epoch that the event names


@dataclass(frozen=True, slots=True)
class Row:
    """In one of the states `at`, on `on`, when `when`: go to `then` (None: stay) and do `do`.

    `epoch` is added to the state's; `ends` says how the session ends here, None keeps it.
    """

    at: tuple[Status, ...]
    on: On
    then: Status | None
    do: tuple[Do, ...]
    why: str
    when: When = When.ALWAYS
    epoch: int | None = 0
    ends: End | None = None


def _row(
    at: Status | tuple[Status, ...],
    on: On,
    then: Status | None,
    *do: Do,
    why: str,
    when: When = When.ALWAYS,
    epoch: int | None = 0,
    ends: End | None = None,
) -> Row:
    return Row(at if isinstance(at, tuple) else (at,), on, then, do, why, when, epoch, ends)


GONE = (Status.ABSENT, Status.WIPED)
_GIVEN_UP = (Status.RELEASED, Status.IN_DOUBT)
_PROVED = (Status.TAKEN_OVER, Status.WIPED)
_WAITING = (Status.LOADED, Status.ORPHANED)

# The first row that fits is taken.
TABLE: tuple[Row, ...] = (
    # ── at rest
    _row(Status.ABSENT, On.CREATED, Status.OWNER, why="a VM starts its life", when=When.NEW, epoch=1),
    _row(GONE, On.RESTARTED, None, Do.DESTROY, why="died before it destroyed", when=When.COPY),
    _row(GONE, On.RESTARTED, None, why="nothing is here"),
    _row(Status.OWNER, On.RESTARTED, None, Do.RESUME, why="died between journal and resume, or while moving"),
    _row(Status.OWNER, On.FAILED, None, Do.RESUME, why="nothing was offered yet: the VM goes on"),
    _row(
        (*GONE, Status.OWNER, *_GIVEN_UP, *_PROVED, Status.DECLINED, Status.FENCED),
        On.HYPERVISOR_FAILED,
        None,
        why="a VM that crashed; who owns it does not change",
    ),
    # ── the source
    _row(Status.OWNER, On.OFFERED, Status.OFFERED, Do.SEND_MANIFEST, why="all is sent and the VM stopped"),
    _row(
        Status.OFFERED,
        On.ACCEPT,
        Status.RELEASED,
        Do.SEND_RELEASE,
        why="the point of no return: the destination has all of it, verified",
        epoch=1,
    ),
    *(
        _row(
            Status.OFFERED,
            on,
            Status.OWNER,
            Do.RESUME,
            Do.SEND_CLOSED,
            why="before the release any failure leaves the VM here",
            when=When.COPY,
            ends=End.CLOSED,
        )
        for on in (On.FAILED, On.PEER_SILENT, On.RESTARTED)
    ),
    _row(
        Status.OFFERED,
        On.ABORT,
        Status.OWNER,
        Do.RESUME,
        Do.SEND_CLOSED,
        why="the destination has nothing to run",
        ends=End.CLOSED,
    ),
    *(
        _row(
            Status.OFFERED,
            on,
            None,
            Do.SEND_MANIFEST,
            why="the copy here is lost: the destination's may be the last, so ask for its ACCEPT",
        )
        for on in (On.HYPERVISOR_FAILED, On.FAILED, On.RESTARTED)
    ),
    _row(Status.OFFERED, On.PEER_SILENT, None, Do.ASK, why="no copy here, and no word from the other"),
    _row(
        Status.OFFERED,
        On.TAKE_BACK,
        Status.OWNER,
        Do.SEND_CLOSED,
        why="a person gives up what was in memory; the VM starts again from its disk",
        when=When.NO_COPY,
        ends=End.CLOSED,
    ),
    *(
        _row(Status.OFFERED, on, None, Do.SEND_MANIFEST, why="the manifest was lost")
        for on in (On.QUERY, On.REMINDED)
    ),
    _row(
        Status.OFFERED,
        On.RUNNING,
        Status.FENCED,
        Do.ASK,
        why="it runs there without a release: a person decided so, or that host lies",
        epoch=1,
    ),
    _row(_GIVEN_UP, On.RUNNING, Status.TAKEN_OVER, Do.WIPE, why="proved to run there"),
    _row(
        _GIVEN_UP,
        On.DECLINE,
        Status.OWNER,
        Do.RESUME,
        Do.SEND_CLOSED,
        why="it never ran there and never will",
        when=When.COPY,
        epoch=1,
        ends=End.CLOSED,
    ),
    _row(_GIVEN_UP, On.DECLINE, Status.IN_DOUBT, Do.ASK, why="the destination's copy may be the last one"),
    *(
        _row(_GIVEN_UP, on, None, Do.SEND_RELEASE, why="the release was lost")
        for on in (On.ACCEPT, On.QUERY, On.REMINDED, On.RESTARTED)
    ),
    *(
        _row(_GIVEN_UP, on, None, why="released stays released: keep the copy and wait for a signed answer")
        for on in (On.FAILED, On.ABORT)
    ),
    _row(_GIVEN_UP, On.PEER_SILENT, Status.IN_DOUBT, Do.ASK, why="only a person can know more"),
    _row(
        Status.IN_DOUBT,
        On.TAKE_BACK,
        Status.OWNER,
        Do.RESUME,
        Do.SEND_DECISION,
        why="a person declares the destination out of the game",
        epoch=1,
        ends=End.OVERRULED,
    ),
    _row(Status.TAKEN_OVER, On.WIPE_DONE, Status.WIPED, why="nothing is left here"),
    *(
        _row(Status.TAKEN_OVER, on, None, Do.WIPE, why="the wipe was interrupted")
        for on in (On.RESTARTED, On.REMINDED)
    ),
    *(
        _row(_PROVED, on, None, why="late or repeated: it was proved to run there")
        for on in (On.ACCEPT, On.RUNNING, On.DECLINE, On.ABORT, On.QUERY, On.FAILED, On.PEER_SILENT)
    ),
    # ── the destination
    _row(
        Status.ABSENT,
        On.BEGUN,
        Status.LOADING,
        Do.PREPARE,
        why="a VM comes",
        when=When.NOT_OLDER,
        epoch=EVENTS_EPOCH,
    ),
    _row(
        Status.WIPED,
        On.BEGUN,
        Status.LOADING,
        Do.PREPARE,
        why="a VM comes back",
        when=When.NEWER,
        epoch=EVENTS_EPOCH,
    ),
    _row(Status.LOADING, On.MANIFEST, None, Do.VERIFY, why="the source says what it sent"),
    _row(Status.LOADING, On.VERIFIED, Status.LOADED, Do.SEND_ACCEPT, why="whole and equal"),
    *(
        _row(
            Status.LOADING,
            on,
            Status.ABSENT,
            Do.DESTROY,
            Do.SEND_ABORT,
            why="not whole: the source has the VM",
            ends=End.DISCARDED,
        )
        for on in (On.FAILED, On.PEER_SILENT, On.HYPERVISOR_FAILED, On.RESTARTED)
    ),
    _row(
        (Status.LOADING, *_WAITING),
        On.CLOSED,
        Status.ABSENT,
        Do.DESTROY,
        why="the source kept the VM",
        ends=End.DISCARDED,
    ),
    _row(_WAITING, On.RELEASE, Status.STARTING, Do.RUN, why="this host is the owner now", when=When.COPY),
    _row(_WAITING, On.RELEASE, Status.DECLINED, Do.SEND_DECLINE, why="there is nothing left to run"),
    _row(_WAITING, On.MANIFEST, None, Do.SEND_ACCEPT, why="the acceptance was lost", when=When.COPY),
    _row(_WAITING, On.MANIFEST, None, Do.SEND_ABORT, why="there is nothing left to accept"),
    _row(_WAITING, On.HYPERVISOR_FAILED, None, Do.SEND_ABORT, why="accepted, so only the source can end it"),
    *(
        _row(_WAITING, on, None, Do.SEND_QUERY, why="accepted, so only the source can say what became of it")
        for on in (On.RESTARTED, On.REMINDED, On.FAILED)
    ),
    _row(_WAITING, On.PEER_SILENT, Status.ORPHANED, Do.ASK, why="only a person can know more"),
    _row(
        Status.ORPHANED,
        On.RUN_HERE,
        Status.STARTING,
        Do.RUN,
        why="a person declares the source out of the game",
        when=When.COPY,
    ),
    _row(
        (Status.ORPHANED, Status.DECLINED),
        On.DISCARD,
        Status.ABSENT,
        Do.DESTROY,
        Do.SEND_DECLINE,
        why="a person knows that the source has the VM",
        ends=End.DECLINED,
    ),
    _row(Status.STARTING, On.RUN_SUCCEEDED, Status.OWNER, Do.SEND_RUNNING, why="it runs"),
    _row(
        Status.STARTING,
        On.RUN_REFUSED,
        Status.DECLINED,
        Do.SEND_DECLINE,
        why="it cannot run here and never did",
    ),
    _row(Status.STARTING, On.RESTARTED, None, Do.RUN, why="ordered, but not noted", when=When.COPY),
    _row(Status.STARTING, On.REMINDED, None, Do.RUN, why="ordered, but not noted", when=When.COPY),
    *(
        _row(Status.STARTING, on, None, Do.ASK, why="it may have run: neither start it nor decline unasked")
        for on in (On.RESTARTED, On.HYPERVISOR_FAILED, On.REMINDED)
    ),
    _row(Status.STARTING, On.RUN_HERE, None, Do.RUN, why="a person lets it start again from its disk"),
    *(
        _row(Status.STARTING, on, None, why="the answer comes when the run is noted")
        for on in (On.MANIFEST, On.RELEASE, On.FAILED, On.PEER_SILENT)
    ),
    *(
        _row(Status.OWNER, on, None, Do.SEND_RUNNING, why="the report was lost")
        for on in (On.MANIFEST, On.RELEASE)
    ),
    _row(
        (Status.OWNER, Status.STARTING),
        On.CLOSED,
        None,
        Do.SEND_DECISION,
        why="both own it: only a person's decision leads here, and the other side must hear it",
    ),
    *(
        _row(Status.DECLINED, on, None, Do.SEND_DECLINE, why="the refusal was lost")
        for on in (On.MANIFEST, On.RELEASE, On.REMINDED, On.RESTARTED)
    ),
    _row(
        Status.DECLINED,
        On.CLOSED,
        Status.ABSENT,
        Do.DESTROY,
        why="the source took the VM back",
        epoch=1,
        ends=End.DECLINED,
    ),
    _row(Status.DECLINED, On.PEER_SILENT, None, Do.ASK, why="the source must take the VM back"),
    _row(Status.DECLINED, On.FAILED, None, why="declined stays declined"),
    _row(
        Status.DECLINED,
        On.RUN_HERE,
        Status.STARTING,
        Do.RUN,
        why="a person declares the source out of the game",
        when=When.COPY,
        epoch=2,
        ends=End.OVERRULED,
    ),
    # ── when a person decided wrongly: the higher epoch wins
    _row(
        (Status.LOADING, *_WAITING, Status.DECLINED),
        On.SUPERSEDED,
        Status.ABSENT,
        Do.DESTROY,
        why="the VM was given to the other side",
        when=When.NEWER,
        epoch=EVENTS_EPOCH,
        ends=End.DISCARDED,
    ),
    _row(
        (Status.OWNER, Status.OFFERED, Status.STARTING, *_GIVEN_UP),
        On.SUPERSEDED,
        Status.FENCED,
        Do.PAUSE,
        Do.ASK,
        why="two owners: the higher epoch wins; this copy is stopped and kept",
        when=When.NEWER,
        epoch=EVENTS_EPOCH,
    ),
    _row(Status.FENCED, On.RESTARTED, None, Do.PAUSE, Do.ASK, why="still overruled"),
    _row(Status.FENCED, On.REMINDED, None, Do.ASK, why="still overruled"),
    _row(
        Status.FENCED,
        On.DISCARD,
        Status.ABSENT,
        Do.DESTROY,
        why="a person has compared the two",
        ends=End.DISCARDED,
    ),
)
