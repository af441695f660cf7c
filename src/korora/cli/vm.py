"""`korora vm`: the virtual machines of the hosts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from korora.cli.invocation import Invocation
from korora.cli.options import AsJson, VmArgument, group
from korora.cli.render import error_text, fields, say_json, size, table, warn
from korora.errors import KororaError

if TYPE_CHECKING:
    from korora.client import Daemon
    from korora.client.inspections import InspectionEvent
    from korora.client.views import VmView
    from korora.model.site import SiteHost

app = group("Virtual machines of a host.")


@app.command("list")
def list_vms(context: typer.Context, as_json: AsJson = False) -> None:
    """Every VM of every host in reach, or of the one of -H.

    A host that does not answer is named on standard error; when none does, the command fails.
    """
    vms: list[tuple[SiteHost, VmView]] = []
    silent: list[KororaError] = []
    answers = list(Invocation.of(context).survey())
    for host, answer in answers:
        if isinstance(answer, KororaError):
            silent.append(answer)
        else:
            vms += [(host, view) for view in answer]
    _complain(silent, nobody=len(silent) == len(answers))
    if as_json:
        say_json([described(host, view) for host, view in vms])
    else:
        table(
            ("VM", "HOST", "STATE", "OWNERSHIP", "EPOCH", "MEMORY", "VTPM"),
            [
                (vm.name, host.name, _state(vm), vm.ownership, vm.epoch, size(vm.memory_bytes), vm.vtpm)
                for host, vm in vms
            ],
        )


@app.command()
def show(context: typer.Context, vm: VmArgument, as_json: AsJson = False) -> None:
    """One VM, at the host that owns it."""
    host, view = Invocation.of(context).find(vm)
    _tell(host, view, as_json=as_json)


@app.command()
def start(
    context: typer.Context,
    vm: Annotated[str, typer.Argument(metavar="VM|FILE", help="A VM's name, or its definition: FILE.toml.")],
    as_json: AsJson = False,
) -> None:
    """Start a VM that the host knows, or define one from a TOML file and start it."""
    invocation = Invocation.of(context)
    if vm.endswith(".toml") or "/" in vm:
        from korora.cli.site import read_text

        definition = read_text(Path(vm), "the VM's definition")
        host = invocation.chosen()
        with invocation.daemon(host) as daemon:
            view = daemon.define(definition, start=True)
    else:
        host = invocation.find(vm)[0]
        with invocation.daemon(host) as daemon:
            view = daemon.start(vm)
    _tell(host, view, as_json=as_json)


@app.command()
def stop(
    context: typer.Context,
    vm: VmArgument,
    force: Annotated[bool, typer.Option("--force", help="End it at once, as if its power went.")] = False,
    as_json: AsJson = False,
) -> None:
    """Ask the guest to shut down, and wait until it has."""
    invocation = Invocation.of(context)
    host = invocation.find(vm)[0]
    with invocation.daemon(host) as daemon:
        view = daemon.stop(vm, force=force)
    _tell(host, view, as_json=as_json)


@app.command()
def adopt(
    context: typer.Context,
    qmp: Annotated[
        str, typer.Argument(metavar="QMP", help="The QMP socket of a running QEMU, a path there.")
    ],
    name: Annotated[str | None, typer.Option(help="The name to know it by; default: QEMU's own.")] = None,
    as_json: AsJson = False,
) -> None:
    """Supervise a QEMU that somebody else started."""
    invocation = Invocation.of(context)
    host = invocation.chosen()
    with invocation.daemon(host) as daemon:
        view = daemon.adopt(str(Path(qmp).absolute()), name)
    _tell(host, view, as_json=as_json)


@app.command()
def inspect(context: typer.Context, vm: VmArgument, as_json: AsJson = False) -> None:
    """Look into its disks, files and configuration, by the host's policy; it may run on meanwhile.

    Exit code 5 when something is found, 6 when nothing is and something could not be looked at.
    """
    from korora.cli.inspection.showing import code_of_inspection, show_inspection
    from korora.client import Daemon
    from korora.client.inspections import Inspected

    event = _looked(Invocation.of(context), vm, Daemon.inspect, quiet=as_json)
    assert isinstance(event, Inspected)  # noqa: S101  what was asked for
    if as_json:
        say_json(event)
    else:
        show_inspection(event.inspection, event.flags)
    raise typer.Exit(code_of_inspection(event.inspection))


@app.command()
def verify(context: typer.Context, vm: VmArgument, as_json: AsJson = False) -> None:
    """Hold it against what was written down when it was inspected last, here or before it came.

    What differs is told, file by file. Of a VM that ran since, that may be its own work, and is no failure;
    of one that did not run, it is: exit code 5. Exit code 6 when something could not be looked at.
    """
    from korora.cli.inspection.showing import code_of_verification, show_verification
    from korora.client import Daemon
    from korora.client.inspections import Verified

    event = _looked(Invocation.of(context), vm, Daemon.verify, quiet=as_json)
    assert isinstance(event, Verified)  # noqa: S101  what was asked for
    if as_json:
        say_json(event)
    else:
        show_verification(event.verification)
    raise typer.Exit(code_of_verification(event.verification))


def _looked(
    invocation: Invocation,
    vm: str,
    look: Callable[[Daemon, str], Iterator[InspectionEvent]],
    *,
    quiet: bool,
) -> InspectionEvent:
    """What came of it, while how far it is is shown."""
    from korora.cli.inspection.showing import progress
    from korora.client.inspections import Looking

    with invocation.daemon(invocation.find(vm)[0]) as daemon, progress(quiet=quiet) as told:
        for event in look(daemon, vm):
            if isinstance(event, Looking):
                told(event.told)
    return event


def described(host: SiteHost, view: VmView) -> dict[str, object]:
    """A VM for scripts: the daemon's view, and the host it came from."""
    import msgspec

    return {"host": host.name, **msgspec.to_builtins(view)}


def _complain(silent: list[KororaError], *, nobody: bool) -> None:
    if silent and nobody:
        raise silent[0]
    for error in silent:
        warn(error_text(error))


def _tell(host: SiteHost, view: VmView, *, as_json: bool) -> None:
    if as_json:
        say_json(described(host, view))
        return
    fields(_pairs(host, view))


def _pairs(host: SiteHost, view: VmView) -> Iterator[tuple[str, object]]:
    """What a person wants to know of a VM; what is not so is left out."""
    yield "name", view.name
    yield "host", host.name
    yield "state", _state(view)
    yield "ownership", f"{view.ownership} (epoch {view.epoch})"
    yield "moved with", view.peer
    yield "session", view.session
    yield "uuid", view.uuid
    yield "memory", size(view.memory_bytes)
    yield "cpus", view.cpus
    yield "firmware", view.firmware
    yield "vTPM", "lost: stop and start the VM" if view.vtpm_lost else view.vtpm
    if view.boot is not None:
        yield "measured boot", "; ".join((view.boot.verdict, *view.boot.reasons))
    if view.adopted:
        yield "adopted", "started by somebody else; Korora speaks QMP to it"
    if view.immovable:
        yield "does not move", view.immovable
    if view.not_in_disks:
        from korora.cli.unfolded import FOLD_BACK, not_in_disks

        yield "disks", f"{not_in_disks(view)}; {FOLD_BACK}"
    if view.disks_trouble is not None:
        yield "disks", f"{view.disks_trouble.message}; {view.disks_trouble.remedy}"
    yield "process", view.pid


def _state(view: VmView) -> str:
    words = [view.state]
    if view.moving:
        words.append("moving")
    return ", ".join(words) + (f" ({view.reason})" if view.reason else "")
