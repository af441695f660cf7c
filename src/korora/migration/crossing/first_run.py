"""The first run after a move, and what is certain when it fails.

A destination may give its claim up only if the VM has certainly not run: an error alone does not say so.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import structlog

from korora.errors import KororaError
from korora.model.vm import RunState
from korora.ports.hypervisor import Machine

log = structlog.get_logger("korora.migration")


class Ran(StrEnum):
    YES = "yes"
    NO = "no"  # it is paused as it arrived, and has not run
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class FirstRun:
    ran: Ran
    reason: str = ""


async def first_run(machine: Machine) -> FirstRun:
    """Let it run, and tell the network. May be done again when the outcome was unknown. Never raises."""
    try:
        await machine.resume()
    except KororaError as error:
        ran = await _has_run(machine)
        if ran is not Ran.YES:
            return FirstRun(ran, error.message)
    try:
        await machine.announce()
    except KororaError as error:  # its own traffic will tell the switches soon
        log.warning("the VM runs, but was not announced", pid=machine.pid, error=error.message)
    return FirstRun(Ran.YES)


async def is_there(machine: Machine) -> bool:
    """Whether the process lives. ToolError when it does not say."""
    try:
        return await machine.run_state() is not RunState.STOPPED
    except KororaError as error:
        if error.kind == "vm-process-gone":
            return False
        raise


async def _has_run(machine: Machine) -> Ran:
    try:
        state = await machine.run_state()
    except KororaError:
        return Ran.UNKNOWN
    match state:
        case RunState.RUNNING:
            return Ran.YES
        case RunState.PAUSED | RunState.INCOMING:
            return Ran.NO
        case _:  # a process that ended may have run before
            return Ran.UNKNOWN
