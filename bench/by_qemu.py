"""QEMU's own migration, four ways. Who orders it must start the destination, as Korora does for its user.

The VM goes back and forth, so that every run begins with a VM that runs, and no copy is ever used twice.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.accounting import machine_cpu_s
from bench.figures import TCP, TLS, Run
from bench.guest import Watched
from bench.plain_vm import PlainVm

from korora.lab.layout import LabHost
from korora.model.vm import VmDefinition
from korora.ports.hypervisor import StreamSettings

PORT: Final = 7100


@dataclass(frozen=True, slots=True)
class Way:
    """`channels` 0: no multifd."""

    name: str
    tls: bool
    channels: int


WAYS: Final = (
    Way(TCP, tls=False, channels=0),
    Way(TLS, tls=True, channels=0),
    Way("multifd-tls-2", tls=True, channels=2),
    Way("multifd-tls-4", tls=True, channels=4),
)


class ByQemu:
    """One VM that QEMU moves between two hosts."""

    def __init__(
        self,
        folder: Path,
        hosts: tuple[LabHost, LabHost],
        definition: VmDefinition,
        certificates: Mapping[str, Path],
        watched: Watched,
    ) -> None:
        self._folder = folder
        self._hosts = hosts
        self._definition = definition
        self._certificates = certificates
        self._watched = watched
        self._numbers = itertools.count()
        self._vm = self._start(hosts[0], incoming=False)

    def hold(self) -> None:
        """It takes no CPU while another VM is measured."""
        self._vm.qmp("stop")

    def go_on(self) -> None:
        self._vm.qmp("cont")

    def move(self, way: Way, number: int) -> Run:
        """Move it to the other host, and end the source."""
        source = self._vm
        source.qmp.forget_events()
        busy, used, ordered = machine_cpu_s(), source.cpu_s(), time.monotonic()
        there = self._hosts[1] if source.host is self._hosts[0] else self._hosts[0]
        destination = self._vm = self._start(there, incoming=True)
        self._prepare(destination, way, server=True)
        destination.qmp("migrate-incoming", uri=f"tcp:{there.ip}:{PORT}")
        self._prepare(source, way, server=False)
        source.qmp("migrate", uri=f"tcp:{there.ip}:{PORT}")
        destination.qmp.wait_for("RESUME")
        running = time.monotonic()
        used_until_running = source.cpu_s() + destination.cpu_s() - used
        source.qmp.wait_for("MIGRATION", status="completed")
        told = source.qmp("query-migrate")
        source.end()
        used_until_ended = source.cpu_s() + destination.cpu_s() - used
        busy = machine_cpu_s() - busy
        seen = self._watched.seen_since(ordered)
        return Run(
            way=way.name,
            number=number,
            ram_mib=self._definition.memory_bytes >> 20,
            source=source.host.name,
            wall_s=round(running - ordered, 4),
            transfer_s=told["total-time"] / 1000,
            downtime_ms=seen.downtime_ms,
            own_downtime_ms=told["downtime"],
            cpu_s=round(used_until_ended, 2),
            cpu_until_running_s=round(used_until_running, 2),
            others_cpu_s=round(busy - used_until_ended, 2),
            bytes_sent=told["ram"]["transferred"],
            ticks=seen.ticks,
        )

    def end(self) -> None:
        self._vm.end()

    def _start(self, host: LabHost, *, incoming: bool) -> PlainVm:
        folder = self._folder / f"{host.name}{next(self._numbers)}"
        return PlainVm(folder, host, self._definition, incoming=incoming)

    def _prepare(self, vm: PlainVm, way: Way, *, server: bool) -> None:
        """Capabilities, parameters and credentials of one end, each set anew for each move."""
        settings = StreamSettings()
        wanted = {
            "return-path": True,
            "events": True,
            "multifd": way.channels > 0,
            "late-block-activate": server,
        }
        vm.qmp(
            "migrate-set-capabilities",
            capabilities=[{"capability": name, "state": on} for name, on in wanted.items()],
        )
        parameters: dict[str, Any] = {
            "max-bandwidth": settings.max_bandwidth_bytes_per_s,
            "downtime-limit": settings.downtime_limit_ms,
            "tls-creds": self._credentials(vm, server=server) if way.tls else "",
        }
        if way.channels:
            parameters["multifd-channels"] = way.channels
        vm.qmp("migrate-set-parameters", **parameters)

    def _credentials(self, vm: PlainVm, *, server: bool) -> str:
        name = f"tls{next(self._numbers)}"
        vm.qmp(
            "object-add",
            qom_type="tls-creds-x509",
            id=name,
            endpoint="server" if server else "client",
            dir=str(self._certificates[vm.host.name]),
            verify_peer=True,
        )
        return name
