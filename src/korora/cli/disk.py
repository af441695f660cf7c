"""`korora disk`: the disks of VMs."""

from __future__ import annotations

from typing import Annotated

import typer

from korora.cli.disks import diff
from korora.cli.invocation import Invocation
from korora.cli.options import AsJson, VmArgument, group
from korora.cli.render import say_json
from korora.errors import UsageError
from korora.model.heat import CELLS, CELLS_MAX

app = group("Disks of VMs: diff, heat, kept.")
app.add_typer(diff.app, name="diff")


@app.command()
def heat(
    context: typer.Context,
    vm: VmArgument,
    disk: Annotated[str | None, typer.Option("--disk", metavar="DISK", help="This one only.")] = None,
    cells: Annotated[
        int, typer.Option("--cells", min=1, max=CELLS_MAX, help="Into so many parts a disk is cut.")
    ] = CELLS,
    as_json: AsJson = False,
) -> None:
    """How often the parts of its disks are read and written, and which chunks are popular.

    Learnt from samples while it runs, and kept while it rests. Exit code 2 for a disk that nobody knows.
    """
    from korora.cli.disks.heat_map import show_heat

    invocation = Invocation.of(context)
    with invocation.daemon(invocation.find(vm)[0]) as daemon:
        told = daemon.heat(vm, cells)
    shown = [one for one in told.disks if disk in {None, one.name}]
    if disk is not None and not shown:
        known = ", ".join(one.name for one in told.disks) or "none yet"
        raise UsageError(
            f"nothing is known of a disk {disk} of {vm}", kind="unknown-disk", remedy=f"known are: {known}"
        )
    if as_json:
        import msgspec

        say_json(msgspec.structs.replace(told, disks=tuple(shown)))
    else:
        show_heat(told, shown)


@app.command()
def kept(
    context: typer.Context,
    drop: Annotated[
        str | None, typer.Option("--drop", metavar="VM", help="Wipe what is kept of this VM's disks.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """What a host (-H) kept of the disks of VMs that left it by `migrate --incremental`.

    Exit code 2 for --drop of a VM of which nothing is kept.
    """
    from korora.cli.disks.kept import show_dropped, show_kept

    invocation = Invocation.of(context)
    with invocation.daemon(invocation.chosen()) as daemon:
        if drop is not None:
            steps = daemon.drop_kept(drop)
            say_json(steps) if as_json else show_dropped(steps)
        else:
            told = daemon.kept()
            say_json(told) if as_json else show_kept(told)
