"""The words of ownership: how a host stands to a VM, what can happen, what to do about it.

Only values; what follows from what is the table in `protocol.ownership`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from korora.model.identity import HostName, SessionId


class Status(StrEnum):
    """How a host stands to one VM; the text is what the journal holds."""

    ABSENT = "absent"  # no copy here; `epoch` is the highest this host has seen
    OWNER = "owner"  # this host owns the VM and may run it
    OFFERED = "offered"  # source: all is sent, the manifest signed, the VM paused; still the owner
    RELEASED = "released"  # source: given up; the paused copy is kept
    IN_DOUBT = "in-doubt"  # source: released, the destination silent; a person is asked
    TAKEN_OVER = "taken-over"  # source: proved to run at the destination; the wipe is under way
    WIPED = "wiped"  # source: nothing is left
    LOADING = "loading"  # destination: the state arrives
    LOADED = "loaded"  # destination: complete and verified, paused; must not run
    ORPHANED = "orphaned"  # destination: loaded, the source silent; a person is asked
    STARTING = "starting"  # destination: owner by RELEASE; the run was ordered, its outcome not noted
    DECLINED = "declined"  # destination: the claim is durably given up, the VM never ran here
    FENCED = "fenced"  # overruled by a decision elsewhere; paused and kept, a person is asked


class On(StrEnum):
    """What can happen. The upper-case ones are messages of the peer, verified before they get here."""

    MANIFEST = "MANIFEST"  # signed by the source: what was sent
    ACCEPT = "ACCEPT"  # signed by the destination: it arrived, whole and equal
    RELEASE = "RELEASE"  # signed by the source: the VM is the destination's
    RUNNING = "RUNNING"  # signed by the destination: it owns the VM and has run it
    DECLINE = "DECLINE"  # signed by the destination: it never ran the VM and never will
    CLOSED = "CLOSED"  # the source owns the VM, and this session will never be released (again)
    ABORT = "ABORT"  # the destination has no copy that it could run
    QUERY = "QUERY"  # the destination asks what became of the session
    CREATED = "created"  # an administrator defined the VM here
    OFFERED = "offered"  # source: the hypervisor says the stream is complete and the VM stopped
    BEGUN = "begun"  # destination: a session (each only once) brings the VM, as the source's epoch + 1
    VERIFIED = "verified"  # destination: loaded, and equal to the manifest
    FAILED = "failed"  # a local failure, a broken connection or a cancel
    RUN_SUCCEEDED = "run-succeeded"  # it runs, or has run
    RUN_REFUSED = "run-refused"  # the hypervisor refused, and it is certain that the VM has not run
    WIPE_DONE = "wipe-done"
    PEER_SILENT = "peer-silent"  # asked again and again, past the deadline
    REMINDED = "reminded"  # a timer: ask or tell again
    HYPERVISOR_FAILED = "hypervisor-failed"  # the process with the VM's state is gone
    RESTARTED = "restarted"  # the daemon came back; `copy` says whether the process still lives
    SUPERSEDED = "superseded"  # a signed decision, shown by the peer, gave the VM away at `epoch`
    TAKE_BACK = "decision take-back"  # a person, at the source: the destination is out of the game
    RUN_HERE = "decision run-here"  # a person, at the destination: the source is out of the game
    DISCARD = "decision discard"  # a person: this copy is not needed


MESSAGES = frozenset(
    {On.MANIFEST, On.ACCEPT, On.RELEASE, On.RUNNING, On.DECLINE, On.CLOSED, On.ABORT, On.QUERY}
)
STATEMENTS = frozenset({On.MANIFEST, On.ACCEPT, On.RELEASE, On.RUNNING, On.DECLINE})  # signed, with epoch


class Do(StrEnum):
    """What to do. Every one may be done again after a crash without harm."""

    PAUSE = "pause"
    JOURNAL = "journal"  # the new state, durably, before anything after it
    PREPARE = "prepare"  # start an empty, paused VM that waits for its state
    VERIFY = "verify"  # compare what arrived with the manifest; then VERIFIED or FAILED
    RESUME = "resume"  # let the VM run again, if its process lives
    RUN = "run"  # the first run after the move; then RUN_SUCCEEDED or RUN_REFUSED
    DESTROY = "destroy"  # end the process that holds the copy, and remove what it held
    WIPE = "wipe"  # overwrite, verify, certify; then WIPE_DONE
    ASK = "ask"  # show the evidence to a person
    REPEAT = "repeat"  # as `answer` says, from how this other session ended here
    SEND_MANIFEST = "send MANIFEST"
    SEND_ACCEPT = "send ACCEPT"
    SEND_RELEASE = "send RELEASE"
    SEND_RUNNING = "send RUNNING"
    SEND_DECLINE = "send DECLINE"
    SEND_CLOSED = "send CLOSED"
    SEND_ABORT = "send ABORT"
    SEND_QUERY = "send QUERY"
    SEND_DECISION = "send the decision"  # SUPERSEDED at the other side


class End(StrEnum):
    """How a session ended on this host; kept with the session's record, for late questions."""

    CLOSED = "closed"  # source: kept or took back the VM
    OVERRULED = "overruled"  # a person decided that this host has the VM
    PROVED = "proved"  # source: the destination runs it
    RAN = "ran"  # destination: became the owner
    DISCARDED = "discarded"  # destination: never owned it
    DECLINED = "declined"  # destination: gave its claim up


OWNING = frozenset({Status.OWNER, Status.OFFERED, Status.STARTING})
MAY_RUN = frozenset({Status.OWNER, Status.STARTING})
UNDECIDED = frozenset({Status.IN_DOUBT, Status.ORPHANED, Status.FENCED})


@dataclass(frozen=True, slots=True)
class OwnershipState:
    """One host's standing to one VM. All but `copy` is journalled.

    `copy`: this host's process that holds the VM's state (or, of a stopped VM, its files) is there.
    """

    status: Status
    epoch: int
    session: SessionId | None = None
    peer: HostName | None = None
    copy: bool = False

    @property
    def owns(self) -> bool:
        return self.status in OWNING

    @property
    def may_run(self) -> bool:
        return self.status in MAY_RUN


NOTHING = OwnershipState(Status.ABSENT, 0)


@dataclass(frozen=True, slots=True)
class Event:
    """`session` comes with messages, OFFERED and BEGUN; `peer` with the last two; `copy` with RESTARTED;
    `epoch` with STATEMENTS, BEGUN and SUPERSEDED."""

    on: On
    session: SessionId | None = None
    epoch: int | None = None
    peer: HostName | None = None
    copy: bool | None = None


@dataclass(frozen=True, slots=True)
class Action:
    """`session` is the one it is about, which the new state may have left behind."""

    do: Do
    session: SessionId | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    session: SessionId
    how: End


@dataclass(frozen=True, slots=True)
class Step:
    """`ended`, if any, goes into the journal together with the state."""

    state: OwnershipState
    actions: tuple[Action, ...] = ()
    ended: Ended | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """The event has no place here; nothing changes.

    `kind`: `illegal-step`, `wrong-epoch`, `stale-epoch` (an old owner offers) or `busy` (another session).
    """

    kind: str
    reason: str
