"""`korora host`: the hosts of the site, and whether they can be trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from korora.cli.invocation import Invocation
from korora.cli.options import AsJson, HostArgument, group
from korora.cli.render import error_object, fields, say_json, table
from korora.errors import KororaError

if TYPE_CHECKING:
    from korora.client.views import HostView
    from korora.model.site import SiteHost

app = group("The hosts of the site.")


@app.command("list")
def list_hosts(context: typer.Context, as_json: AsJson = False) -> None:
    """Every host of the configuration, and whether its daemon answers."""
    invocation = Invocation.of(context)
    hosts = [invocation.site.host(invocation.host)] if invocation.host else invocation.site.hosts.values()
    found = [(host, _asked(invocation, host)) for host in hosts]
    if as_json:
        say_json([_described(host, answer) for host, answer in found])
        return
    table(("HOST", "ADDRESS", "DAEMON", "VERSION"), [_row(host, answer) for host, answer in found])


@app.command()
def show(context: typer.Context, host: HostArgument = None, as_json: AsJson = False) -> None:
    """One host, as its daemon describes it."""
    invocation = Invocation.of(context)
    chosen = invocation.chosen(host)
    with invocation.daemon(chosen) as daemon:
        view = daemon.host()
    if as_json:
        say_json(_described(chosen, view))
    else:
        fields(_pairs(chosen, view))


def _asked(invocation: Invocation, host: SiteHost) -> HostView | KororaError:
    try:
        with invocation.daemon(host) as daemon:
            return daemon.host(deadline_s=10.0)
    except KororaError as error:
        return error


def _row(host: SiteHost, answer: HostView | KororaError) -> tuple[object, ...]:
    if isinstance(answer, KororaError):
        return host.name, host.address, answer.kind, None
    return host.name, host.address, "answers", answer.version


def _described(host: SiteHost, answer: HostView | KororaError) -> dict[str, object]:
    """A host for scripts: what is configured, what its daemon says, and why it says nothing."""
    import msgspec

    configured = {"host": host.name, "address": host.address and str(host.address), "api": host.api}
    if isinstance(answer, KororaError):
        return {**configured, "answers": False, "error": error_object(answer)}
    return {**configured, "answers": True, "error": None, **msgspec.to_builtins(answer)}


def _pairs(host: SiteHost, view: HostView) -> list[tuple[str, object]]:
    facts = view.hypervisor or {}
    return [
        ("name", view.name),
        ("address", host.address),
        ("listens at", view.listen),
        ("version", view.version),
        ("enrolled", view.enrolled),
        ("hypervisor", f"{facts.get('name', '')} {facts.get('version', '')}".strip()),
        ("accelerator", facts.get("accelerator")),
        ("", facts.get("accelerator_note")),
        ("swtpm", facts.get("swtpm_version")),
        ("arriving migrations", view.incoming),
        ("log entries", view.log_size),
    ]
