"""Take over a QEMU that somebody else started, knowing only its QMP socket."""

from __future__ import annotations

from pathlib import Path

from korora.adapters.hypervisor.machine import QemuMachine


async def adopt(qmp_socket: Path) -> QemuMachine:
    raise NotImplementedError
