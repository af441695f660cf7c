"""Inspections and flags for people."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from korora.cli.render import fields, mark, one_line, say, size, table
from korora.errors import ExitCode
from korora.model.flag import Flag, FlagKind, shown
from korora.model.inspection import (
    CheckResult,
    DiskFacts,
    DiskVerified,
    FileVerified,
    Inspection,
    Verification,
)

FILES_SHOWN = 50
_LINE_EVERY_S = 10.0
_WORDS = 300


@contextmanager
def progress(*, quiet: bool) -> Iterator[Callable[[str], None]]:
    """What is told meanwhile: on a terminal in one line, elsewhere a line now and then."""
    if quiet:
        yield lambda _: None
        return
    if not sys.stderr.isatty():
        yield _Lines().see
        return
    from rich.console import Console
    from rich.status import Status
    from rich.text import Text

    # As Text: a status takes a string for markup, which `[/x]` in a name breaks.
    with Status("looking", console=Console(stderr=True, highlight=False)) as status:
        yield lambda words: status.update(Text(one_line(words)))


class _Lines:
    def __init__(self) -> None:
        self._at = time.monotonic()

    def see(self, words: str) -> None:
        if time.monotonic() - self._at >= _LINE_EVERY_S:
            self._at = time.monotonic()
            print(one_line(words), file=sys.stderr, flush=True)


def when(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def show_inspection(report: Inspection, flags: Iterable[Flag]) -> None:
    what = "as it was at one moment, running" if report.running else "stopped"
    say(f"{report.vm} on {report.host}, {what}; {when(report.at)}, {report.took_s} s")
    table(("CHECK", "LEADS TO", "LOOKED AT", "FOUND", "OPEN", "UNKNOWN", ""), map(_check, report.checks))
    _disks(report.disks)
    for one in report.configuration:
        told = one.digest or "unknown: not all of it can be read"
        say(one_line(f"{one.file} ({one.format}): {told}"))
    show_flags([(report.vm, flag) for flag in flags])


def _check(one: CheckResult) -> tuple[object, ...]:
    sign = mark(None if one.unknown else not one.found)
    return (
        f"{sign} {one.check}",
        one.disposition,
        one.examined,
        one.found,
        one.open,
        one.unknown,
        one.words[:80],
    )


def _disks(disks: Iterable[DiskFacts]) -> None:
    for disk in disks:
        root = disk.root or "unknown"
        held = f", with {disk.placeholders} placeholders" if disk.placeholders else ""
        say(f"disk {disk.name} ({disk.format}, {size(disk.size)}{held}): {root}")
        if disk.files or disk.files_root:
            say(f"    {disk.files:,} files: {disk.files_root or 'unknown: not all of them were read'}")


def show_flags(flags: Iterable[tuple[str, Flag]]) -> None:
    rows = [
        (
            flag.id[:8],
            vm,
            flag.kind,
            state(flag),
            when(flag.seen_at),
            shown(flag.place)[:80],
            flag.reason[:80],
        )
        for vm, flag in flags
    ]
    if rows:
        say()
        table(("FLAG", "VM", "KIND", "STATE", "SEEN", "PLACE", "REASON"), rows)


def state(flag: Flag) -> str:
    from korora.protocol.flag import peek

    if flag.is_open:
        return "open"
    said = peek(flag.resolution)
    return f"{'accepted' if said.choice == 'accept' else 'restored'} by {said.by}"


def show_flag(vm: str, host: str, flag: Flag) -> None:
    from korora.protocol.flag import peek, placeholder

    kept = flag.original
    original = (
        f"{size(kept.size)}, {kept.digest}" if kept.digest else f"not kept: {one_line(kept.left) or '–'}"
    )
    stands = flag.kind is FlagKind.UNREADABLE and placeholder(flag.id, flag.place.length or 0)[:72].decode()
    said = peek(flag.resolution) if flag.resolution else None
    fields(
        [
            ("flag", flag.id),
            ("VM", f"{vm} (on {host})"),
            ("kind", flag.kind),
            ("place", one_line(shown(flag.place))),
            ("reason", one_line(flag.reason)),
            ("content", flag.content),
            ("raised", f"{when(flag.raised_at)} by host {flag.raised_by}"),
            ("seen last", when(flag.seen_at)),
            ("original", original),
            ("in its place", stands or None),
            ("state", state(flag)),
            ("because", one_line(said.reason) if said else None),
            ("signed", f"{when(said.issued_at)}; the signature is not checked here" if said else None),
        ]
    )


def show_verification(one: Verification) -> None:
    before = f"{one.of.host}, {when(one.of.at)}"
    say(f"{one.vm} on {one.host}, held against its inspection on {before}")
    say(f"{mark(one.proved)} the baseline is {'the one' if one.proved else 'not the one'} of that report")
    say("– it ran since: what differs may be its own work" if one.ran else "– it has not run since")
    _compared_disks(one)
    if one.compared.files_same is not None:
        changed = len(one.compared.files) + one.compared.files_more
        say(f"{mark(not changed)} {one.compared.files_same:,} files the same, {changed:,} not")
    for file in one.compared.files[:FILES_SHOWN]:
        say(f"    {one_line(_file(file))}")
    more = len(one.compared.files) + one.compared.files_more - FILES_SHOWN
    if more > 0:
        say(f"    … and {more:,} more: see --json")
    for words in one.compared.configuration:
        say(one_line(f"✗ {words}"))
    for found in one.compared.examined.found:
        if found.kind is FlagKind.DIFFERS and one.ran:
            continue  # counted above, and maybe its own work
        say(one_line(f"✗ {found.kind}: {shown(found.place)[:200]}: {found.reason[:_WORDS]}"))


def _compared_disks(one: Verification) -> None:
    for disk in one.compared.disks:
        if disk.chunks_differ is None:
            say(f"– disk {disk.name}: there is no baseline of its chunks")
            continue
        counted = f"{disk.chunks_same} chunks the same, {disk.chunks_differ} not"
        good = None if _is_unknown(disk) or (one.ran and _differs(disk)) else not _differs(disk)
        say(f"{mark(good)} disk {disk.name}: {counted} (chunks of 1 MiB)")
    for name in _not_compared(one):
        say(f"– disk {name}: it was inspected then, and could not be looked at now")


def _file(one: FileVerified) -> str:
    what = f": {'; '.join(one.what)}" if one.what else ""
    path = one.path.decode("utf-8", "backslashreplace")
    return f"{one.change}: {one.disk}, volume {one.volume}: {path}{what}"


# -- exit codes ---------------------------------------------------------------------------------------------


def code_of_inspection(report: Inspection) -> ExitCode:
    if any(one.found for one in report.checks if one.check != "unknown"):
        return ExitCode.INTEGRITY
    return ExitCode.TOOL if any(one.unknown for one in report.checks) else ExitCode.DONE


def code_of_verification(one: Verification) -> ExitCode:
    """What differs is its own work where it ran; where it did not, nothing may."""
    compared = one.compared
    grave = [found for found in compared.examined.found if found.kind is not FlagKind.UNREAD]
    if one.ran:
        grave = [found for found in grave if found.kind is not FlagKind.DIFFERS]
    differs = not one.ran and (compared.files or compared.files_more or any(map(_differs, compared.disks)))
    if grave or differs or compared.configuration or not one.proved:
        return ExitCode.INTEGRITY
    return ExitCode.TOOL if _leaves_unknown(one) else ExitCode.DONE


def _leaves_unknown(one: Verification) -> bool:
    """Whether anything that was inspected then was not held against it now."""
    compared, looked = one.compared, {seen.check for seen in one.compared.examined.looked}
    files_then = any(disk.files for disk in one.of.disks)
    return (
        any(seen.unknown for seen in compared.examined.looked)
        or any(then.check not in looked for then in one.of.checks)
        or any(map(_is_unknown, compared.disks))
        or bool(_not_compared(one))
        or (files_then and compared.files_same is None)
    )


def _not_compared(one: Verification) -> list[str]:
    """Disks whose chunks were measured then, and that nobody came to now."""
    now = {disk.name for disk in one.compared.disks}
    return [disk.name for disk in one.of.disks if disk.root is not None and disk.name not in now]


def _is_unknown(disk: DiskVerified) -> bool:
    return disk.before is None or disk.now is None or disk.chunks_differ is None


def _differs(disk: DiskVerified) -> bool:
    known = disk.before is not None and disk.now is not None
    return bool(disk.chunks_differ) or (known and disk.before != disk.now)
