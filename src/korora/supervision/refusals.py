"""Who owns a VM here, and the answers of this room that are errors: each with its kind, and what to do."""

from __future__ import annotations

from collections.abc import Iterable

from korora.errors import KororaError, QuestionError, RefusedError, ToolError, UsageError
from korora.model.identity import VmName
from korora.model.ownership import MAY_RUN, UNDECIDED, Status
from korora.ports.journal import VmRecord


def owned(record: VmRecord) -> bool:
    """Whether this host owns the VM, with no hand-over under way; only its journal can say so."""
    return record.ownership == Status.OWNER


def may_run(record: VmRecord) -> bool:
    """Whether the VM may run here at all, so also while its first run after a move is not noted yet."""
    return record.ownership in MAY_RUN


def checked_owner(record: VmRecord) -> VmRecord:
    if not owned(record):
        raise not_owner(record)
    return record


def unknown_vm(name: str, known: Iterable[str]) -> UsageError:
    names = ", ".join(sorted(known)) or "none"
    return UsageError(
        f"this host knows no VM {name!r}",
        kind="unknown-vm",
        remedy=f"known here: {names}; `korora vm start FILE` gives the host another",
    )


def not_running(name: str) -> RefusedError:
    return RefusedError(
        f"VM {name} is not running", kind="not-running", remedy=f"start it: korora vm start {name}"
    )


def unresponsive(name: str, why: KororaError) -> ToolError:
    return ToolError(
        f"it cannot be told whether VM {name} runs: {why.message}",
        kind="unresponsive",
        remedy=why.remedy or "look at its QEMU process on this host; the daemon asks it again by itself",
    )


def running(name: str) -> RefusedError:
    return RefusedError(
        f"VM {name} is running",
        kind="running",
        remedy=f"stop it first: korora vm stop {name}",
        vm_runs_on="here",
    )


def moving(name: str) -> RefusedError:
    return RefusedError(
        f"VM {name} is being migrated",
        kind="moving",
        remedy="wait for the migration's outcome, or cancel it",
    )


def busy(name: str) -> RefusedError:
    return RefusedError(
        f"VM {name} is just being started, stopped or looked into",
        kind="busy",
        remedy="ask again when that is done",
    )


def not_owner(record: VmRecord) -> KororaError:
    """The hand-over of this VM's ownership left it elsewhere, or is not settled, or waits for a person."""
    if record.ownership in UNDECIDED:
        return undecided(record.name, record.ownership, record.epoch, record.peer)
    other = f" host {record.peer}" if record.peer else " another host"
    return RefusedError(
        f"this host may not run VM {record.name}: its ownership here is {record.ownership} ({record.epoch})",
        kind="not-owner",
        remedy=f"look at{other}; migrate the VM back from there, or let the migration's recovery settle it",
        vm_runs_on=record.peer,
    )


def adopted_elsewhere(name: str) -> RefusedError:
    return RefusedError(
        f"VM {name} was started by somebody else, so Korora cannot start it",
        kind="adopted",
        remedy="start it with the tool that made it, then: korora vm adopt SOCKET",
    )


def name_taken(name: str) -> UsageError:
    return UsageError(
        f"this host already has a VM {name!r} of its own",
        kind="name-taken",
        remedy="adopt it as --name OTHER",
    )


def supervised_already(name: str) -> UsageError:
    return UsageError(
        f"that QEMU is VM {name}, which this host supervises already",
        kind="adopted-already",
        remedy=f"see: korora vm show {name}",
    )


def undecided(name: VmName, ownership: str, epoch: int, peer: str | None) -> QuestionError:
    """Its copy here may be the last one, or an old one: no rule can tell, and nothing is touched."""
    other = f"host {peer}" if peer else "the other host"
    return QuestionError(
        f"a person must decide about VM {name}: its ownership here is {ownership} ({epoch})",
        kind="undecided",
        remedy=f"bring {other} back, and both settle what they can by themselves; until then keep every copy"
        f" of {name}, and start none",
    )
