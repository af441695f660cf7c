"""The command line of an adopted VM at its destination: its own hardware with this host's ends. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

from korora.adapters.hypervisor.adoption.hardware import TAP_SLOT, VTPM_SLOT, portable, ram_name
from korora.adapters.hypervisor.adoption.options import parse_options
from korora.adapters.hypervisor.command_line import SANDBOX, Launch, escaped, qmp_monitor, socket_path
from korora.errors import RefusedError
from korora.model.vm import VmDefinition


def adopted_arguments(definition: VmDefinition, launch: Launch) -> list[str]:
    """RefusedError(kind="adopted-hardware") when it cannot be made here, or was changed on the way."""
    refuse_foreign_hardware(definition)
    return [
        *_frame(definition),
        *_machine(definition),
        *_filled(definition, launch),
        *(["-incoming", "defer"] if launch.incoming else []),
    ]


def refuse_foreign_hardware(definition: VmDefinition) -> None:
    """RefusedError(kind="adopted-hardware") unless it is just as this host's screening leaves it."""
    hardware = definition.hardware
    if not hardware or portable(hardware) != hardware:
        raise RefusedError(
            f"the hardware of {definition.name} cannot be made on another host",
            kind="adopted-hardware",
            remedy="some of its QEMU arguments are not portable; define the VM for Korora to move it",
        )


def _frame(definition: VmDefinition) -> Iterator[str]:
    yield from ("-name", f"guest={definition.name},debug-threads=on")
    yield from ("-no-user-config", "-display", "none", "-monitor", "none", "-S")
    yield from ("-sandbox", SANDBOX)
    yield from ("-accel", definition.accelerator)
    yield from ("-m", f"{definition.memory_bytes // 2**10}K")
    yield from qmp_monitor("korora-qmp")


def _machine(definition: VmDefinition) -> Iterator[str]:
    """The memory keeps its name, a part of the stream, but becomes a file that can be proved and wiped."""
    ram = ram_name(definition.hardware)
    size = definition.memory_bytes
    yield from ("-object", f"memory-backend-memfd,id={ram},size={size},share=on")
    settings = _own_settings(definition.hardware)
    yield from ("-machine", ",".join([definition.machine, *settings, f"memory-backend={ram}"]))


def _own_settings(hardware: tuple[str, ...]) -> list[str]:
    """What was written after the machine's type, but for its memory."""
    found = (
        parse_options(value, "type").without("memory-backend")
        for option, value in pairwise(hardware)
        if option == "-machine"
    )
    return [str(replace(options, kind="")) for options in found if options.values]


def _filled(definition: VmDefinition, launch: Launch) -> Iterator[str]:
    """The hardware, less `-machine`, with the slots filled: taps in their order, and the vTPM's socket."""
    taps = iter(launch.taps)
    skip = False
    for word in definition.hardware:
        if skip or word == "-machine":
            skip = not skip
        elif VTPM_SLOT in word:
            yield word.replace(VTPM_SLOT, _vtpm_path(definition, launch))
        elif f"fd={TAP_SLOT}" in word:
            yield word.replace(TAP_SLOT, str(_next_tap(definition, taps)))
        else:
            yield word


def _vtpm_path(definition: VmDefinition, launch: Launch) -> str:
    if launch.vtpm_socket is None:
        raise RefusedError(
            f"{definition.name} has a vTPM, but no vTPM socket was given",
            kind="no-vtpm",
            remedy="start it first",
        )
    return escaped(socket_path(launch.vtpm_socket, launch.directory))


def _next_tap(definition: VmDefinition, taps: Iterator[int]) -> int:
    try:
        return next(taps)
    except StopIteration:
        raise RefusedError(
            f"a network card of {definition.name} was on no bridge, so it can be on none here",
            kind="adopted-hardware",
            remedy="put its tap on a bridge that both hosts have, then adopt it again",
        ) from None
