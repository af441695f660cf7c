"""`korora migration`: the migrations that run: list them, watch one, cancel one.

Promise: whoever runs it sees and does what the host's policies let the operator of his account; root, all.
Limit: a daemon tells of the migrations that began at it; where a VM is in the end, `korora vm show` says.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from korora.cli.invocation import Invocation
from korora.cli.options import AsJson, group
from korora.cli.render import error_text, say, say_json, table, warn
from korora.errors import ExitCode, KororaError, RefusedError, UsageError

if TYPE_CHECKING:
    from korora.client import MigrationOutcome
    from korora.client.views import MigrationView
    from korora.model.site import SiteHost

app = group("Migrations that run: list, watch, cancel.")
Id = Annotated[str, typer.Argument(metavar="ID", help="The migration: korora migration list.")]


@app.command("list")
def list_migrations(context: typer.Context, as_json: AsJson = False) -> None:
    """What runs on the hosts in reach, and what ended there of late."""
    found, silent = _all(Invocation.of(context))
    for error in silent:
        warn(error_text(error))
    if as_json:
        say_json([{"host": host.name, "migration": one} for host, one in found])
    else:
        rows = [(one.id, one.vm, host.name, one.destination, one.outcome or one.phase) for host, one in found]
        table(("ID", "VM", "FROM", "TO", "STAGE"), rows)
    if silent and not found:
        raise typer.Exit(silent[0].exit_code)


@app.command()
def watch(context: typer.Context, migration: Id, as_json: AsJson = False) -> None:
    """Follow one to its outcome; the exit code is the outcome's. To leave does not cancel it."""
    from korora.cli.migration.summary import told

    invocation = Invocation.of(context)
    outcome = _followed(invocation, _host_of(invocation, migration), migration, as_json=as_json)
    raise typer.Exit(told(outcome, as_json=as_json))


@app.command()
def cancel(context: typer.Context, migration: Id, as_json: AsJson = False) -> None:
    """Cancel one, and wait to learn where the VM runs. Exit code 3 if it came too late.

    Who asked, and whether he might, goes into the host's log.
    """
    invocation = Invocation.of(context)
    host = _host_of(invocation, migration)
    with invocation.daemon(host) as daemon:
        daemon.cancel(migration)
    try:
        outcome = _followed(invocation, host, migration, as_json=as_json)
    except RefusedError as error:
        raise RefusedError(
            f"it was asked to stop, and its outcome is not told: {error.message}",
            kind=error.kind,
            remedy=error.remedy,
        ) from error
    if as_json:
        say_json(outcome)
    elif outcome.outcome == "cancelled":
        said = outcome.error
        say(f"✓ cancelled: {outcome.vm} runs on {(said and said.vm_runs_on) or outcome.source}")
    else:
        warn(f"it came too late: the migration had the outcome {outcome.outcome}")
    raise typer.Exit(ExitCode.DONE if outcome.outcome == "cancelled" else ExitCode.REFUSED)


def _followed(invocation: Invocation, host: SiteHost, migration: str, *, as_json: bool) -> MigrationOutcome:
    from korora.cli.migration.progress import watcher
    from korora.client import MigrationOutcome

    with invocation.daemon(host) as daemon, closing(watcher(as_json=as_json)) as view:
        for event in daemon.events(migration):
            if isinstance(event, MigrationOutcome):
                return event
            view.see(event)
    raise AssertionError("events end with an outcome, or raise")


def _host_of(invocation: Invocation, migration: str) -> SiteHost:
    """Where it began. One that may be cancelled and not watched is on no list: then -H says the host."""
    if invocation.host:
        return invocation.chosen()
    found, silent = _all(invocation)
    for host, one in found:
        if one.id == migration:
            return host
    for error in silent:
        warn(error_text(error))
    raise UsageError(
        f"no host in reach tells of a migration {migration!r}",
        kind="unknown-migration",
        remedy="see: korora migration list; or name its source with -H",
    )


def _all(invocation: Invocation) -> tuple[list[tuple[SiteHost, MigrationView]], list[KororaError]]:
    found, silent = [], []
    for host in invocation.asked():
        try:
            with invocation.daemon(host) as daemon:
                found += [(host, one) for one in daemon.migrations()]
        except KororaError as error:
            silent.append(error)
    return found, silent
