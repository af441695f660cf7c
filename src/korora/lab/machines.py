"""Ready VM definitions for the lab: the same guest under SeaBIOS or UEFI, with a disk that all hosts see.

In the form that `korora vm start FILE` takes. Limit: one network, two disks, one CPU.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from korora.errors import ToolError, UsageError
from korora.lab.guest.image import GuestImage
from korora.lab.layout import Layout
from korora.lab.observer import OBSERVER_PORT
from korora.model.identity import checked_name
from korora.model.vm import Firmware

DISK_BYTES = 64 << 20
DATA_BYTES = 16 << 20
READY = "KORORA GUEST READY"  # on the console, when the workload has begun


@dataclass(frozen=True, slots=True)
class Workload:
    """What the guest does. MiB and MiB/s; `fill` is "random" or "mixed" (half zero, a quarter repeated)."""

    dirty_mib: int = 32
    dirty_rate_mib: int = 8
    fill_mib: int = 64
    fill: str = "random"
    verify_rate_mib: int = 4

    def words(self) -> str:
        return (
            f"korora.dirty_mib={self.dirty_mib} korora.dirty_rate_mib={self.dirty_rate_mib}"
            f" korora.fill_mib={self.fill_mib} korora.fill={self.fill}"
            f" korora.verify_rate_mib={self.verify_rate_mib}"
        )


@dataclass(frozen=True, slots=True)
class LabMachine:
    """One VM of the lab. `number` (1 to 250) gives its address and MAC."""

    name: str
    number: int
    firmware: Firmware = Firmware.BIOS
    memory: str = "512M"
    workload: Workload = Workload()
    disk: bool = True
    data: bool = False  # a second disk, with a file system that the guest leaves alone
    accelerator: str = "auto"

    def __post_init__(self) -> None:
        checked_name(self.name, "the VM name")
        if not 1 <= self.number <= 250:
            raise UsageError(
                f"VM number {self.number} is not between 1 and 250",
                kind="bad-vm-number",
                remedy="choose another",
            )

    def ip(self, layout: Layout) -> str:
        return layout.guest_ip(self.number)

    def disk_path(self, layout: Layout) -> Path:
        return layout.storage / f"{self.name}.raw"

    def data_path(self, layout: Layout) -> Path:
        return layout.storage / f"{self.name}-data.raw"

    def command_line(self, layout: Layout) -> str:
        """The kernel's: console on the first serial port, and the guest's settings (docs/lab.md)."""
        return (
            f"console=ttyS0 quiet panic=-1 korora.ip={self.ip(layout)}/24"
            f" korora.observer={layout.observer_ip}:{OBSERVER_PORT} {self.workload.words()}"
        )

    def definition(self, layout: Layout, image: GuestImage) -> str:
        """TOML."""
        uefi = self.firmware is Firmware.UEFI
        lines = [
            f"name = {_text(self.name)}",
            f"memory = {_text(self.memory)}",
            f"accelerator = {_text(self.accelerator)}",
            "",
            "[firmware]",
            f"kind = {_text(self.firmware.value)}",
            f"secure_boot = {'true' if uefi else 'false'}",
            "",
            "[boot]",
            f"kernel = {_text(str(image.kernel))}",
            f"initrd = {_text(str(image.initrd))}",
            f"command_line = {_text(self.command_line(layout))}",
            "",
            "[vtpm]",
            "enabled = true",
        ]
        if self.disk:
            lines += ["", "[[disks]]", f"path = {_text(str(self.disk_path(layout)))}", 'format = "raw"']
        if self.data:
            path = _text(str(self.data_path(layout)))
            lines += ["", "[[disks]]", 'name = "data"', f"path = {path}", 'format = "raw"']
        mac = f"52:54:00:77:{layout.number:02x}:{self.number:02x}"
        lines += ["", "[[networks]]", 'bridge = "br0"', f"mac = {_text(mac)}"]
        return "\n".join(lines) + "\n"


READY_MADE = (
    LabMachine("web-1", 1),
    LabMachine("vault-1", 2, firmware=Firmware.UEFI),
)


def write_machine(layout: Layout, machine: LabMachine, image: GuestImage) -> Path:
    """Write the definition and make the disk if there is none; returns the definition's path."""
    if machine.disk and not machine.disk_path(layout).exists():
        machine.disk_path(layout).touch(mode=0o600)
        os.truncate(machine.disk_path(layout), DISK_BYTES)
    if machine.data and not machine.data_path(layout).exists():
        _make_data(machine.data_path(layout))
    path = layout.machines / f"{machine.name}.toml"
    path.write_text(machine.definition(layout, image))
    return path


def _make_data(path: Path) -> None:
    path.touch(mode=0o600)
    os.truncate(path, DATA_BYTES)
    done = subprocess.run(["mkfs.ext4", "-q", str(path)], capture_output=True, check=False, timeout=60)
    if done.returncode:
        path.unlink()
        raise ToolError(f"no disk could be made: {done.stderr!r}", kind="lab-disk", remedy="korora doctor")


def _text(value: str) -> str:
    return json.dumps(value)  # a JSON string is a TOML basic string
