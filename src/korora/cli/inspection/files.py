"""`korora files`: the files inside of a disk image, without mounting or booting it (E3)."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from korora.cli.inspection.image import Allowed, Declared, OtherDeclared
from korora.cli.options import AsJson, group
from korora.cli.render import same, say, say_json, size, table, warn
from korora.errors import ExitCode

if TYPE_CHECKING:
    from korora.model.files import FileRecord
    from korora.wiring.image_files import FileChange, Reading, SystemFinding, Tell

app = group("Files inside of a disk image: digest, verify, diff.")
ImageArgument = Annotated[Path, typer.Argument(metavar="IMAGE", help="A disk image.")]
Paths = Annotated[
    list[str] | None,
    typer.Option("--paths", metavar="PATTERN", help="Only these, such as '/etc/*'; can be repeated."),
]
SHOWN = 100


@app.command()
def digest(
    image: ImageArgument,
    paths: Paths = None,
    declared: Declared = None,
    allow: Allowed = None,
    baseline: Annotated[
        Path | None, typer.Option("--baseline", metavar="FILE", help="Write down each file's facts there.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """One digest of all files, and what differs from the packages. Exit code 6 if not all was read."""
    from korora.wiring.image_files import check_baseline, system_findings, write_baseline

    if baseline is not None:
        check_baseline(baseline)
    reading = _read(image, paths, declared, allow, quiet=as_json)
    findings = list(system_findings(reading)) if not paths else None
    if baseline is not None:
        write_baseline(baseline, image.name, reading, paths or ())
    if as_json:
        say_json(_described(reading, findings))
    else:
        _tell(reading, findings)
        say(_unknown(image, reading) or f"{reading.digest.root()}  {image}")
    raise typer.Exit(ExitCode.DONE if reading.digest.complete else ExitCode.TOOL)


@app.command()
def verify(
    image: ImageArgument,
    baseline: Annotated[
        Path | None, typer.Argument(metavar="BASELINE", help="What digest --baseline wrote.")
    ] = None,
    paths: Paths = None,
    declared: Declared = None,
    allow: Allowed = None,
    as_json: AsJson = False,
) -> None:
    """Every file against a baseline, and the system's against its packages. Exit code 5 if anything differs.

    Without a baseline: against the packages alone. With --paths, or a baseline that was made with them: those
    files against the baseline alone. Exit code 6 if nothing differs in what was read, and not everything was,
    or could be compared.
    """
    from korora.wiring.image_files import compared, paths_of, read_baseline, system_findings

    known = read_baseline(baseline) if baseline is not None else None
    within = paths_of(known[0], paths or ()) if known is not None else paths
    reading = _read(image, within, declared, allow, quiet=as_json)
    found = compared(known[1], reading, within or ()) if known is not None else []
    findings = None if within else list(system_findings(reading))
    if as_json:
        say_json(_described(reading, findings) | {"changes": [_change(one) for one in found]})
    else:
        _changes(found)
        _tell(reading, findings)
        if known is not None and not found:
            say(_unknown(image, reading) or f"✓ {image}: every file as in {baseline}")
    findings = findings or []
    grave = [one for one in findings if one.finding not in {"configured", "unread"}]
    looked = known is not None or (not paths and any(one.packages.is_there for one in reading.databases))
    verdict = _verdict(reading, differs=bool(found or grave), looked=looked)
    unread = any(one.finding == "unread" for one in findings)
    raise typer.Exit(ExitCode.TOOL if unread and verdict is ExitCode.DONE else verdict)


@app.command()
def diff(
    image: ImageArgument,
    other: Annotated[Path, typer.Argument(metavar="IMAGE2", help="Another image, in whatever format.")],
    paths: Paths = None,
    declared: Declared = None,
    other_format: OtherDeclared = None,
    allow: Allowed = None,
    as_json: AsJson = False,
) -> None:
    """What became of each file between one disk and another. Exit code 5 if anything did."""
    from korora.wiring.image_files import compared

    before = _read(image, paths, declared, allow, quiet=as_json)
    after = _read(other, paths, other_format, allow, quiet=as_json)
    found = compared(before.files, after)
    if as_json:
        problems = [*_problems(before), *_problems(after)]
        alike = same(found, all_read=before.digest.complete and after.digest.complete)
        say_json({"same": alike, "changes": [_change(one) for one in found], "problems": problems})
    else:
        _changes(found)
        for path, reading in ((image, before), (other, after)):
            _tell(reading, None)
            if unknown := _unknown(path, reading):
                say(unknown)
    code = _verdict(after, differs=bool(found), looked=True)
    raise typer.Exit(code if before.digest.complete or found else ExitCode.TOOL)


def _read(
    image: Path, paths: Sequence[str] | None, declared: Declared, allow: Allowed, *, quiet: bool
) -> Reading:
    from korora.wiring.image_files import read_files
    from korora.wiring.images import looked_at

    with _shown(quiet=quiet) as tell:
        return read_files(looked_at(image, declared, allow or ()), tell, paths or ())


def _verdict(reading: Reading, *, differs: bool, looked: bool) -> ExitCode:
    """Nothing is said to be well that was not looked at."""
    if differs:
        return ExitCode.INTEGRITY
    if not reading.digest.complete:
        return ExitCode.TOOL
    if not looked:
        warn(
            "korora: nothing to compare with: no baseline was given, and the image has no package database, "
            "or only some paths were asked for"
        )
        return ExitCode.USAGE
    return ExitCode.DONE


def _unknown(image: Path, reading: Reading) -> str | None:
    """None when all was read."""
    if reading.digest.complete:
        return None
    empty = not reading.digest.files and not reading.digest.problems
    return f"unknown: {'there is no file in it' if empty else 'not all of it was read'}  {image}"


def _tell(reading: Reading, findings: list[SystemFinding] | None) -> None:
    """`findings`: None where nobody looked for any."""
    from korora.wiring.image_files import shown

    volumes = [
        (one.number, one.start, size(one.length), one.filesystem, "read" if one.files else "not read")
        for one in reading.digest.volumes
    ]
    table(("VOLUME", "FROM BYTE", "LENGTH", "FILE SYSTEM", ""), volumes)
    say(f"{reading.digest.files:,} files, {size(reading.digest.bytes_read)} of content")
    if findings is not None:
        _packages(reading, findings)
    for one in (findings or [])[:SHOWN]:
        say(
            f"✗ {one.finding}: {shown(one.path)}"
            + (f" ({one.package})" if one.package else " (of no package)")
        )
    _more(len(findings or []))
    for problem in reading.digest.problems[:SHOWN]:
        warn(f"unknown: {problem.where}: {problem.problem}")
    _more(len(reading.digest.problems))


def _packages(reading: Reading, findings: list[SystemFinding]) -> None:
    """How many files of packages there are, by their kind, and what became of them."""
    counts: Counter[str] = Counter()
    for database in reading.databases:
        counts[database.packages.kind] += len(database.packages.stated)
    for kind, number in counts.items():
        found = Counter(one.finding for one in findings if one.kind in {kind, None})
        said = ", ".join(f"{count} {finding}" for finding, count in found.items()) or "as they were packed"
        if number:
            say(f"{number:,} files of {kind} packages: {said}")


def _changes(found: list[FileChange]) -> None:
    from korora.wiring.image_files import shown

    for one in found[:SHOWN]:
        say(f"✗ {one.change}: {shown(one.path)}" + (f": {'; '.join(one.what)}" if one.what else ""))
    _more(len(found))


def _more(number: int) -> None:
    if number > SHOWN:
        say(f"… and {number - SHOWN} more: see --json")


def _described(reading: Reading, findings: list[SystemFinding] | None) -> dict[str, object]:
    from korora.wiring.image_files import shown

    digest = reading.digest
    packages: Counter[str] = Counter()
    for database in reading.databases:
        packages[str(database.volume)] += len(database.packages.stated)
    system = [
        {"finding": one.finding, "path": shown(one.path), "package": one.package} for one in findings or ()
    ]
    return {
        "root": digest.root(),
        "complete": digest.complete,
        "files": digest.files,
        "bytes": digest.bytes_read,
        "volumes": digest.volumes,
        "packages": dict(packages),
        "system": None if findings is None else system,
        "problems": _problems(reading),
    }


def _problems(reading: Reading) -> list[dict[str, str]]:
    return [{"where": one.where, "problem": one.problem} for one in reading.digest.problems]


def _change(one: FileChange) -> dict[str, object]:
    from korora.wiring.image_files import shown

    return {"change": one.change, "volume": one.volume, "path": shown(one.path), "what": one.what}


@contextmanager
def _shown(*, quiet: bool) -> Iterator[Tell]:
    """How many files, on a terminal."""
    if quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.status import Status

    count = 0
    with Status("reading", console=Console(stderr=True, markup=False, highlight=False)) as status:

        def tell(_: FileRecord) -> None:
            nonlocal count
            count += 1
            if count % 500 == 0:
                status.update(f"{count:,} files")

        yield tell
