"""Why a migration is not even begun, in words that help."""

from __future__ import annotations

from collections.abc import Sequence

from korora.errors import RefusedError
from korora.model.identity import HostName, VmName
from korora.model.ownership import UNDECIDED, OwnershipState, Status
from korora.model.plan import Finding
from korora.supervision.boots.record import BootVerdict, BootWord
from korora.supervision.refusals import undecided


def refuse_findings(findings: Sequence[Finding], vm: VmName, host: HostName) -> None:
    """RefusedError(kind="precheck") that names every finding at once, each with its remedy."""
    if not findings:
        return
    raise RefusedError(
        f"{vm} cannot move: " + "; ".join(f"{finding.check}: {finding.message}" for finding in findings),
        kind="precheck",
        remedy="; ".join(dict.fromkeys(finding.remedy for finding in findings)),
        vm_runs_on=host,
    )


def refuse_changed_boot(boot: BootVerdict, vm: VmName, host: HostName) -> None:
    """RefusedError(kind="guest-boot") when the guest did not boot what its baseline says."""
    if boot.word is not BootWord.UNTRUSTED:
        return
    raise RefusedError(
        f"{vm} did not boot what its baseline says: " + "; ".join(boot.reasons),
        kind="guest-boot",
        remedy="find out what changed; if it was meant, remove its baseline.json there and restart it",
        vm_runs_on=host,
    )


def refuse_unsettled(state: OwnershipState, vm: VmName) -> None:
    """RefusedError(kind="not-owner") for a VM whose last hand-over is open: its copy here may be the last.

    QuestionError(kind="undecided") when only a person can end it.
    """
    if state.status is Status.OWNER:
        return
    if state.status in UNDECIDED:
        raise undecided(vm, state.status, state.epoch, state.peer)
    raise RefusedError(
        f"{vm} cannot move from here: its ownership here is {state.status} ({state.epoch})",
        kind="not-owner",
        remedy=f"wait until its hand-over with host {state.peer} is settled",
    )
