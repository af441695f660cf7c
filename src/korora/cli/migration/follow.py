"""Follow one migration to its outcome, also across a lost daemon, and say where the VM is in the end.

Promise: returns an outcome that is true as far as the hosts in reach know, and says so where they do not.
Limit: asks the hosts; it does not read their receipts' signatures (`korora receipt verify` does).
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from korora.cli.invocation import Invocation
from korora.cli.migration.progress import Watcher
from korora.client import MigrationNote, MigrationOutcome
from korora.client.events import Failure
from korora.client.views import VmView
from korora.errors import ExitCode, KororaError
from korora.model.plan import Mode
from korora.model.site import SiteHost

PATIENCE_S = 60.0  # a daemon restarts, and settles what it had begun, well within
_PAUSE_S = 0.5


@dataclass(frozen=True, slots=True)
class Ticket:
    """One migration that was asked for. `id` names it to the source's daemon."""

    id: str
    vm: str
    source: SiteHost
    destination: SiteHost
    mode: Mode


def follow(invocation: Invocation, ticket: Ticket, watch: Watcher) -> MigrationOutcome:
    """Watch until the outcome. When the daemon is lost, ask it again, and then both hosts about the VM."""
    lost_at: float | None = None
    while True:
        try:
            with invocation.daemon(ticket.source) as daemon:
                for event in daemon.events(ticket.id):
                    lost_at = None
                    if isinstance(event, MigrationOutcome):
                        return event
                    watch.see(event)
        except KororaError as error:
            forgotten = error.kind == "unknown-migration"  # it is back, and did not take it up again
            if lost_at is None:
                lost_at = time.monotonic()
                watch.see(MigrationNote(f"{error.message}; the migration may go on, asking again"))
            if forgotten or time.monotonic() - lost_at > PATIENCE_S:
                watch.see(MigrationNote(f"asking both hosts what became of {ticket.vm}"))
                return _aftermath(invocation, ticket, over=forgotten)
            time.sleep(_PAUSE_S)


def _aftermath(invocation: Invocation, ticket: Ticket, *, over: bool) -> MigrationOutcome:
    """What became of the VM, from the ownership that each host has recorded.

    `over`: the source's daemon does not run the migration any more, so that an owner there stays one.
    """
    deadline = time.monotonic() + PATIENCE_S
    while True:
        here = _seen(invocation, ticket.source, ticket.vm)
        there = _seen(invocation, ticket.destination, ticket.vm)
        if there is not None and there.owned and there.ownership != "starting":  # its run is not noted yet
            return _arrived(invocation, ticket, there)
        if here is not None and here.gave_it_away:
            return _arrived(invocation, ticket, here)
        if over and here is not None and here.ownership == "owner":
            return _stayed(ticket)
        if time.monotonic() > deadline:
            return _unknown(ticket)
        time.sleep(_PAUSE_S)


def _seen(invocation: Invocation, host: SiteHost, vm: str) -> VmView | None:
    """The VM as that host knows it; None when it knows none, or cannot be asked."""
    try:
        with invocation.daemon(host) as daemon:
            return daemon.vm(vm)
    except KororaError:
        return None


def _arrived(invocation: Invocation, ticket: Ticket, view: VmView) -> MigrationOutcome:
    receipt = _receipt(invocation, ticket.source, view.session) or _receipt(
        invocation, ticket.destination, view.session
    )
    if receipt is not None:
        return _outcome(ticket, "completed", session=view.session, receipt=receipt)
    # Proved to run there, so nothing is in doubt; only what should follow was not completed.
    failure = Failure(
        "no-receipt",
        f"VM {ticket.vm!r} moved and runs on {ticket.destination.name}, but the source's daemon was lost and"
        " there is no receipt of it",
        "`korora receipt list` shows one if it still comes; the daemon's log on"
        f" {ticket.source.name} says whether its remains there were wiped",
        ticket.destination.name,
        ExitCode.TOOL,
    )
    return _outcome(ticket, "failed", session=view.session, error=failure)


def _stayed(ticket: Ticket) -> MigrationOutcome:
    failure = Failure(
        "daemon-lost",
        f"the source's daemon was lost before the migration was committed; VM {ticket.vm!r} did not move",
        f"look at the daemon's log on {ticket.source.name}, then migrate again",
        ticket.source.name,
        ExitCode.TOOL,
    )
    return _outcome(ticket, "failed", error=failure)


def _unknown(ticket: Ticket) -> MigrationOutcome:
    failure = Failure(
        "daemon-lost",
        f"the source's daemon was lost, and no host in reach has noted that VM {ticket.vm!r} runs there",
        f"start the daemons of {ticket.source.name} and {ticket.destination.name} again: they settle it;"
        f" `korora vm show {ticket.vm}` then says where it runs. Destroy nothing by hand",
        None,
        ExitCode.IN_DOUBT,
    )
    return _outcome(ticket, "in-doubt", error=failure)


def _receipt(invocation: Invocation, host: SiteHost, session: str | None) -> str | None:
    try:
        with invocation.daemon(host) as daemon:
            return next((entry.path for entry in daemon.receipts() if entry.session == session), None)
    except KororaError:
        return None


def _outcome(
    ticket: Ticket,
    word: str,
    *,
    session: str | None = None,
    receipt: str | None = None,
    error: Failure | None = None,
) -> MigrationOutcome:
    return MigrationOutcome(
        outcome=word,  # type: ignore[arg-type] # one of the words; see the callers
        session=session,
        vm=ticket.vm,
        source=ticket.source.name,
        destination=ticket.destination.name,
        mode=ticket.mode.value,
        receipt=receipt,
        error=error,
    )
