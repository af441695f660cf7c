"""The lab's guest under plain QEMU, moved by QEMU's own TCP migration: what Korora is compared with.

No Korora code touches these VMs; their stream is in the clear, as most installations send it.
Limit: for demonstrations and benchmarks; one QMP client at a time, and both ends on this machine.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from pyroute2 import IPRoute

from korora.adapters.hypervisor.command_line import low_ram, ram_bytes
from korora.errors import ToolError
from korora.lab.guest.image import GuestImage
from korora.lab.layout import LabHost, Layout
from korora.lab.machines import LabMachine
from korora.lab.processes import Processes
from korora.model.definition import parse_definition
from korora.model.vm import Firmware

_OVMF_CODE = Path("/usr/share/OVMF/OVMF_CODE_4M.secboot.fd")
_OVMF_VARIABLES = Path("/usr/share/OVMF/OVMF_VARS_4M.ms.fd")
_DEADLINE_S = 120.0


@dataclass(frozen=True, slots=True)
class Moved:
    """QEMU's own account of one migration."""

    total_ms: int
    downtime_ms: int
    bytes_sent: int


class PlainVm:
    """One QEMU with its swtpm, on one lab host. A context manager; `end` leaves nothing behind."""

    def __init__(
        self,
        layout: Layout,
        host: LabHost,
        machine: LabMachine,
        image: GuestImage,
        *,
        incoming_port: int | None = None,
    ) -> None:
        """Start it: running, or waiting for its state on `incoming_port` of the host's address."""
        self.host = host
        self._layout = layout
        self._machine = machine
        self._processes = Processes(layout.processes)
        self._name = f"plain-{host.name}-{machine.name}"
        self._tap = f"pl-{machine.number}"
        self._folder = layout.directory / "plain" / f"{host.name}-{machine.name}"
        (self._folder / "tpm").mkdir(parents=True, exist_ok=True)
        try:
            self._start(image, incoming_port)
        except BaseException:
            self.end()
            raise

    def query(self, command: str, **arguments: Any) -> Any:
        """One QMP command; its return value, or ToolError with QEMU's words."""
        with socket.socket(socket.AF_UNIX) as end:
            end.settimeout(_DEADLINE_S)
            end.connect(str(self._folder / "qmp"))
            lines = end.makefile("rw")
            lines.readline()  # the greeting
            for message in ({"execute": "qmp_capabilities"}, {"execute": command, "arguments": arguments}):
                answer = _asked(lines, message)
        if "error" in answer:
            raise ToolError(f"QEMU refused {command}: {answer['error'].get('desc')}", kind="plain-qemu")
        return answer["return"]

    def migrate(self, address: tuple[str, int], deadline_s: float = _DEADLINE_S) -> Moved:
        """Move it to whoever listens there, by plain TCP. Returns when QEMU calls it completed."""
        self.query("migrate-set-parameters", **{"max-bandwidth": 10**10})
        capability = {"capability": "return-path", "state": True}
        self.query("migrate-set-capabilities", capabilities=[capability])
        self.query("migrate", uri=f"tcp:{address[0]}:{address[1]}")
        limit = time.monotonic() + deadline_s
        while time.monotonic() < limit:
            found = self.query("query-migrate")
            if found.get("status") == "completed":
                return Moved(found["total-time"], found["downtime"], found["ram"]["transferred"])
            if found.get("status") in ("failed", "cancelled"):
                break
            time.sleep(0.05)
        raise ToolError(
            f"plain migration of {self._machine.name} {found.get('status')}: {found.get('error-desc', '')}",
            kind="plain-qemu",
            remedy=f"look at {self._folder}/qemu.log",
        )

    def running(self) -> bool:
        return bool(self.query("query-status")["running"])

    def end(self) -> None:
        """End both processes, and remove tap and files. Idempotent."""
        for part in ("qemu", "tpm"):
            self._processes.end(f"{self._name}-{part}", patience_s=3)
        with contextlib.suppress(Exception), IPRoute(netns=self.host.netns) as ip:
            for index in ip.link_lookup(ifname=self._tap):
                ip.link("del", index=index)
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def _start(self, image: GuestImage, incoming_port: int | None) -> None:
        self._make_tap()
        tpm = [
            "swtpm", "socket", "--tpm2", "--tpmstate", f"dir={self._folder}/tpm",
            "--ctrl", f"type=unixio,path={self._folder}/tpm.sock",
        ]  # fmt: skip
        log = self._folder / "qemu.log"
        self._processes.start(f"{self._name}-tpm", tpm, log=log, netns=self.host.netns)
        self._await(self._folder / "tpm.sock", "tpm")
        command = self._command(image)
        if incoming_port is not None:
            command += ["-incoming", f"tcp:{self.host.ip}:{incoming_port}"]
        self._processes.start(f"{self._name}-qemu", command, log=log, netns=self.host.netns)
        self._await(self._folder / "qmp", "qemu")
        self._await_answer()

    def _command(self, image: GuestImage) -> list[str]:
        machine, folder = self._machine, self._folder
        uefi = machine.firmware is Firmware.UEFI
        # The same RAM as under Korora: of another size, emulated guests do not always survive a move.
        same = replace(parse_definition(machine.definition(self._layout, image)), accelerator="tcg")
        mac = f"52:54:00:77:{self._layout.number:02x}:{machine.number:02x}"
        command = [
            "qemu-system-x86_64", "-nodefaults", "-display", "none", "-accel", "tcg", "-cpu", "qemu64",
            "-machine", ("q35,smm=on" if uefi else "q35") + low_ram(same), "-m", f"{ram_bytes(same) >> 10}K",
            "-qmp", f"unix:{folder}/qmp,server=on,wait=on", "-serial", f"file:{folder}/console.log",
            "-kernel", str(image.kernel), "-initrd", str(image.initrd),
            "-append", machine.command_line(self._layout),
            "-chardev", f"socket,id=tpm,path={folder}/tpm.sock",
            "-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm0",
            "-netdev", f"tap,id=net0,ifname={self._tap},script=no,downscript=no",
            "-device", f"virtio-net-pci,netdev=net0,mac={mac}",
        ]  # fmt: skip
        if machine.disk:
            command += [
                "-drive", f"file={machine.disk_path(self._layout)},format=raw,if=none,id=disk0",
                "-device", "virtio-blk-pci,drive=disk0",
            ]  # fmt: skip
        return command + (self._firmware() if uefi else [])

    def _firmware(self) -> list[str]:
        variables = self._folder / "variables.fd"
        shutil.copyfile(_OVMF_VARIABLES, variables)
        return [
            "-global", "driver=cfi.pflash01,property=secure,value=on",
            "-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={_OVMF_CODE}",
            "-drive", f"if=pflash,format=raw,unit=1,file={variables}",
        ]  # fmt: skip

    def _make_tap(self) -> None:
        with IPRoute(netns=self.host.netns) as ip:
            if not ip.link_lookup(ifname=self._tap):
                ip.link("add", ifname=self._tap, kind="tuntap", mode="tap")
            tap, bridge = ip.link_lookup(ifname=self._tap)[0], ip.link_lookup(ifname="br0")[0]
            ip.link("set", index=tap, master=bridge, state="up")

    def _await_answer(self) -> None:
        """QMP is answered by the main loop, which begins after `-incoming` listens."""
        limit = time.monotonic() + 20
        while True:
            try:
                self.query("query-status")
                return
            except (OSError, json.JSONDecodeError):  # its socket is bound before it listens
                if time.monotonic() > limit:
                    raise
            time.sleep(0.02)

    def _await(self, path: Path, part: str) -> None:
        limit = time.monotonic() + 20
        while not path.exists():
            if time.monotonic() > limit or not self._processes.find(f"{self._name}-{part}"):
                said = (self._folder / "qemu.log").read_text(errors="replace").strip()[-300:]
                raise ToolError(f"plain {part} did not start: {said}", kind="plain-qemu")
            time.sleep(0.01)


def _asked(lines: Any, message: dict[str, Any]) -> dict[str, Any]:
    """Send one command and read on to its answer, past events."""
    lines.write(json.dumps(message) + "\n")
    lines.flush()
    while True:
        answer: dict[str, Any] = json.loads(lines.readline())
        if "return" in answer or "error" in answer:
            return answer
