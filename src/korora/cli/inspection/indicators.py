"""`korora indicators`: what is known to be bad, from several sources, and whether it is in files or
memory."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from korora.cli.inspection.files import Paths
from korora.cli.inspection.image import Allowed, Declared
from korora.cli.inspection.indicator_store import Store, located
from korora.cli.options import AsJson, group
from korora.cli.render import fields, mark, say, say_json, size, table
from korora.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from korora.wiring.indicator_matching import Comparison, Examined, Match, Matching
    from korora.wiring.indicators import Imported, Told

app = group("Indicators of compromise: import them, list them, look for them.")
_SHOWN = 20
_VALUE_CHARS = 100


@app.command("import")
def import_(
    context: typer.Context,
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE…", help="STIX, MISP, OpenIOC, abuse.ch CSV, or a list.")
    ],
    format_: Annotated[
        str | None, typer.Option("--format", metavar="NAME", help="What the files are; default: by content.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Who says so; default: the service, or the file's name."),
    ] = None,
    benign: Annotated[
        bool, typer.Option("--benign", help="The files name what is known to be good.")
    ] = False,
    valid_days: Annotated[
        int | None, typer.Option(min=1, max=36500, help="Expire so long after they were seen last.")
    ] = None,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Import the rest of a file that is broken in places.")
    ] = False,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Read indicators into the store: all of these files, or nothing when one is broken.

    Exit code 0 when they were imported, 2 when not.
    """
    from korora.model.indicator import Verdict
    from korora.wiring.indicators import FORMATS, Wanted, import_files, opened

    if format_ is not None and format_ not in FORMATS:
        raise UsageError(
            f"there is no format {format_!r}", kind="usage", remedy=f"give one of: {', '.join(FORMATS)}"
        )
    verdict = Verdict.BENIGN if benign else Verdict.MALICIOUS
    wanted = Wanted(format_, source, verdict, valid_days, keep_going)
    path = located(context, store)
    with opened(path, made=True) as there:
        reports, kept = import_files(there, files, wanted, int(time.time()))
    if as_json:
        say_json({"store": path, "imported": kept, "files": reports})
    else:
        for report in reports:
            _show_import(report, kept=kept)
    if not kept:
        if not as_json:
            say("nothing was imported; --keep-going takes what can be understood")
        raise typer.Exit(ExitCode.USAGE)


def _show_import(report: Imported, *, kept: bool) -> None:
    say(f"{mark(kept)} {report.file}: {report.format or 'unknown'}, source {report.source or '–'}")
    if kept:
        say(f"  {report.entries} entries: {report.new} new values, {report.merged} merged into known ones")
    for severity, count in report.counted.items():
        say(f"  {count} {severity}")
        for one in [one for one in report.findings if one.severity == severity][:_SHOWN]:
            say(f"    {one.where}: {_line(one.message, 300)}")
        if count > _SHOWN:
            say(f"    … and {count - _SHOWN} more")


@app.command("list")
def list_(
    context: typer.Context,
    kind: Annotated[str | None, typer.Option(metavar="KIND", help="Of one kind, such as domain.")] = None,
    source: Annotated[str | None, typer.Option(metavar="NAME", help="Of one source.")] = None,
    containing: Annotated[str, typer.Option(metavar="TEXT", help="Whose value has this text.")] = "",
    differing: Annotated[bool, typer.Option("--differing", help="Of which sources disagree.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000_000, help="At most so many.")] = 100,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Show indicators with what each source says of them, and where the sources differ."""
    from korora.model.indicator import Kind
    from korora.wiring.indicators import listed, opened

    if kind is not None and kind not in list(Kind):
        raise UsageError(f"there is no kind {kind!r}", kind="usage", remedy=f"give one of: {', '.join(Kind)}")
    with opened(located(context, store)) as there:
        found = listed(
            there,
            int(time.time()),
            kind=Kind(kind) if kind else None,
            source=source,
            containing=containing,
            differing=differing,
        )
        shown = list(itertools.islice(found, limit))
        counts = there.counts()
    if as_json:
        say_json({"counts": counts, "indicators": [_object(one) for one in shown]})
        return
    table(["KIND", "VALUE", "STANDING", "CONFIDENCE", "FAMILY", "SOURCES"], [_row(one) for one in shown])
    for one in shown:
        for sentence in one.disagreements:
            say(f"! {_line(one.indicator.value)}: {sentence}")
    say(f"\n{len(shown)} shown; known: {', '.join(f'{n} {kind}' for kind, n in counts.items()) or 'nothing'}")


@app.command()
def match(
    context: typer.Context,
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="PATH…", help="Files, and folders with all below.")
    ] = None,
    memory: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A snapshot of memory, looked through as well.")
    ] = None,
    image: Annotated[
        Path | None, typer.Option("--image", metavar="IMAGE", help="The files inside of a disk image.")
    ] = None,
    declared: Declared = None,
    allow: Allowed = None,
    patterns: Paths = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Look for every indicator in force in files, folders, memory, and the files inside of a disk image.

    Exit code 0 when none was found and all was read, 3 when one was found, 6 when something could not be
    read.
    """
    from korora.wiring.indicator_matching import begun, compare
    from korora.wiring.indicators import opened

    if not paths and memory is None and image is None:
        raise UsageError(
            "nothing is named to look through",
            kind="usage",
            remedy="give PATH…, --memory FILE or --image IMAGE",
        )
    if image is not None and (paths or memory is not None):
        raise UsageError("an --image is looked through alone", kind="usage", remedy="run it once for each")
    path, now = located(context, store), int(time.time())
    with opened(path) as there:
        if image is not None:
            comparison = _inside(image, declared, allow, patterns, begun(there, now))
        else:
            comparison = compare(there, paths or [], memory, now, own=path)
    if as_json:
        say_json(_comparison_object(comparison))
    else:
        _show(comparison)
    if comparison.matched:
        raise typer.Exit(ExitCode.REFUSED)
    if comparison.unknown:
        raise typer.Exit(ExitCode.TOOL)


def _inside(
    image: Path, declared: Declared, allow: Allowed, patterns: Paths, matching: Matching
) -> Comparison:
    from korora.wiring.files_inside import FilesInside
    from korora.wiring.image_files import only_disk
    from korora.wiring.images import looked_at
    from korora.wiring.indicator_matching import Examined

    disk = only_disk(looked_at(image, declared, allow or ()))
    inside = FilesInside(disk, matching=matching, paths=patterns or (), contents=(), digests=False)
    for _ in inside.look():
        pass
    matching.comparison.examined += [Examined(one.where, unknown=one.problem) for one in inside.unread()]
    return matching.comparison


# -- for people --------------------------------------------------------------------------------------------


def _show(comparison: Comparison) -> None:
    for examined in comparison.examined:
        _show_file(examined)
    matched, unknown = comparison.matched, comparison.unknown
    say(
        f"{mark(not matched and not unknown)} {comparison.files} files, {size(comparison.size)},"
        f" {comparison.indicators} indicators: {matched} files with matches, {unknown} unknown"
        + (f"; {comparison.passed_over} passed over" if comparison.passed_over else "")
    )


def _show_file(examined: Examined) -> None:
    sign = "✗" if examined.matched else "?" if examined.unknown else "~"
    say(f"{sign} {_line(examined.path, 1000)}{f': unknown: {examined.unknown}' if examined.unknown else ''}")
    for one in examined.matches[:_SHOWN]:
        _show_match(one)
    more = len(examined.matches) - _SHOWN
    if more > 0:
        say(f"    … and {more} more")
    if examined.dropped:
        say(f"    … and {examined.dropped} others that were not kept")


def _show_match(one: Match) -> None:
    hit = one.hit
    what = {
        "content": f"the content is {hit.kind} {hit.value}",
        "full": f"{hit.kind} {_line(hit.value)}",
        "mention": f"{hit.kind} {hit.value} is mentioned",
        "host": f"hint: {_line(hit.value)} is the host of a known URL, which does not stand here",
    }[hit.force]
    where = "" if hit.force == "content" else f" at {hit.offset} ({hit.encoding}{_times(one.times)})"
    say(f"    {what}{where}{_seen(one)}")
    if one.told is not None:
        fields(("      " + name, value) for name, value in _said(one.told))


def _seen(one: Match) -> str:
    differs = one.hit.force == "full" and one.hit.seen.lower() != one.hit.value
    return f", as {_line(one.hit.seen)!r}" if differs else ""


def _times(times: int) -> str:
    return f", {times} times" if times > 1 else ""


def _said(told: Told) -> list[tuple[str, object]]:
    said = [(one.source, _line(_word(one), 300)) for one in told.indicator.provenances]
    return [*said, *(("disagreement", sentence) for sentence in told.disagreements)]


def _word(one: Any) -> str:
    sure = "" if one.confidence is None else f"confidence {one.confidence}"
    ended = "" if one.expires is None else f"until {_date(one.expires)}"
    verdict = "revoked" if one.revoked else str(one.verdict)
    return ", ".join(filter(None, (verdict, one.family, sure, ended, one.note, one.reference)))


def _row(one: Told) -> tuple[object, ...]:
    said = one.indicator.provenances
    sure = [provenance.confidence for provenance in said if provenance.confidence is not None]
    families = sorted({provenance.family for provenance in said if provenance.family})
    sources = sorted({provenance.source for provenance in said})
    confidence = "" if not sure else str(sure[0]) if len(set(sure)) == 1 else f"{min(sure)}–{max(sure)}"
    return (
        *(one.indicator.kind, _line(one.indicator.value), one.standing, confidence),
        *(_line(", ".join(families), 60), _line(", ".join(sources), 60)),
    )


def _line(text: str, limit: int = _VALUE_CHARS) -> str:
    """On one line, shortened."""
    plain = text.replace("\n", "\\n").replace("\t", "\\t")
    return plain if len(plain) <= limit else f"{plain[:limit]}…"


def _date(seconds: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))


# -- for scripts -------------------------------------------------------------------------------------------


def _object(one: Told) -> dict[str, object]:
    return {
        "kind": one.indicator.kind,
        "value": one.indicator.value,
        "standing": one.standing,
        "disagreements": one.disagreements,
        "sources": one.indicator.provenances,
    }


def _comparison_object(comparison: Comparison) -> dict[str, object]:
    return {
        "indicators": comparison.indicators,
        "files": comparison.files,
        "bytes": comparison.size,
        "passed_over": comparison.passed_over,
        "matched": comparison.matched,
        "unknown": comparison.unknown,
        "examined": [
            {
                "path": one.path,
                "bytes": one.size,
                "unknown": one.unknown or None,
                "not_kept": one.dropped,
                "matches": [_match_object(match) for match in one.matches],
            }
            for one in comparison.examined
        ],
    }


def _match_object(one: Match) -> dict[str, object]:
    hit = one.hit
    return {
        "kind": hit.kind,
        "value": hit.value,
        "force": hit.force,
        "offset": hit.offset,
        "seen": hit.seen,
        "encoding": hit.encoding,
        "times": one.times,
        "indicator": None if one.told is None else _object(one.told),
    }
