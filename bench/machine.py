"""Say on what machine, with what software and under what load figures were made."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import msgspec


class Machine(msgspec.Struct, frozen=True):
    when: str
    cpu: str
    cpus: int
    memory_mib: int
    kernel: str
    python: str
    qemu: str
    swtpm: str
    accelerator: str
    korora: str
    free_memory: str
    load_before: float
    load_after: float = 0.0


def describe(accelerator: str = "", free_memory: str = "") -> Machine:
    """Without an accelerator no guest is run, and it does not matter with which QEMU."""
    return Machine(
        when=datetime.now(UTC).isoformat(timespec="seconds"),
        cpu=_field("/proc/cpuinfo", "model name") or platform.machine(),
        cpus=os.cpu_count() or 0,
        memory_mib=int(_field("/proc/meminfo", "MemTotal").split()[0]) // 1024,
        kernel=platform.release(),
        python=platform.python_version(),
        qemu=_first_line("qemu-system-x86_64", "--version") if accelerator else "",
        swtpm=_first_line("swtpm", "--version") if accelerator else "",
        accelerator=accelerator,
        korora=_first_line("git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"),
        free_memory=free_memory,
        load_before=load(),
    )


def load() -> float:
    """Runnable processes, averaged over a minute."""
    return round(os.getloadavg()[0], 2)


def _field(file: str, name: str) -> str:
    for line in Path(file).read_text().splitlines():
        if line.startswith(name):
            return line.partition(":")[2].strip()
    return ""


def _first_line(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except OSError:
        return "unknown"
    return (done.stdout.strip().splitlines() or ["unknown"])[0]
