"""The lane of the guest's TPM commands, with room between two of them for one of ours.

Promise: one command at a time, whole ones only; a command that lies about its size hangs nobody; when swtpm
is gone the guest gets TPM_RC_FAILURE instead of silence.
Limits: while a guest command runs inside swtpm, whoever asks next waits for it; QEMU 7.2 sends nothing for a
command of size 0 and waits for an answer to it until this lane closes.
"""

from __future__ import annotations

import select
import socket
import threading

from korora.agents.vtpm.interposer import control_channel as control
from korora.agents.vtpm.interposer import tpm_commands
from korora.errors import PeerError

_WHOLE_COMMAND_WITHIN_S = 0.2  # QEMU writes each command at once; the rest of a cut one never comes


class DataLane:
    """The guest's TPM commands, one at a time, with room between two of them for one of ours."""

    def __init__(self, guest: socket.socket, tpm: socket.socket) -> None:
        self._guest, self._tpm = guest, tpm
        self._busy = threading.Lock()
        self._silenced = False

    @property
    def busy(self) -> threading.Lock:
        """Held while a command is under way; whoever holds it has the TPM's data channel alone."""
        return self._busy

    def serve(self) -> None:
        """Run until the hypervisor hangs up."""
        try:
            while command := self._next_command():
                self._guest.sendall(self.execute(command))
        except OSError:
            pass  # the hypervisor went away in the middle of a response
        finally:
            self._guest.close()

    def execute(self, command: bytes) -> bytes:
        """One command and its response; TPM_RC_FAILURE when there is no TPM any more."""
        if len(command) != tpm_commands.message_size(command):
            return tpm_commands.failure(tpm_commands.RC_COMMAND_SIZE)
        with self._busy:
            if self._silenced:
                return tpm_commands.failure()
            try:
                self._tpm.sendall(command)
                return self._response()
            except (OSError, PeerError):
                self.silence()
                return tpm_commands.failure()

    def silence(self) -> None:
        """Answer failure to everything from here on. The caller holds `busy`, or swtpm is gone."""
        self._silenced = True

    def _next_command(self) -> bytes:
        """All bytes the guest meant as one command: a whole one, or what came of a cut or overlong one."""
        received = self._guest.recv(tpm_commands.MAX_MESSAGE)
        while received and len(received) < (tpm_commands.message_size(received) or tpm_commands.HEADER_BYTES):
            ready, _, _ = select.select([self._guest], [], [], _WHOLE_COMMAND_WITHIN_S)
            more = self._guest.recv(tpm_commands.MAX_MESSAGE) if ready else b""
            if not more:
                break
            received += more
        return received

    def _response(self) -> bytes:
        header = control.read_exactly(self._tpm, tpm_commands.HEADER_BYTES)
        size = tpm_commands.message_size(header)
        if not tpm_commands.HEADER_BYTES <= size <= tpm_commands.MAX_MESSAGE:
            raise PeerError(f"swtpm sent a response of {size} bytes", kind="bad-response")
        return header + control.read_exactly(self._tpm, size - len(header))
