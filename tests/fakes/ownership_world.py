"""A small world for the ownership table: two hosts, their journals, a network that delivers anything at any
time, crashes between any two actions, dying hypervisors, and a host that never comes back.

A message once sent may be delivered never, once or many times, early or late; and once, the network may
lose all that it holds, so that only asking again helps. `moves` gives every next world with the name of
what happened, and whether it was a fault.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from korora.model.identity import HostName, SessionId
from korora.model.ownership import (
    Do,
    End,
    Event,
    On,
    OwnershipState,
    Refused,
    Status,
    Step,
)
from korora.protocol.ownership import answer, step

EMPTY = -1  # a process that waits for the VM's state
SENDS = {
    Do.SEND_MANIFEST: On.MANIFEST,
    Do.SEND_ACCEPT: On.ACCEPT,
    Do.SEND_RELEASE: On.RELEASE,
    Do.SEND_RUNNING: On.RUNNING,
    Do.SEND_DECLINE: On.DECLINE,
    Do.SEND_CLOSED: On.CLOSED,
    Do.SEND_ABORT: On.ABORT,
    Do.SEND_QUERY: On.QUERY,
    Do.SEND_DECISION: On.SUPERSEDED,
}


class UnsafeError(AssertionError):
    """The table did something that must never happen."""


class Mail(NamedTuple):
    to: int
    on: On
    session: int
    epoch: int


class Pending(NamedTuple):
    """The rest of a step: actions not done yet, with what JOURNAL will write."""

    do: Do
    session: int | None
    on: On
    ended: tuple[int, End] | None


class Host(NamedTuple):
    journal: OwnershipState
    state: OwnershipState | None  # None: the daemon is down
    pending: tuple[Pending, ...]
    copy: int | None  # the VM's version in the hypervisor process; None: no process
    running: bool
    ended: tuple[tuple[int, End], ...]
    gone: bool
    owned_with_copy: bool  # when it last became the owner, the copy lived
    moving: int | None = None  # the source's session, while it lives in the daemon's memory


class World(NamedTuple):
    hosts: tuple[Host, Host]
    mail: frozenset[Mail]
    latest: int  # the VM's newest version: grows whenever it begins to run
    epochs: tuple[tuple[int, int], ...]  # each session with its hand-over epoch
    streamed: frozenset[int]
    whole: frozenset[tuple[int, int]]  # host, version: copies that ran or are journalled as verified
    ran: frozenset[int]  # sessions whose destination has run the VM
    decided: bool  # a person has decided something
    losses: int
    refusals: int
    crashes: int
    deaths: int
    departures: int


@dataclass(frozen=True)
class Limits:
    sessions: int
    crashes: int
    deaths: int
    departures: int
    returns: bool = False  # a later session may start at either host
    losses: int = 0  # how often the network loses everything
    refusals: int = 1  # how often a hypervisor refuses to run the VM
    patient: bool = False  # nobody gives a living host up for silent


class Move(NamedTuple):
    name: str
    fault: bool
    world: World


def first_world(limits: Limits) -> World:
    owner = OwnershipState(Status.OWNER, 1)
    nothing = OwnershipState(Status.ABSENT, 0)
    return World(
        (
            Host(owner, OwnershipState(Status.OWNER, 1, copy=True), (), 1, True, (), False, True),
            Host(nothing, nothing, (), None, False, (), False, False),
        ),
        frozenset(),
        1,
        (),
        frozenset(),
        frozenset({(0, 1)}),
        frozenset(),
        False,
        limits.losses,
        limits.refusals,
        limits.crashes,
        limits.deaths,
        limits.departures,
    )


@cache
def cached_step(state: OwnershipState, event: Event) -> Step | Refused:
    return step(state, event)


def moves(world: World, limits: Limits) -> Iterator[Move]:
    if world.losses and world.mail:
        yield Move("all mail is lost", True, world._replace(mail=frozenset(), losses=world.losses - 1))
    for me in (0, 1):
        host = world.hosts[me]
        if host.gone:
            continue
        if world.departures and not world.hosts[1 - me].gone:
            departed = host._replace(state=None, pending=(), copy=None, running=False, gone=True)
            left = _put(world, me, departed)._replace(departures=world.departures - 1)
            yield Move(f"{me}: leaves for ever", True, left)
        if world.deaths and host.copy is not None:
            yield Move(f"{me}: hypervisor dies", True, _hypervisor_dies(world, me))
        if host.state is None:
            yield from _event(world, me, Event(On.RESTARTED, copy=host.copy is not None))
            continue
        if world.crashes:
            crashed = host._replace(state=None, pending=(), moving=None)
            died = _put(world, me, crashed)._replace(crashes=world.crashes - 1)
            yield Move(f"{me}: daemon dies", True, died)
        if host.pending:
            yield from _act(world, me)
        else:
            yield from _idle(world, me, limits)


def _idle(world: World, me: int, limits: Limits) -> Iterator[Move]:
    host = world.hosts[me]
    state = host.state
    assert state is not None
    if state.copy and host.copy is None:
        yield from _event(world, me, Event(On.HYPERVISOR_FAILED))
        return
    for mail in world.mail:
        if mail.to == me:
            yield from _deliver(world, me, mail)
    for on in (On.REMINDED, On.FAILED, On.PEER_SILENT):
        # A loading destination notices by itself that its source gave up: the connection is gone.
        expected = state.status is Status.LOADING or (on is On.PEER_SILENT and world.hosts[1 - me].gone)
        fault = on is not On.REMINDED and not expected
        if not (fault and on is On.PEER_SILENT and limits.patient):
            yield from _event(world, me, Event(on), fault=fault)
    yield from _session(world, me, limits)
    yield from _person(world, me)


def _session(world: World, me: int, limits: Limits) -> Iterator[Move]:
    """The source begins one; its stream reaches a waiting destination; the source offers."""
    host, other = world.hosts[me], world.hosts[1 - me]
    state, theirs = host.state, other.state
    assert state is not None
    if state.status is not Status.OWNER or host.copy is None:
        return
    number = host.moving
    if number is None:
        if len(world.epochs) < limits.sessions and (me == 0 or limits.returns) and host.running:
            number = len(world.epochs) + 1
            begun = _put(world, me, host._replace(moving=number))
            epochs = (*world.epochs, (number, state.epoch + 1))
            yield Move(f"{me}: begins", False, begun._replace(epochs=epochs))
        return
    session = SessionId(str(number))
    if number in world.streamed:
        yield from _event(world, me, Event(On.OFFERED, session, None, HostName(str(1 - me))))
    elif theirs is not None and not other.pending:
        if number not in dict(other.ended) and theirs.status is not Status.LOADING:  # it begins once
            event = Event(On.BEGUN, session, _epoch(world, number), HostName(str(me)))
            yield from _event(world, 1 - me, event)
        elif theirs.session == session and other.copy == EMPTY:
            sent = _put(world, me, host._replace(running=False))
            sent = _put(sent, 1 - me, other._replace(copy=host.copy))
            yield Move(f"{me}: streams", False, sent._replace(streamed=world.streamed | {number}))


def _person(world: World, me: int) -> Iterator[Move]:
    """Decides only what is true: that the other host is out of the game, and this copy the newest."""
    host, other = world.hosts[me], world.hosts[1 - me]
    assert host.state is not None
    out = other.gone or (other.journal.status is Status.DECLINED and other.state is not None)
    newest = host.copy is None or host.copy == world.latest
    if out and newest and not (other.gone and other.journal.owns and host.copy is None):
        yield from _event(world._replace(decided=True), me, Event(On.TAKE_BACK))
    if other.gone and host.copy == world.latest:
        yield from _event(world._replace(decided=True), me, Event(On.RUN_HERE))
    if host.state.status is Status.STARTING and host.copy is None:
        yield from _event(world._replace(decided=True), me, Event(On.RUN_HERE))


def _deliver(world: World, me: int, mail: Mail) -> Iterator[Move]:
    yield from _event(world, me, Event(mail.on, SessionId(str(mail.session)), mail.epoch))


def _event(world: World, me: int, event: Event, *, fault: bool = False) -> Iterator[Move]:
    host = world.hosts[me]
    before = host.journal if host.state is None else host.state
    taken = cached_step(before, event)
    if isinstance(taken, Refused) or (
        host.state == taken.state and _says_nothing_new(world, me, taken, event)
    ):
        return
    ended = None if taken.ended is None else (int(taken.ended.session), taken.ended.how)
    pending = tuple(
        Pending(action.do, None if action.session is None else int(action.session), event.on, ended)
        for action in taken.actions
    )
    # An offer that is withdrawn is a taking too: only a living copy may make the other's superfluous.
    became = taken.state.owns and (not before.owns or before.status is Status.OFFERED)
    after = host._replace(
        state=taken.state,
        pending=pending,
        owned_with_copy=host.copy is not None if became else host.owned_with_copy,
        # A session that failed or was handed to the table never offers again.
        moving=None if event.on in (On.FAILED, On.OFFERED) else host.moving,
    )
    yield Move(f"{me}: {event.on} {event.session or ''}", fault, _put(world, me, after))


def _says_nothing_new(world: World, me: int, taken: Step, event: Event) -> bool:
    """It only sends again what is still under way: the same world."""
    host = world.hosts[me]
    for action in taken.actions:
        do: Do | None = action.do
        if do is Do.REPEAT and action.session is not None:
            do = answer(dict(host.ended).get(int(action.session)), event.on)
        if do in {None, Do.ASK}:
            continue
        if do not in SENDS or action.session is None:
            return False
        if _send(world, me, do, int(action.session)) is not world:
            return False
    return True


def _act(world: World, me: int) -> Iterator[Move]:  # noqa: PLR0912 - one case for each action
    host = world.hosts[me]
    assert host.state is not None
    now, rest = host.pending[0], host.pending[1:]
    done = _put(world, me, host._replace(pending=rest))
    name = f"{me}: {now.do}"
    match now.do:
        case Do.JOURNAL:
            ended = host.ended if now.ended is None else tuple(sorted({*host.ended, now.ended}))
            written = host._replace(journal=_durable(host.state), ended=ended, pending=rest)
            noted = _put(world, me, written)
            if host.state.status is Status.LOADED and host.copy is not None:
                # What the streams' roots said is known to nobody after a crash: it counts from here on.
                noted = noted._replace(whole=noted.whole | {(me, host.copy)})
            yield Move(name, False, noted)
        case Do.PREPARE:
            yield Move(name, False, _put(done, me, done.hosts[me]._replace(copy=EMPTY)))
        case Do.VERIFY:
            if host.copy is not None and host.copy != EMPTY:
                yield from _event(done, me, Event(On.VERIFIED))
            yield from _event(done, me, Event(On.FAILED), fault=host.copy is not None)
        case Do.RESUME:
            yield Move(name, False, _runs(done, me) if host.copy is not None else done)
        case Do.RUN:
            yield from _run(done, me, now)
        case Do.DESTROY | Do.WIPE:
            _check_destruction(world, me, now.do, now.session)
            destroyed = _put(done, me, done.hosts[me]._replace(copy=None, running=False))
            if now.do is Do.WIPE:
                yield from _event(destroyed, me, Event(On.WIPE_DONE))
            else:
                yield Move(name, False, destroyed)
        case Do.PAUSE:
            yield Move(name, False, _put(done, me, done.hosts[me]._replace(running=False)))
        case Do.REPEAT:
            assert now.session is not None
            do = answer(dict(host.ended).get(now.session), now.on)
            yield Move(name, False, done if do is None else _send(done, me, do, now.session))
        case Do.ASK:
            yield Move(name, False, done)
        case _:
            assert now.session is not None
            yield Move(name, False, _send(done, me, now.do, now.session))


def _run(world: World, me: int, now: Pending) -> Iterator[Move]:
    host = world.hosts[me]
    assert host.state is not None
    if host.copy is None:
        if world.decided and now.on is On.RUN_HERE:  # from its disk
            fresh = _put(world, me, host._replace(copy=world.latest))
            yield from _event(_ran(_runs(fresh, me), me), me, Event(On.RUN_SUCCEEDED))
        else:
            yield Move(f"{me}: nothing to run", False, world)
        return
    if not host.running:
        if world.refusals:
            refused = world._replace(refusals=world.refusals - 1)
            yield from _event(refused, me, Event(On.RUN_REFUSED), fault=True)
        # It may also run and die before anybody notes it.
        if world.deaths:
            yield Move(f"{me}: runs and dies", True, _hypervisor_dies(_ran(_runs(world, me), me), me))
    yield from _event(_ran(_runs(world, me), me), me, Event(On.RUN_SUCCEEDED))


def _ran(world: World, me: int) -> World:
    state = world.hosts[me].state
    assert state is not None
    return world if state.session is None else world._replace(ran=world.ran | {int(state.session)})


def _runs(world: World, me: int) -> World:
    host = world.hosts[me]
    if host.running:
        return world
    if host.copy != world.latest:
        raise UnsafeError(f"host {me} would run an old or empty copy {host.copy}, not {world.latest}")
    latest = world.latest + 1
    ran = _put(world, me, host._replace(copy=latest, running=True))
    return ran._replace(latest=latest, whole=frozenset({(me, latest)}))


def _send(world: World, me: int, do: Do, session: int) -> World:
    state = world.hosts[me].state
    assert state is not None
    epoch = state.epoch if do is Do.SEND_DECISION else _epoch(world, session)
    mail = Mail(1 - me, SENDS[do], session, epoch)
    return world if mail in world.mail else world._replace(mail=world.mail | {mail})


def _hypervisor_dies(world: World, me: int) -> World:
    died = world.hosts[me]._replace(copy=None, running=False)
    return _put(world, me, died)._replace(deaths=world.deaths - 1)


def _check_destruction(world: World, me: int, do: Do, session: int | None) -> None:
    host, other = world.hosts[me], world.hosts[1 - me]
    if do is Do.WIPE and session not in world.ran:
        raise UnsafeError(f"host {me} wipes before the VM ran at the destination")
    if host.journal.owns:
        raise UnsafeError(f"host {me} destroys what its journal says it owns")
    newest = host.copy == world.latest and (me, world.latest) in world.whole
    if newest and not world.decided and not (other.journal.owns and other.owned_with_copy):
        raise UnsafeError(f"host {me} destroys the last copy")


def check(world: World) -> None:
    """What must hold in every world."""
    one, two = world.hosts
    if one.running and two.running:
        raise UnsafeError("the VM runs twice")
    if one.journal.owns and two.journal.owns and not (one.gone or two.gone):
        raise UnsafeError("two hosts own the VM")
    for host in world.hosts:
        if host.running and not host.gone and not (host.journal.may_run):
            raise UnsafeError(f"it runs while the journal says {host.journal}")


def settled(world: World) -> bool:
    """The run has ended: one owner, nothing left elsewhere; or a host is gone and a person is asked."""
    here = [host for host in world.hosts if not host.gone]
    if any(host.state is None or host.pending for host in here):
        return False
    statuses = [host.state.status for host in here if host.state is not None]
    if len(here) == 1:
        return here[0].state is not None and not _ends_by_itself(here[0])
    owners = [host for host in here if host.journal.status is Status.OWNER]
    clean = sum(status in (Status.ABSENT, Status.WIPED) for status in statuses)
    nothing_left = all(host.copy is None for host in here if host not in owners)
    return len(owners) == 1 and clean == 1 and nothing_left and (owners[0].running or owners[0].copy is None)


def _ends_by_itself(host: Host) -> bool:
    """Alone, it may be the running owner, have nothing, or wait for a person; anything else must move on."""
    assert host.state is not None
    match host.state.status:
        case Status.OWNER:
            return not host.running and host.copy is not None
        case Status.ABSENT | Status.WIPED:
            return host.copy is not None
        case Status.IN_DOUBT | Status.ORPHANED | Status.DECLINED:
            return False
        case Status.OFFERED | Status.STARTING:
            return host.copy is not None
        case _:
            return True


def _durable(state: OwnershipState) -> OwnershipState:
    return OwnershipState(state.status, state.epoch, state.session, state.peer)


def _epoch(world: World, session: int) -> int:
    return dict(world.epochs)[session]


def _put(world: World, me: int, host: Host) -> World:
    hosts = (host, world.hosts[1]) if me == 0 else (world.hosts[0], host)
    return world._replace(hosts=hosts)
