"""A guest under load and its disk, moved once: by Korora, or by QEMU's own mirror and migration.

`idle` is the guest just before, over IDLE_S; `moving` all of the move, from the order to its end, with the
pause and everything else in it; `here` the part of it up to the last that the guest said at the source, which
is once a second: while its disk was copied. Latencies are medians of each second's.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from bench.accounting import machine_cpu_s
from bench.plain_vm import PlainVm
from bench.storage_guest import Console, Load

from korora.client import Daemon
from korora.errors import ToolError
from korora.lab.layout import LabHost, Layout
from korora.lab.lifecycle import korora_command
from korora.model.definition import parse_definition
from korora.ports.hypervisor import StreamSettings

IDLE_S: Final = 8.0
SHALLOW_BYTES: Final = 1 << 19
"""What a mirror has under way at most, where it is told so: one request."""
_NBD_PORT: Final = 10809
_PORT: Final = 7100


class Move(msgspec.Struct, frozen=True):
    """`bytes_sent`, `downtime_ms` None: nobody counted. `notes`: what the daemon said on the way. `cpu_s`:
    the whole machine's during the move, the guest's in it; `idle_cpus`: how many were busy just before."""

    way: str
    number: int
    wall_s: float
    idle: Load
    moving: Load
    bytes_sent: int | None = None
    here: Load | None = None
    here_s: float = 0.0
    downtime_ms: float | None = None
    notes: tuple[str, ...] = ()
    cpu_s: float = 0.0
    idle_cpus: float = 0.0


# -- Korora ------------------------------------------------------------------------------------------------


class ByKorora:
    def __init__(self, layout: Layout, name: str, text: str) -> None:
        self._layout = layout
        self._name = name
        self._at, self._there = layout.hosts(2)
        path = layout.machines / f"{name}.toml"
        path.write_text(text)
        with Daemon(self._at.api, self._at.name) as daemon:
            self._pid = daemon.define(text, start=True).pid or 0
        self.console = Console(*(self._says(host) for host in layout.hosts(2)))
        self.began = 0.0
        """When the last move was ordered (monotonic seconds)."""

    def hold(self) -> None:
        os.kill(self._pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self._pid, signal.SIGCONT)

    def move(self, number: int, *, way: str, words: Sequence[str]) -> Move:
        (idle, idle_cpus), busy = _idle(self.console), machine_cpu_s()
        began = time.monotonic()
        self.began, says = began, self._says(self._at)
        configuration = ["--config", str(self._layout.configuration)]
        order = ["migrate", self._name, "--to", self._there.name, "--disks", "all", *words, "--json"]
        done = subprocess.run(
            [*korora_command(), *configuration, *order], capture_output=True, text=True, check=False
        )
        ended, cpu_s = time.monotonic(), machine_cpu_s() - busy
        lines = done.stdout.strip().splitlines()
        if done.returncode:
            raise ToolError(f"{way} did not move it: {lines[-1:]} {done.stderr[-500:]}", kind="bench-korora")
        self._at, self._there = self._there, self._at
        with Daemon(self._at.api, self._at.name) as daemon:
            self._pid = daemon.vm(self._name).pid or 0
        left, told = self.console.last(says), [json.loads(line) for line in lines]
        notes = tuple(one["message"] for one in told if one.get("event") == "note")
        return Move(
            way, number, round(ended - began, 2), idle, self.console.between(began, ended),
            told[-1]["bytes_sent"], self.console.between(began, left), round(left - began, 2),
            told[-1]["downtime_ms"], notes, round(cpu_s, 2), idle_cpus,
        )  # fmt: skip

    def end(self) -> None:
        """The VM ends with the lab."""
        self.console.close()

    def _says(self, host: LabHost) -> Path:
        return host.state / "vms" / self._name / "console.log"


# -- QEMU --------------------------------------------------------------------------------------------------


class ByQemu:
    """`elsewhere`: the folder for the disk at the destination; None: that of the disk."""

    def __init__(
        self, layout: Layout, folder: Path, name: str, text: Callable[[Path], str], disk: Path,
        certificates: Mapping[str, Path], elsewhere: Path | None = None,
    ) -> None:  # fmt: skip
        self._folder = folder
        self._name = name
        self._text = text
        self._disk = disk
        self._size = disk.stat().st_size
        self._certificates = certificates
        self._elsewhere = elsewhere or disk.parent
        self._numbers = itertools.count()
        self._hosts = layout.hosts(2)
        self._vm, self._place = self._start(self._hosts[0], disk, incoming=False)
        self.console = Console(self._place / "console.log")
        self.began = 0.0
        """When the last move was ordered (monotonic seconds)."""

    def hold(self) -> None:
        self._vm.qmp("stop")

    def go_on(self) -> None:
        self._vm.qmp("cont")

    def move(self, number: int, *, way: str, tls: bool = False, shallow: bool = False) -> Move:
        """`shallow`: the mirror has one request under way at a time."""
        (idle, idle_cpus), busy = _idle(self.console), machine_cpu_s()
        began = time.monotonic()
        before, says, source, old = self.console, self._place / "console.log", self._vm, self._disk
        self.began = began
        source.qmp.forget_events()
        there = self._hosts[1] if source.host is self._hosts[0] else self._hosts[0]
        self._disk = self._elsewhere / f"{self._name}-{next(self._numbers)}.raw"
        self._disk.touch(mode=0o600)
        os.truncate(self._disk, self._size)
        destination, self._place = self._start(there, self._disk, incoming=True)
        self._vm, self.console = destination, Console(self._place / "console.log")
        self._mirror(source, destination, there, tls=tls, shallow=shallow)
        self._migrate(source, destination, there, tls=tls)
        source.end()
        ended, cpu_s = time.monotonic(), machine_cpu_s() - busy
        moving, left = _together(before, self.console, began, ended), before.last(says)
        here = before.between(began, left)
        before.close()
        old.unlink()
        return Move(
            way, number, round(ended - began, 2), idle, moving, here=here, here_s=round(left - began, 2),
            cpu_s=round(cpu_s, 2), idle_cpus=idle_cpus,
        )  # fmt: skip

    def end(self) -> None:
        self._vm.end()
        self.console.close()

    def _mirror(
        self, source: PlainVm, destination: PlainVm, there: LabHost, *, tls: bool, shallow: bool
    ) -> None:
        """Until both disks are the same and the guest's writes follow."""
        address = {"host": there.ip, "port": str(_NBD_PORT)}
        served: dict[str, Any] = {"addr": {"type": "inet", "data": address}}
        node = {"driver": "nbd", "node-name": "there", "server": {"type": "inet", **address}, "export": "d"}
        if tls:
            served["tls_creds"] = self._credentials(destination, server=True)
            node["tls-creds"] = self._credentials(source, server=False)
        destination.qmp("nbd-server-start", **served)
        exported = {"type": "nbd", "id": "e", "node_name": "system-node", "name": "d", "writable": True}
        destination.qmp("block-export-add", **exported)
        source.qmp("blockdev-add", **node)
        depth = {"buf_size": SHALLOW_BYTES} if shallow else {}
        source.qmp(
            "blockdev-mirror", job_id="copying", device="system-node", target="there", sync="full",
            copy_mode="background", **depth,
        )  # fmt: skip
        source.qmp.wait_for("BLOCK_JOB_READY")

    def _migrate(self, source: PlainVm, destination: PlainVm, there: LabHost, *, tls: bool) -> None:
        settings = StreamSettings()
        for vm, server in ((destination, True), (source, False)):
            wanted = {"events": True, "late-block-activate": server, "pause-before-switchover": not server}
            vm.qmp(
                "migrate-set-capabilities",
                capabilities=[{"capability": name, "state": on} for name, on in wanted.items()],
            )
            vm.qmp(
                "migrate-set-parameters",
                max_bandwidth=settings.max_bandwidth_bytes_per_s,
                downtime_limit=settings.downtime_limit_ms,
                tls_creds=self._credentials(vm, server=server) if tls else "",
            )
        destination.qmp("migrate-incoming", uri=f"tcp:{there.ip}:{_PORT}")
        source.qmp("migrate", uri=f"tcp:{there.ip}:{_PORT}")
        source.qmp.wait_for("MIGRATION", status="pre-switchover")
        source.qmp("block-job-cancel", device="copying")
        source.qmp.wait_for("BLOCK_JOB_COMPLETED")
        source.qmp("blockdev-del", node_name="there")
        destination.qmp("nbd-server-stop")
        source.qmp("migrate-continue", state="pre-switchover")
        destination.qmp.wait_for("RESUME")

    def _start(self, host: LabHost, disk: Path, *, incoming: bool) -> tuple[PlainVm, Path]:
        folder = self._folder / f"{host.name}{next(self._numbers)}"
        definition = parse_definition(self._text(disk), self._name)
        return PlainVm(folder, host, definition, incoming=incoming), folder

    def _credentials(self, vm: PlainVm, *, server: bool) -> str:
        name = f"tls{next(self._numbers)}"
        vm.qmp(
            "object-add", qom_type="tls-creds-x509", id=name, endpoint="server" if server else "client",
            dir=str(self._certificates[vm.host.name]), verify_peer=True,
        )  # fmt: skip
        return name


def _idle(console: Console) -> tuple[Load, float]:
    """The guest alone, once it is under way again, and how many CPUs were busy."""
    console.wait_for_load(time.monotonic() + 2.0)
    began, busy = time.monotonic(), machine_cpu_s()
    time.sleep(IDLE_S)
    return console.between(began, time.monotonic()), round((machine_cpu_s() - busy) / IDLE_S, 2)


def _together(before: Console, after: Console, began: float, ended: float) -> Load:
    one, other = before.between(began, ended), after.between(began, ended)
    return Load(round(one.iops + other.iops, 1), max(one.p50_ms, other.p50_ms), max(one.p99_ms, other.p99_ms))
