"""Where one VM's vTPM lies, and its two processes: swtpm, and the interposer that alone can reach it.

Promise: both processes are recorded before anybody uses them, and found again after a restart of the daemon;
on failure to start neither is left.
Limit: blocking; the caller sees to it that one thing at a time is done per VM.

Files, all under the VM's own directory (0700): `vtpm/state/` (swtpm's), `vtpm/sealed-key`, `vtpm/counter`,
`vtpm/processes.json`, `vtpm/*.log`, `vtpm/hypervisor.sock`, `vtpm/command.sock`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from korora.agents.vtpm import processes
from korora.agents.vtpm.at_rest import write_durably
from korora.agents.vtpm.live import LiveVtpm
from korora.agents.vtpm.processes import Process
from korora.errors import KororaError
from korora.model.identity import Secret, VmName
from korora.ports.vtpm_emulator import VtpmEmulator

_END_WITHIN_S = 15.0


class Processes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`processes.json`."""

    interposer: Process
    emulator: Process


class VtpmHome:
    """One VM's vTPM directory: where everything lies."""

    def __init__(self, vm_directory: Path) -> None:
        self.directory = vm_directory / "vtpm"
        self.state = self.directory / "state"
        self.making = self.directory / "making"  # there while a new TPM is not finished
        self.hypervisor_socket = self.directory / "hypervisor.sock"
        self.command_socket = self.directory / "command.sock"
        self._processes = self.directory / "processes.json"

    def prepare(self) -> None:
        for directory in (self.directory, self.state):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            directory.chmod(0o700)

    def is_blank(self) -> bool:
        return not self.state.exists() or not any(self.state.iterdir())

    def processes(self) -> Processes | None:
        """The recorded ones that still live here; None when none does, or the record cannot be read."""
        try:
            recorded = msgspec.json.decode(self._processes.read_bytes(), type=Processes)
        except (FileNotFoundError, msgspec.MsgspecError):
            return None
        both = (recorded.interposer, recorded.emulator)
        return recorded if any(processes.is_alive(process) for process in both) else None

    def record(self, started: Processes) -> None:
        write_durably(self._processes, msgspec.json.encode(started))

    def forget_processes(self) -> None:
        for path in (self._processes, self.hypervisor_socket, self.command_socket):
            path.unlink(missing_ok=True)

    def live(self) -> LiveVtpm:
        return LiveVtpm(self.hypervisor_socket, self.command_socket)


def launch(vm: VmName, home: VtpmHome, emulator: VtpmEmulator, key: Secret, *, incoming: bool) -> LiveVtpm:
    """Start swtpm and its interposer on the two ends of one socketpair: nobody else reaches swtpm.

    They may still be starting when this returns; their sockets take connections already (`ready` waits).
    """
    with contextlib.ExitStack() as undo:
        undo.callback(home.forget_processes)
        ours, theirs = socket.socketpair()
        with ours, theirs, _readable(key) as key_fd:
            command = emulator.command(home.state, key_fd, theirs.fileno())
            swtpm = processes.spawn(command, (key_fd, theirs.fileno()), home.directory / "swtpm.log")
            undo.callback(processes.end, swtpm, _END_WITHIN_S)
            interposer = _spawn_interposer(vm, home, ours, incoming=incoming)
            undo.callback(processes.end, interposer, _END_WITHIN_S)
        home.record(Processes(interposer, swtpm))
        undo.pop_all()
        return home.live()


def end(home: VtpmHome) -> bool:
    """End both processes, the TPM in good order if it can be. True when it was retired."""
    found, retired = home.processes(), False
    if found is not None:
        patience_s = 0.0
        with contextlib.suppress(KororaError, TimeoutError):
            retired = asyncio.run(_ended(home.live()))
            patience_s = _END_WITHIN_S
        for process in (found.interposer, found.emulator):
            if not processes.wait_for_end(process, patience_s):
                processes.end(process, _END_WITHIN_S)
    home.forget_processes()
    return retired


def _spawn_interposer(vm: VmName, home: VtpmHome, tpm: socket.socket, *, incoming: bool) -> Process:
    with _bound(home.hypervisor_socket) as hypervisors, _bound(home.command_socket) as daemons:
        descriptors = [hypervisors.fileno(), daemons.fileno(), tpm.fileno()]
        names = ("--hypervisor-fd", "--daemon-fd", "--tpm-fd")
        command = [sys.executable, "-P", "-m", "korora.agents.vtpm.interposer", vm]
        command += [text for pair in zip(names, map(str, descriptors), strict=True) for text in pair]
        command += ["--incoming"] if incoming else []
        return processes.spawn(command, descriptors, home.directory / "interposer.log")


async def _ended(live: LiveVtpm) -> bool:
    async with asyncio.timeout(_END_WITHIN_S):
        retired = (await live.status()).mode == "retired"
        await live.end()
        return retired


def _bound(path: Path) -> socket.socket:
    """A listening unix socket: whoever connects before the interposer is up waits for it."""
    path.unlink(missing_ok=True)
    server = socket.socket(socket.AF_UNIX)
    # Through the directory's descriptor: the path itself may be longer than sun_path's 107 bytes.
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        server.bind(f"/proc/self/fd/{directory}/{path.name}")
        path.chmod(0o600)
        server.listen(8)
    finally:
        os.close(directory)
    return server


@contextlib.contextmanager
def _readable(key: Secret) -> Iterator[int]:
    """A descriptor from which the key can be read once, in hex."""
    reader, writer = os.pipe()
    try:
        os.write(writer, key.reveal().hex().encode())
        os.close(writer)
        yield reader
    finally:
        os.close(reader)
