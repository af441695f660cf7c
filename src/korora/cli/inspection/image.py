"""`korora image`: what a guest sees of a disk, in whatever format, and what its container says (E2)."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from korora import named_file
from korora.cli.inspection.differences import described, names
from korora.cli.options import AsJson, group
from korora.cli.render import fields, mark, say, say_json, size, table, warn
from korora.errors import ExitCode, IntegrityError, UsageError
from korora.model.image import Format

if TYPE_CHECKING:
    from korora.model.image import ImageFinding
    from korora.model.image_record import ImageRecord
    from korora.wiring.images import Disk, Image, Progress, Tell

app = group("Disk images: digest, verify, diff, info.")
ImageArgument = Annotated[
    Path, typer.Argument(metavar="IMAGE", help="A disk image, or an .ova or .ovf package.")
]
Declared = Annotated[
    Format | None, typer.Option("--format", help="What it is, whatever its bytes look like.")
]
OtherDeclared = Annotated[Format | None, typer.Option("--format2", help="What the other is.")]
Allowed = Annotated[
    list[Path] | None,
    typer.Option(
        "--allow", metavar="FILE", help="Another file that it may open: a backing file. Can be repeated."
    ),
]
DIFFERENCES_SHOWN = 50
RECORD_BYTES = 16 << 20


@app.command()
def info(
    image: ImageArgument,
    declared: Declared = None,
    allow: Allowed = None,
    as_json: AsJson = False,
) -> None:
    """What an image says of itself, and what of that one should know. Exit code 5 if it is not to be read."""
    from korora.wiring.images import looked_at

    seen = looked_at(image, declared, allow or ())
    findings = [*seen.findings, *(finding for disk in seen.disks for finding in disk.facts.findings)]
    if as_json:
        say_json(_described(seen, findings))
    else:
        for disk in seen.disks:
            fields(_facts(seen, disk))
        for finding in findings:
            say(f"{mark(finding.severity == 'info')} {finding.severity}: {finding.message} ({finding.kind})")
    raise typer.Exit(
        ExitCode.INTEGRITY if any(one.severity == "critical" for one in findings) else ExitCode.DONE
    )


@app.command()
def digest(
    image: ImageArgument,
    declared: Declared = None,
    allow: Allowed = None,
    state: Annotated[
        Path | None,
        typer.Option(
            "--state", metavar="FILE", help="Where a digest that is broken off is put aside, to go on."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """The root over all that a guest sees of it: the same for the same disk in another format."""
    record = _digested(image, declared, allow, state, quiet=as_json)
    if as_json:
        say_json(record)
        return
    for disk in record.disks:
        if disk.name:
            say(f"{disk.root}  {disk.name} ({disk.format}, {size(disk.size)})")
    say(f"{record.root}  {record.image}")


@app.command()
def verify(
    image: ImageArgument,
    expected: Annotated[
        str, typer.Argument(metavar="ROOT|FILE", help="A root, or the file that digest --json wrote.")
    ],
    declared: Declared = None,
    allow: Allowed = None,
    as_json: AsJson = False,
) -> None:
    """Whether a guest sees just what it saw when the root was taken. Exit code 5 if not."""
    roots = _expected(expected)
    record = _digested(image, declared, allow, None, quiet=as_json)
    changed = _changed(record, roots)
    if as_json:
        say_json({"same": not changed, "root": record.root, "changed": changed})
        raise typer.Exit(ExitCode.INTEGRITY if changed else ExitCode.DONE)
    if changed:
        raise IntegrityError(
            f"{image} is not what it was: {', '.join(changed)} changed",
            kind="image-changed",
            remedy="compare it with a copy that is: korora image diff",
        )
    say(f"✓ {image} is what it was: {record.root}")


@app.command()
def diff(
    image: ImageArgument,
    other: Annotated[Path, typer.Argument(metavar="IMAGE2", help="Another image, in whatever format.")],
    declared: Declared = None,
    other_format: OtherDeclared = None,
    allow: Allowed = None,
    as_json: AsJson = False,
) -> None:
    """Where a guest would see two disks differ, by chunks of 1 MiB, and which files lie there.

    Exit code 5 if it would.
    """
    from korora.wiring.image_differences import located
    from korora.wiring.images import differing, looked_at

    seen = looked_at(image, declared, allow or ()), looked_at(other, other_format, allow or ())
    with shown(quiet=as_json) as tell:
        found = list(differing(*seen, tell))
        where = located(*seen, found)
    different = sum(one.length for one in found)
    sizes = [one.disks[0].facts.virtual_size for one in seen]
    if as_json:
        say_json(
            {
                "same": not found,
                "sizes": sizes,
                "bytes_in_differing_chunks": different,
                "ranges": [described(one, where.ranges.get(number)) for number, one in enumerate(found)],
                "problems": [{"where": one.where, "problem": one.problem} for one in where.problems],
            }
        )
    elif not found:
        say("✓ the same to a guest")
    else:
        say(f"✗ {size(different)} in {len(found)} ranges differ" + _other_size(sizes))
        rows = [
            (one.offset, size(one.length), names(where.ranges.get(number)))
            for number, one in enumerate(found[:DIFFERENCES_SHOWN])
        ]
        table(("FROM BYTE", "LENGTH", "WHAT LIES THERE"), rows)
        if len(found) > DIFFERENCES_SHOWN:
            say(f"… and {len(found) - DIFFERENCES_SHOWN} more: see --json")
        for problem in where.problems[:DIFFERENCES_SHOWN]:
            warn(f"files unknown: {problem.where}: {problem.problem}")
    raise typer.Exit(ExitCode.INTEGRITY if found else ExitCode.DONE)


def _other_size(sizes: list[int]) -> str:
    return f"; one has {sizes[0]} bytes, the other {sizes[1]}" if sizes[0] != sizes[1] else ""


def _digested(
    image: Path, declared: Format | None, allow: list[Path] | None, state: Path | None, *, quiet: bool
) -> ImageRecord:
    from korora.wiring.images import digested, looked_at

    with shown(quiet=quiet) as tell:
        return digested(looked_at(image, declared, allow or ()), tell, state)


def _expected(said: str) -> dict[str, str]:
    """Name of a disk → its root; the whole image's is that of the empty name."""
    from korora.model import image_record

    if re.fullmatch("blake3:[0-9a-f]{64}", said):
        return {"": said}
    try:
        record = image_record.read(named_file.read(Path(said), RECORD_BYTES))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{said!r} is no root and no file that can be read: {getattr(error, 'strerror', None) or error}",
            kind="no-record",
            remedy="a root is blake3: and 64 hexadecimal digits",
        ) from error
    return {"": record.root} | {disk.name: disk.root for disk in record.disks if disk.name}


def _changed(record: ImageRecord, roots: dict[str, str]) -> list[str]:
    """What is not as it was; if the disks are not known, all of it."""
    if roots[""] == record.root:
        return []
    disks = [disk.name for disk in record.disks if disk.name and roots.get(disk.name, disk.root) != disk.root]
    return disks or ["its content"]


@contextmanager
def shown(*, quiet: bool) -> Iterator[Tell]:
    """A bar on a terminal; nothing elsewhere."""
    if quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True, markup=False, highlight=False)
    with Bar(
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    ) as bar:
        task = bar.add_task("", total=None)

        def tell(progress: Progress) -> None:
            bar.update(task, total=progress.size, completed=progress.done)

        yield tell


def _facts(image: Image, disk: Disk) -> list[tuple[str, object]]:
    facts = disk.facts
    return [
        ("image", disk.name or image.path),
        ("format", facts.format),
        ("size to a guest", size(facts.virtual_size)),
        ("size here", size(facts.actual_size)),
        ("backing file", facts.backing),
        ("data file", facts.data_file),
        ("encrypted", "yes" if facts.encrypted else None),
        ("snapshots", ", ".join(facts.snapshots) or None),
    ]


def _described(image: Image, findings: list[ImageFinding]) -> dict[str, object]:
    from dataclasses import asdict

    return {
        "image": str(image.path),
        "disks": [{"name": disk.name} | asdict(disk.facts) for disk in image.disks],
        "findings": [asdict(finding) for finding in findings],
    }
