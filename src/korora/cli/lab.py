"""`korora lab`: several hosts on this one machine, to try Korora out, to test it and to measure it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from korora.cli.options import AsJson, group
from korora.cli.render import mark, say, say_json, table

if TYPE_CHECKING:
    from korora.lab.layout import Layout
    from korora.lab.lifecycle import LabStatus

app = group("Several hosts on this one machine, to try things out.")

Folder = Annotated[Path, typer.Option("--dir", metavar="DIR", help="The lab's folder.")]
_FOLDER = Path("/run/korora-lab")


@app.command()
def up(
    hosts: Annotated[
        int | None, typer.Option("--hosts", metavar="N", min=1, help="How many hosts; 2 at first.")
    ] = None,
    folder: Folder = _FOLDER,
    as_json: AsJson = False,
) -> None:
    """Bring the lab up, or mend it: hosts a, b, … with TPMs and daemons, enrolled and ready."""
    from korora.lab.lifecycle import bring_up

    layout = _layout(folder)
    found = bring_up(layout, hosts, tell=(lambda line: None) if as_json else say)
    if as_json:
        say_json(found)
        return
    _show(found)
    say()
    say(f"The configuration is {found.config}; next:")
    say(f"  export KORORA_CONFIG={found.config}")
    say(f"  korora -H a vm start {found.machines['web-1']} && korora migrate web-1 --to b")


@app.command()
def down(folder: Folder = _FOLDER, as_json: AsJson = False) -> None:
    """End every process of the lab and remove its namespaces and files."""
    from korora.lab.lifecycle import take_down

    layout = _layout(folder)
    take_down(layout)
    if as_json:
        say_json({"dir": layout.directory, "up": False})
    else:
        say(f"the lab in {layout.directory} is gone")


@app.command()
def status(folder: Folder = _FOLDER, as_json: AsJson = False) -> None:
    """The lab's hosts, and whether they are well."""
    from korora.lab.lifecycle import status as lab_status

    found = lab_status(_layout(folder))
    if as_json:
        say_json(found)
    elif not found.hosts:
        say(f"there is no lab in {found.dir}; `korora lab up` makes one")
    else:
        _show(found)


def _layout(folder: Path) -> Layout:
    from korora.lab.layout import Layout

    return Layout.at(folder)


def _show(found: LabStatus) -> None:
    rows = [(h.name, h.address, h.netns, h.daemon_pid, h.tpm_pid, mark(h.healthy)) for h in found.hosts]
    table(("HOST", "ADDRESS", "NAMESPACE", "DAEMON", "TPM", "WELL"), rows)
