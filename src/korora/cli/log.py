"""`korora log`: a host's append-only log of migrations and decisions."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, TypeVar

import typer

from korora.cli.invocation import Invocation
from korora.cli.options import AsJson, HostArgument, group
from korora.cli.render import error_object, error_text, say, say_json, table, warn
from korora.errors import ExitCode, KororaError

if TYPE_CHECKING:
    from korora.model.site import SiteHost
    from korora.protocol.decision import PolicyDecision
    from korora.protocol.flag import ResolutionEntry
    from korora.protocol.log import InspectionEntry, LogEntry

    Entry: TypeAlias = LogEntry | PolicyDecision | InspectionEntry | ResolutionEntry

E = TypeVar("E")
app = group("A host's append-only log.")


@app.command()
def show(context: typer.Context, host: HostArgument = None, as_json: AsJson = False) -> None:
    """The entries of a host's log, oldest first. Nothing is verified here: see `korora log verify`."""
    invocation = Invocation.of(context)
    with invocation.daemon(invocation.chosen(host)) as daemon:
        log = daemon.log()
    entries = [_read(leaf) for leaf in log.leaves]
    if as_json:
        say_json({"host": log.host, "size": log.size, "root": log.root, "entries": entries})
        return
    say(f"log of {log.host}: {log.size} entries, root {log.root}")
    table(
        ("ENTRY", "KIND", "VM", "SESSION", "DIGEST OR DECISION"),
        [(index, *_row(entry)) for index, entry in enumerate(entries)],
    )


@app.command()
def verify(context: typer.Context, host: HostArgument = None, as_json: AsJson = False) -> None:
    """Recompute a host's log, compare it with the signed head, and with what was seen of it before.

    Without a host: all of them, an object a line with --json. Exit code 0 when all holds, 5 when something
    does not; otherwise 6 when a host is silent.
    """
    invocation = Invocation.of(context)
    if host:
        raise typer.Exit(_verified(invocation, invocation.chosen(host), as_json=as_json))
    codes = [_verified_or_silent(invocation, chosen, as_json=as_json) for chosen in invocation.asked()]
    raise typer.Exit(ExitCode.INTEGRITY if ExitCode.INTEGRITY in codes else max(codes))


def _verified_or_silent(invocation: Invocation, chosen: SiteHost, *, as_json: bool) -> ExitCode:
    """One host that cannot be asked keeps no other from being looked at."""
    try:
        return _verified(invocation, chosen, as_json=as_json)
    except KororaError as error:
        if as_json:
            say_json({"host": chosen.name, "verified": None, "error": error_object(error)})
        warn(error_text(error))
        return error.exit_code


def _verified(invocation: Invocation, chosen: SiteHost, *, as_json: bool) -> ExitCode:
    from korora.cli.evidence.checks import told
    from korora.cli.evidence.log import verify

    with invocation.daemon(chosen) as daemon:
        found = verify(invocation.site, chosen.name, daemon)
    return told(
        f"the log of {chosen.name}",
        found.checks,
        {"host": chosen.name, "size": found.size, "head": found.head},
        as_json=as_json,
        remedy="keep the log and its heads: they are the evidence; find out who changed the host's history",
    )


def _read(leaf: bytes) -> Entry | dict[str, str]:
    """The entry; of one that is not in the format, its bytes."""
    from korora.protocol import decision
    from korora.protocol.flag import ResolutionEntry
    from korora.protocol.log import InspectionEntry, LogEntry

    if (told := decision.read(leaf)) is not None:
        return told
    return (
        _decoded(leaf, LogEntry)
        or _decoded(leaf, InspectionEntry)
        or _decoded(leaf, ResolutionEntry)
        or {"unknown": leaf.hex()}
    )


def _decoded(leaf: bytes, kind: type[E]) -> E | None:
    from korora.protocol import canonical

    try:
        return canonical.decoded(leaf, kind)
    except KororaError:
        return None


def _row(entry: Entry | dict[str, str]) -> tuple[object, ...]:
    if isinstance(entry, dict):
        return "unknown", None, None, entry["unknown"][:40]
    match entry.kind:
        case "resolution":
            return entry.kind, entry.vm, None, f"{entry.choice} flag {entry.flag[:8]}, by {entry.by}"
        case "inspection" | "verification":
            return entry.kind, entry.vm, None, entry.digest
        case "policy":
            return entry.kind, entry.vm, entry.session[:16], f"{entry.procedure}: {entry.answer}"
        case _:
            return entry.kind, entry.vm, entry.session[:16], entry.digest
