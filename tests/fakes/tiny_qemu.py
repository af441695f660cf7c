"""A QEMU with nothing but firmware, RAM and a TPM, and the guest's hand on the TPM's registers."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

_CRB = 0xFED40000  # TPM 2.0 CRB registers (TCG PC Client Platform TPM Profile, 6.5)
_LOC_CTRL, _CTRL_REQ, _CTRL_START, _BUFFER = _CRB + 0x08, _CRB + 0x40, _CRB + 0x4C, _CRB + 0x80
_TIMEOUT_S = 60


class TinyQemu:
    def __init__(self, directory: Path, vtpm: Path, *, incoming: bool = False) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.log = directory / "qemu.log"
        qmp, qtest = directory / "qmp.sock", directory / "qtest.sock"
        listeners = [_listening(path) for path in (qmp, qtest)]
        command = ["qemu-system-x86_64", "-M", "q35", "-accel", "tcg", "-m", "64", "-nodefaults"]
        command += ["-display", "none", "-net", "none", "-sandbox", "on"]
        command += ["-qmp", f"unix:{qmp}", "-qtest", f"unix:{qtest}", "-qtest-log", "/dev/null"]
        command += ["-chardev", f"socket,id=vtpm,path={vtpm}", "-tpmdev", "emulator,id=tpm0,chardev=vtpm"]
        command += ["-device", "tpm-crb,tpmdev=tpm0"]
        command += ["-incoming", "defer", "-S"] if incoming else []
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            self._qmp, self._qtest = [_accepted(listener, self.process) for listener in listeners]
        except BaseException:
            self.end()
            raise
        self._lines = self._qmp.makefile("rb")
        self._answers = self._qtest.makefile("rb")
        self._lines.readline()
        self.ask("qmp_capabilities")

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(30)

    def ask(self, execute: str, **arguments: Any) -> Any:
        """One QMP command and its return value."""
        self._qmp.sendall(json.dumps({"execute": execute, "arguments": arguments}).encode() + b"\n")
        while True:
            answer = json.loads(self._lines.readline())
            if "error" in answer:
                raise RuntimeError(f"{execute}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]

    @property
    def status(self) -> str:
        return str(self.ask("query-status")["status"])

    # -- migration --------------------------------------------------------------------------------------

    def prepare_stream(self) -> None:
        names = ("return-path", "pause-before-switchover")
        self.ask(
            "migrate-set-capabilities", capabilities=[{"capability": name, "state": True} for name in names]
        )
        self.ask("migrate-set-parameters", **{"max-bandwidth": 10**11, "downtime-limit": 1000})

    def wait_for_stream(self, *states: str) -> str:
        until = time.monotonic() + _TIMEOUT_S
        while time.monotonic() < until:
            state = str(self.ask("query-migrate").get("status", "none"))
            if state in states:
                return state
            time.sleep(0.02)
        raise TimeoutError(f"the stream is {state}")

    def send(self, path: Path) -> str:
        """Migrate to the socket at `path`; "completed" or "failed"."""
        self.ask("migrate", uri=f"unix:{path}")
        state = self.wait_for_stream("pre-switchover", "completed", "failed")
        if state == "pre-switchover":
            self.ask("migrate-continue", state="pre-switchover")
            state = self.wait_for_stream("completed", "failed")
        return state

    # -- the guest's side of the TPM --------------------------------------------------------------------

    def tpm(self, command: bytes) -> bytes:
        """One TPM command through the device's registers, as a guest's driver would."""
        self._write(_LOC_CTRL, 1)
        self._write(_CTRL_REQ, 1)
        self._test(f"write {_BUFFER:#x} {len(command):#x} 0x{command.hex()}")
        self._write(_CTRL_START, 1)
        until = time.monotonic() + _TIMEOUT_S
        while self._read(_CTRL_START) & 1:
            if time.monotonic() > until:
                raise TimeoutError("the TPM does not answer")
            time.sleep(0.001)
        size = int.from_bytes(self._memory(_BUFFER, 10)[2:6], "big")
        response = self._memory(_BUFFER, size)
        self._write(_CTRL_REQ, 2)
        return response

    def _write(self, address: int, value: int) -> None:
        self._test(f"writel {address:#x} {value:#x}")

    def _read(self, address: int) -> int:
        return int(self._test(f"readl {address:#x}"), 16)

    def _memory(self, address: int, size: int) -> bytes:
        return bytes.fromhex(self._test(f"read {address:#x} {size:#x}").removeprefix("0x"))

    def _test(self, line: str) -> str:
        self._qtest.sendall(line.encode() + b"\n")
        while True:
            answer = self._answers.readline().decode().split()
            if answer[:1] == ["OK"]:
                return answer[1] if len(answer) > 1 else ""
            if answer[:1] != ["IRQ"]:
                raise RuntimeError(f"{line}: {answer}")


def _listening(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)
    return listener


def _accepted(listener: socket.socket, process: subprocess.Popen[bytes]) -> socket.socket:
    listener.settimeout(0.2)
    until = time.monotonic() + _TIMEOUT_S
    with listener:
        while time.monotonic() < until and process.poll() is None:
            try:
                link, _ = listener.accept()
            except TimeoutError:
                continue
            link.settimeout(_TIMEOUT_S)
            return link
    raise RuntimeError("QEMU did not start")
