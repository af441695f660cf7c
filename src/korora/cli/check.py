"""`korora check`: ask both hosts whether a migration could begin, without beginning it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from korora.cli.invocation import Invocation
from korora.cli.migration.disks import DiskOptions, takes_disks
from korora.cli.options import AsJson, To, VmArgument
from korora.cli.render import say, say_json
from korora.errors import ExitCode
from korora.model.identity import VmName
from korora.model.plan import Inquiry, Mode

if TYPE_CHECKING:
    from korora.model.plan import Finding
    from korora.model.site import SiteHost
    from korora.model.storage import DisksAsked


@takes_disks
def check(
    context: typer.Context,
    vm: VmArgument,
    to: To,
    mode: Annotated[
        Mode, typer.Option(help="Of the migration; a stopped VM can only move with offline.")
    ] = Mode.LIVE,
    *,
    disks: DiskOptions,
    as_json: AsJson = False,
) -> None:
    """Run the prechecks of a migration on both hosts, and show all that fail with what mends them.

    The source's policy is asked about the operator of the configuration, if it names one. Exit code 0 when
    nothing stands in the way, 3 otherwise.
    """
    invocation = Invocation.of(context)
    destination = invocation.site.host(to)
    source = invocation.find(vm)[0]
    asked = _inquiry(invocation, vm, destination, mode, disks.asked())
    with invocation.daemon(source) as daemon:
        findings = daemon.check(asked)
    if as_json:
        say_json(
            {
                "vm": vm,
                "source": source.name,
                "destination": destination.name,
                "passed": not findings,
                "findings": findings,
            }
        )
    else:
        _show(vm, source, destination, findings)
    if findings:
        raise typer.Exit(ExitCode.REFUSED)


def _inquiry(
    invocation: Invocation, vm: str, destination: SiteHost, mode: Mode, disks: DisksAsked
) -> Inquiry:
    operator = invocation.site.operator
    return Inquiry(
        VmName(vm),
        destination.name,
        mode,
        None if operator is None else operator.name,
        address_of(destination),
        disks,
    )


def address_of(host: SiteHost) -> str | None:
    """Where the daemons may reach it; who it is stands in its certificate alone."""
    return None if host.address is None else str(host.address)


def _show(vm: str, source: SiteHost, destination: SiteHost, findings: tuple[Finding, ...]) -> None:
    if not findings:
        say(f"✓ {vm} can move from {source.name} to {destination.name}")
        return
    say(f"✗ {vm} cannot move from {source.name} to {destination.name}:")
    for finding in findings:
        say(f"  {finding.check} on {finding.host}: {finding.message}")
        if finding.remedy:
            say(f"    what to do: {finding.remedy}")
