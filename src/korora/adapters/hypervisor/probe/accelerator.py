"""Which accelerator really runs guests here, found by booting a Linux kernel with a deadline.

A /dev/kvm that opens proves nothing: on some hosts it runs firmware and then hangs in the first kernel. The
probe boots a kernel without a root file system and waits for its panic: that takes long mode, paging, timers
and MSRs.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from korora.adapters.hypervisor.command_line import SANDBOX
from korora.adapters.hypervisor.probe.cache import Cache, fingerprint
from korora.adapters.hypervisor.process import Process, end, spawn
from korora.errors import ToolError

KVM = Path("/dev/kvm")
DEADLINE_S = 20.0  # a working KVM needs about one second
STALL_S = 4.0  # a kernel that boots keeps talking
SEEN = b"Kernel panic - not syncing"  # the guest's own words: a triple fault would end QEMU as well
_COMMAND_LINE = "console=ttyS0 panic=-1 root=/dev/none"
_VERSION = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Verdict:
    """`name` is "kvm" or "tcg"; `note` says in one line why."""

    name: str
    note: str


async def working_accelerator(
    binary: str, cache: Cache, kernel: Path | None = None, device: Path = KVM, deadline_s: float = DEADLINE_S
) -> Verdict:
    """KVM if a guest kernel was seen to run under it, else TCG. A trial's answer is kept until reboot."""
    if not device.exists():
        return Verdict("tcg", f"there is no {device} here: guests run under TCG, which is slower")
    tried = kernel or newest_kernel()
    if tried is None:
        return Verdict("tcg", "no kernel in /boot to try KVM with: guests run under TCG, which is slower")
    key = f"{fingerprint(binary, str(tried))} {device} {tried}"
    known = cache.read("accelerator", key)
    if known is None:
        ran = await _guest_kernel_runs(binary, tried, deadline_s)
        known = b"kvm" if ran else b"tcg"
        cache.write("accelerator", key, known)
    if known == b"kvm":
        return Verdict("kvm", f"{tried.name} ran under KVM")
    return Verdict(
        "tcg",
        f"{device} is there, but {tried.name} did not run under it: guests run under TCG, which is slower",
    )


def newest_kernel(boot: Path = Path("/boot")) -> Path | None:
    """The readable kernel of the highest version."""
    kernels = [path for path in boot.glob("vmlinuz-*") if path.is_file()]
    return max(kernels, key=lambda path: [int(part) for part in _VERSION.findall(path.name)], default=None)


async def _guest_kernel_runs(binary: str, kernel: Path, deadline_s: float) -> bool:
    with tempfile.TemporaryDirectory(prefix="korora-probe-") as name:
        directory = Path(name)
        serial = directory / "serial"
        args = [
            *("-machine", "q35", "-accel", "kvm", "-cpu", "qemu64", "-m", "128M"),
            *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-sandbox", SANDBOX),
            *("-kernel", str(kernel), "-append", _COMMAND_LINE, "-serial", f"file:{serial}"),
        ]
        try:
            process = Process(spawn(binary, args, directory, directory / "qemu.log", ()).pid)
        except ToolError:
            return False
        try:
            return await _says(serial, SEEN, process, deadline_s)
        finally:
            await end(process)


async def _says(serial: Path, words: bytes, process: Process, deadline_s: float) -> bool:
    """Whether the guest wrote `words` before the deadline and before it fell silent or ended."""
    loop = asyncio.get_running_loop()
    until = loop.time() + deadline_s
    said, heard_at = b"", loop.time()
    while loop.time() < until and loop.time() - heard_at < STALL_S:
        ended = process.is_gone  # read before the file: its last words may come just before its end
        now_said = serial.read_bytes() if serial.exists() else b""
        if words in now_said:
            return True
        if ended:
            return False
        if len(now_said) > len(said):
            said, heard_at = now_said, loop.time()
        await asyncio.sleep(0.05)
    return False
