"""`korora migrate`: move a VM, with its vTPM, and end with the truth about where it runs.

Promise: the last JSON object has every contracted key, whatever happened; the exit code says which kind.
Limit: the daemons do the work; this command asks, watches, and may ask to cancel.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from korora.cli.invocation import Invocation
from korora.cli.migration.disks import DiskOptions, takes_disks
from korora.cli.options import AsJson, To, VmArgument
from korora.cli.render import warn
from korora.errors import CancelledError, ExitCode, InDoubtError, KororaError
from korora.model.plan import Mode

if TYPE_CHECKING:
    from korora.cli.migration.cancellation import Cancellation
    from korora.cli.migration.follow import Ticket
    from korora.client import Daemon, MigrationOutcome
    from korora.client.events import Failure
    from korora.model.site import SiteHost


@takes_disks
def migrate(
    context: typer.Context,
    vm: VmArgument,
    to: To,
    mode: Annotated[
        Mode, typer.Option(help="live: the guest runs meanwhile; offline: it is suspended.")
    ] = Mode.LIVE,
    *,
    disks: DiskOptions,
    as_json: AsJson = False,
) -> None:
    """Move a VM, with its vTPM, to another attested host.

    Without -H the source is the host where the VM is found. Ctrl-C cancels, and waits until it is known
    where the VM runs. With --json: one object a line while it runs; the last one is the outcome.
    """
    invocation = Invocation.of(context)
    order = _Order(vm, to, mode, disks)
    try:
        outcome = order.carried_out(invocation, as_json=as_json)
    except Exception as problem:
        from korora.cli.failure import trace, understood

        if invocation.debug:
            trace(problem)
        outcome = _outcome_of(understood(problem))
    raise typer.Exit(_told(outcome, order, as_json=as_json))


def never_begun(error: KororaError) -> ExitCode:
    """Tell of a `migrate --json` whose very command line was wrong."""
    return _told(_outcome_of(error), None, as_json=True)


@dataclass(slots=True)
class _Order:
    """What was asked for; `source` once it is known, and `owner` when it was seen to own the VM."""

    vm: str
    destination: str
    mode: Mode
    disks: DiskOptions
    source: str | None = None
    owner: str | None = None

    def carried_out(self, invocation: Invocation, *, as_json: bool) -> MigrationOutcome:
        """Ask, and follow to the outcome."""
        from korora.cli.migration.cancellation import Cancellation
        from korora.cli.migration.follow import follow
        from korora.cli.migration.progress import watcher

        with Cancellation() as cancellation:
            try:
                ticket = self._accepted(invocation, cancellation)
                with closing(watcher(as_json=as_json)) as watch:
                    outcome = follow(invocation, ticket, watch)
                if cancellation.asked and outcome.outcome == "completed":
                    warn("korora: the cancellation came too late: the VM was the destination's already")
                return outcome
            except KeyboardInterrupt as leaving:
                raise _left(self.vm) from leaving

    def _accepted(self, invocation: Invocation, cancellation: Cancellation) -> Ticket:
        """Ask. Whoever refuses did not touch the VM: it is where it was seen."""
        try:
            return self._ask(invocation, cancellation)
        except InDoubtError:
            raise
        except KororaError as error:
            error.vm_runs_on = error.vm_runs_on or self.owner
            raise

    def _ask(self, invocation: Invocation, cancellation: Cancellation) -> Ticket:
        """Sign the request and hand it to the source's daemon."""
        from korora.cli.check import address_of
        from korora.cli.migration.follow import Ticket
        from korora.cli.migration.request import signed_request

        destination = invocation.site.host(self.destination)
        source = self._find_source(invocation)
        names = (source.name, destination.name)
        request = signed_request(invocation.site, self.vm, *names, self.mode, self.disks.asked())
        if cancellation.asked:
            raise CancelledError("cancelled before anything was asked", kind="cancelled")
        with invocation.daemon(source) as daemon:
            number = _begun(daemon, request.decode(), address_of(destination))
        cancellation.can_cancel(lambda: _cancel(invocation, source, number))
        return Ticket(number, self.vm, source, destination, self.mode)

    def _find_source(self, invocation: Invocation) -> SiteHost:
        if invocation.host:
            source = invocation.chosen()
        else:
            source, view = invocation.find(self.vm)
            self.owner = source.name if view.owned else None
        self.source = source.name
        return source


def _begun(daemon: Daemon, request: str, address: str | None) -> str:
    """The migration's id. InDoubtError when the daemon was lost before it said one."""
    from korora.client.transport import ConnectionLostError

    try:
        return daemon.migrate(request, address)
    except ConnectionLostError as error:
        raise InDoubtError(
            f"{error.message}; it is not known whether the migration began",
            kind=error.kind,
            remedy="`korora vm show` says where the VM runs, and whether it is moving",
        ) from error


def _completed(outcome: MigrationOutcome, order: _Order | None) -> MigrationOutcome:
    """The outcome with what the command knows itself, where the daemon did not say."""
    import msgspec

    from korora.client import VtpmComparison

    if order is not None:
        outcome = msgspec.structs.replace(
            outcome,
            vm=outcome.vm or order.vm,
            source=outcome.source or order.source,
            destination=outcome.destination or order.destination,
            mode=outcome.mode or order.mode.value,
        )
    return msgspec.structs.replace(
        outcome, vtpm=outcome.vtpm or VtpmComparison(), error=outcome.error or _plain_failure(outcome)
    )


def _cancel(invocation: Invocation, source: SiteHost, number: str) -> None:
    with invocation.daemon(source) as daemon:
        daemon.cancel(number)


def _left(vm: str) -> InDoubtError:
    return InDoubtError(
        f"left while the migration of {vm!r} was being cancelled; its outcome is not known here",
        kind="left",
        remedy=f"`korora vm show {vm}` says where it runs",
    )


def _outcome_of(error: KororaError) -> MigrationOutcome:
    from korora.client import MigrationOutcome
    from korora.client.events import failure_of, word_of

    return MigrationOutcome(outcome=word_of(error), error=failure_of(error))


def _plain_failure(outcome: MigrationOutcome) -> Failure | None:
    """A failure for an outcome that came without one; None for a good one."""
    if outcome.outcome == "completed":
        return None
    from korora.client.events import Failure

    return Failure(outcome.outcome, f"the migration ended as {outcome.outcome}", exit_code=outcome.exit_code)


def _told(outcome: MigrationOutcome, order: _Order | None, *, as_json: bool) -> ExitCode:
    from korora.cli.migration.summary import told

    return told(_completed(outcome, order), as_json=as_json)
