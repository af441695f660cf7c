"""`korora disk diff`: what changed on a disk, as a signed file that fits one base alone (W2)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from korora.cli.inspection.image import Allowed, shown
from korora.cli.invocation import Invocation
from korora.cli.options import AsJson, group
from korora.cli.render import say, say_json, size
from korora.errors import UsageError
from korora.model.image import Format, ImageFiles

if TYPE_CHECKING:
    from korora.protocol.disk_diff.statement import DiskDiff
    from korora.wiring.images import Image

app = group("What changed on a disk, as a signed file: make, verify, apply, leaves.")
Diff = Annotated[Path, typer.Argument(metavar="FILE", help="The diff.")]
Output = Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="The new file.")]
Declared = Annotated[Format | None, typer.Option("--format", help="What IMAGE or BASE is.")]
Signers = Annotated[
    list[Path] | None,
    typer.Option(
        "--signer",
        metavar="FILE",
        help="A public key whose diffs are taken, in PEM; default: the site's operators. Can be repeated.",
    ),
]


@app.command()
def make(
    context: typer.Context,
    images: Annotated[
        list[Path], typer.Argument(metavar="[BASE] IMAGE", help="What the disk was, and what it is.")
    ],
    output: Output,
    leaves: Annotated[
        Path | None,
        typer.Option("--leaves", metavar="FILE", help="Instead of BASE: its leaves, as a visit left them."),
    ] = None,
    base_size: Annotated[
        int | None, typer.Option("--base-size", metavar="BYTES", help="With --leaves: how large BASE was.")
    ] = None,
    base_format: Annotated[Format | None, typer.Option("--base-format", help="What BASE is.")] = None,
    declared: Annotated[Format | None, typer.Option("--format", help="What IMAGE is.")] = None,
    allow: Allowed = None,
    key: Annotated[
        Path | None,
        typer.Option("--key", metavar="FILE", help="The private key that signs; default: the operator's."),
    ] = None,
    by: Annotated[str | None, typer.Option("--by", metavar="NAME", help="Who signs.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write what changed from BASE to IMAGE. Neither may be in use meanwhile."""
    from korora.cli.disks.keys import signer
    from korora.wiring.disk_diffs import making
    from korora.wiring.images import looked_at

    if len(images) != (2 if leaves is None else 1):
        raise UsageError("name BASE and IMAGE, or IMAGE and --leaves FILE", kind="usage")
    who = signer(Invocation.of(context), key, by)
    image = looked_at(images[-1], declared, allow or ())
    base: Image | making.KeptBase
    if leaves is None:
        base = looked_at(images[0], base_format, allow or ())
    else:
        base = making.kept_base(leaves, base_size)
    with shown(quiet=as_json) as tell:
        said = making.make(base, image, output, who, int(time.time()), tell)
    _tell(said, {"file": output, "bytes": output.stat().st_size}, as_json=as_json)
    if not as_json:
        say(f"✓ {output}: {size(output.stat().st_size)}, signed by {said.by}")


@app.command()
def verify(
    context: typer.Context,
    file: Diff,
    base: Annotated[
        Path | None, typer.Option("--base", metavar="IMAGE", help="Also try it on this base, in memory.")
    ] = None,
    declared: Declared = None,
    allow: Allowed = None,
    signers: Signers = None,
    as_json: AsJson = False,
) -> None:
    """Whether a diff is whole, and signed by one who may; with a base, whether it makes what was signed.

    Exit code 5 if not. Nothing is written.
    """
    from korora.cli.disks.keys import trusted
    from korora.wiring.disk_diffs.applying import verify as verified
    from korora.wiring.images import looked_at

    keys = trusted(Invocation.of(context), signers or ())
    image = looked_at(base, declared, allow or ()) if base is not None else None
    with shown(quiet=as_json) as tell:
        said = verified(file, keys, image, tell)
    _tell(said, {"file": file, "base_fits": True if base else None}, as_json=as_json)
    if not as_json:
        say(f"✓ {file} is whole, and signed by {said.by}" + (f"; it fits {base}" if base else ""))


@app.command()
def apply(
    context: typer.Context,
    file: Diff,
    base: Annotated[Path, typer.Argument(metavar="BASE", help="The disk that it was made for.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="RESULT", help="A new image.")
    ] = None,
    output_format: Annotated[
        Format | None, typer.Option("--output-format", help="raw or qcow2; default: by RESULT's name.")
    ] = None,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Change BASE itself; what is broken off can be finished.")
    ] = False,
    declared: Declared = None,
    allow: Allowed = None,
    signers: Signers = None,
    as_json: AsJson = False,
) -> None:
    """Make the result out of BASE: a new image, which is read back before it is said to be well.

    Exit code 5 when the diff is damaged, of a stranger, or made for another base.
    """
    from korora.cli.disks.keys import trusted
    from korora.wiring.disk_diffs import applying
    from korora.wiring.images import looked_at

    if (output is None) is not in_place:
        raise UsageError(
            "say where the result goes", kind="usage", remedy="give -o RESULT, or --in-place, and not both"
        )
    keys = trusted(Invocation.of(context), signers or ())
    image = looked_at(base, declared, allow or ())
    with shown(quiet=as_json) as tell:
        if output is None:
            done = applying.apply_in_place(file, keys, image, tell)
            said, facts = done.said, {"resumed": done.resumed, "already": done.already}
        else:
            said = applying.apply(file, keys, image, _new(output, output_format), tell)
            facts = {"resumed": False, "already": False}
    where = output or base
    _tell(said, {"image": where, "in_place": in_place} | facts, as_json=as_json)
    if not as_json:
        say(f"✓ {where} {'was' if facts['already'] else 'is'} the result: {said.result.root}")


@app.command()
def leaves(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="The disk as it is now.")],
    output: Output,
    declared: Declared = None,
    allow: Allowed = None,
    as_json: AsJson = False,
) -> None:
    """Keep what later tells which chunks changed, without the disk itself: 32 bytes for each MiB of data."""
    from korora.wiring.disk_diffs.making import keep
    from korora.wiring.images import looked_at

    with shown(quiet=as_json) as tell:
        count, root = keep(looked_at(image, declared, allow or ()), output, tell)
    if as_json:
        say_json({"file": output, "size": count, "root": root})
    else:
        say(f"{root}  {output} (of {count} bytes)")


def _new(path: Path, declared: Format | None) -> ImageFiles:
    return ImageFiles(path, declared or (Format.QCOW2 if path.suffix == ".qcow2" else Format.RAW))


def _tell(said: DiskDiff, more: dict[str, object], *, as_json: bool) -> None:
    if as_json:
        told = {"by": said.by, "at": said.at, "records": said.records}
        say_json(more | told | {"base": said.base, "result": said.result})
        return
    say(f"base    {said.base.root} ({size(said.base.size)})")
    say(f"result  {said.result.root} ({size(said.result.size)})")
