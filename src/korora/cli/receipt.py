"""`korora receipt`: what a migration left as proof. Offline: no daemon is asked, but by `list`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from korora.cli.invocation import Invocation
from korora.cli.options import AsJson, group
from korora.cli.render import error_text, fields, mark, milliseconds, say, say_json, size, table, warn
from korora.errors import IntegrityError, KororaError, ToolError, UsageError

if TYPE_CHECKING:
    from korora.cli.evidence.receipt import Claims

app = group("Receipts of migrations.")

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="The receipt's file.")]


@app.command("list")
def list_receipts(context: typer.Context, as_json: AsJson = False) -> None:
    """The receipts that the hosts in reach keep; each path is on its host."""
    invocation = Invocation.of(context)
    rows: list[dict[str, str | None]] = []
    silent: list[KororaError] = []
    hosts = invocation.asked()
    for host in hosts:
        try:
            with invocation.daemon(host) as daemon:
                rows += [
                    {
                        "host": host.name,
                        "session": entry.session,
                        "vm": entry.vm,
                        "outcome": entry.outcome,
                        "path": entry.path,
                    }
                    for entry in daemon.receipts()
                ]
        except ToolError as error:
            silent.append(error)
    if len(silent) == len(hosts):
        raise silent[0]
    for problem in silent:
        warn(error_text(problem))
    if as_json:
        say_json(rows)
    else:
        table(
            ("VM", "HOST", "OUTCOME", "PATH"), [(r["vm"], r["host"], r["outcome"], r["path"]) for r in rows]
        )


@app.command()
def show(file: FileArgument, as_json: AsJson = False) -> None:
    """What a receipt says. Nothing is verified here: see `korora receipt verify`."""
    told = _claims(file)
    if as_json:
        say_json({"file": file, "verified": None, **_document(told)})
        return
    say(f"What {file} says (not verified: korora receipt verify {file})")
    fields(_pairs(told))


@app.command()
def verify(
    context: typer.Context,
    file: FileArgument,
    operators: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The operators' keys; default: `authorization` of [site]."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check everything in a receipt that can be checked without trusting the hosts.

    Trust anchors come from [site] of the configuration. Exit code 0 when all holds, 5 when not: a file
    that is no receipt (any more) does not hold either.
    """
    from korora.cli.evidence.anchors import operators_of
    from korora.cli.evidence.checks import told
    from korora.cli.evidence.receipt import judged
    from korora.cli.site import read_bytes
    from korora.protocol.receipt.document import MAX_BUNDLE_BYTES

    site = Invocation.of(context).site
    checks = judged(read_bytes(file, "the receipt", MAX_BUNDLE_BYTES), site, operators_of(site, operators))
    code = told(
        f"the receipt {file}",
        checks,
        {"file": file},
        as_json=as_json,
        remedy="believe nothing in it that depends on a failed check; ask the other host for its copy",
    )
    raise typer.Exit(code)


def _claims(file: Path) -> Claims:
    """UsageError(kind="not-a-receipt"): nothing is judged here, so what cannot be read is the wrong file."""
    from korora.cli.evidence.receipt import claims
    from korora.cli.site import read_bytes
    from korora.protocol.receipt.document import MAX_BUNDLE_BYTES

    try:
        return claims(read_bytes(file, "the receipt", MAX_BUNDLE_BYTES))
    except IntegrityError as error:
        raise UsageError(
            f"{file} cannot be shown as a receipt: {error.message}",
            kind="not-a-receipt",
            remedy="`korora receipt list` names the receipts; if it was one, ask the other host for its copy",
        ) from error


def _document(told: Claims) -> dict[str, object]:
    logs = [{"host": host, "index": index, "head": head} for host, index, head in told.logs]
    return {
        "receipt": told.receipt,
        "request": told.request,
        "manifest": told.manifest,
        "accept": told.accept,
        "logs": logs,
    }


def _pairs(told: Claims) -> Iterator[tuple[str, object]]:
    receipt, request = told.receipt, told.request
    yield "VM", f"{receipt.vm} (epoch {receipt.epoch})"
    yield "from", f"{receipt.source} to {receipt.destination}, {receipt.mode}"
    yield "completed", _moment(receipt.completed_at)
    yield "asked by", f"{request.operator}, {_moment(request.issued_at)}"
    for name, part in (
        (receipt.source, receipt.source_host),
        (receipt.destination, receipt.destination_host),
    ):
        yield f"allowed on {name}", part.allowed_by
        yield f"quoted by {name}", ", ".join(f"PCR {pcr}" for pcr in sorted(part.evidence.pcrs))
    rule = receipt.rule
    yield "cryptography", f"{rule.tls_version} {rule.tls_group}, {rule.aead}, {rule.digest}, {rule.key_wrap}"
    yield "prechecks", ", ".join(receipt.prechecks)
    yield "downtime", milliseconds(receipt.timings.downtime_ms)
    yield "total time", milliseconds(receipt.timings.total_ms)
    yield "bytes sent", f"{size(receipt.bytes_sent)} for {size(receipt.bytes_guest)} of guest memory"
    yield from _vtpm(told)
    yield from _memory(told)
    yield from _disks(told)
    yield from _inside(told)
    for host, index, head in told.logs:
        yield f"in the log of {host}", f"entry {index} of {head.size}"
    for limit in receipt.limits:
        yield "limit", limit
    yield "session", receipt.session


def _vtpm(told: Claims) -> Iterator[tuple[str, object]]:
    sent, arrived = told.manifest.carried, told.accept.carried
    yield "streams", f"{mark(sent.roots == arrived.roots)} the same roots on both hosts ({len(sent.roots)})"
    if sent.blobs is not None:
        yield "vTPM state", f"{mark(sent.blobs == arrived.blobs)} the same digests on both hosts"
    if sent.vtpm is None or arrived.vtpm is None:
        return
    yield "vTPM before", sent.vtpm.ek_name
    yield "vTPM after", arrived.vtpm.ek_name
    yield (
        "vTPM the same",
        f"endorsement key {mark(sent.vtpm.ek_name == arrived.vtpm.ek_name)}"
        f"  PCRs {mark(sent.vtpm.pcrs == arrived.vtpm.pcrs)}  NV {mark(sent.vtpm.nv == arrived.vtpm.nv)}",
    )
    boot = told.receipt.guest_boot
    if boot is not None:
        yield "guest's measured boot", "; ".join((boot.verdict, *boot.findings))


def _memory(told: Claims) -> Iterator[tuple[str, object]]:
    clean, wipe = told.receipt.clean_memory, told.receipt.wipe
    if clean is not None:
        yield "destination's memory", f"{mark(clean.clean)} clean before: {clean.method}"
    for step in wipe.steps:
        yield (
            f"wiped: {step.what}",
            f"{mark(step.verified)} {step.method} ({size(step.bytes)}) {step.note}".rstrip(),
        )
    for limit in wipe.limits:
        yield "not wiped", limit


def _disks(told: Claims) -> Iterator[tuple[str, object]]:
    """Those that moved, as they were with the VM paused for good."""
    from korora.protocol.statements import read_disks

    sent, arrived = read_disks(told.manifest.disks), read_disks(told.accept.disks)
    for disk in sent:
        yield f"disk {disk.name}", f"{mark(disk in arrived)} the same on both hosts: {disk.root}"


def _inside(told: Claims) -> Iterator[tuple[str, object]]:
    """What was found in the VM before it left."""
    report, flags = told.receipt.inspection, told.receipt.flags
    if report is not None:
        how = "running, at one moment" if report.running else "stopped"
        yield "looked into", f"by {report.host}, {_moment(report.at)}, {how}"
        for one in report.checks:
            counted = f"{one.found} found in {one.examined}, {one.unknown} unknown ({one.disposition})"
            yield f"  {one.check}", f"{mark(None if one.unknown else not one.found)} {counted}"
        for disk in report.disks:
            yield f"  disk {disk.name}", disk.root or "unknown"
    if flags is not None:
        yield "flags", f"{flags.open} open, {flags.resolved} resolved"


def _moment(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
