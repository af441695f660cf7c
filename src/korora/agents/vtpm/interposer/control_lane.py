"""The lane of swtpm's control messages, under the guard's eye.

Promise: one exchange at a time, and the hypervisor never waits for the daemon; before every GET_STATEBLOB,
SET_STATEBLOB and INIT the guard is asked. When swtpm is gone every request is answered with failure.
Limit: while a guest command runs inside swtpm (RSA keys take seconds under emulation), everything else waits.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from korora.agents.vtpm.interposer import control_channel as control
from korora.agents.vtpm.interposer import tpm_commands
from korora.agents.vtpm.interposer.blob_guard import Arrived, BlobGuard, Mode
from korora.agents.vtpm.interposer.control_channel import Command, Request, StateReply
from korora.agents.vtpm.interposer.data_lane import DataLane
from korora.errors import KororaError, PeerError, RefusedError, ToolError
from korora.model.identity import Digest, sha256
from korora.protocol.vtpm_blob import BlobType

_FAILED = struct.pack(">I", control.FAIL)
_BUFFER_BYTES = 4096


class ControlLane:
    """swtpm's control channel under the guard's eye. Its lock orders the hypervisor's requests and ours."""

    def __init__(self, tpm: socket.socket, guard: BlobGuard) -> None:
        self._tpm = tpm
        self.guard = guard
        self.lock = threading.Lock()
        self.data: DataLane | None = None
        self.initialised = False
        self.tpm_alive = True

    def probe(self) -> None:
        """See whether swtpm answers at all; `tpm_alive` says so from here on."""
        with self.lock:
            try:
                control.exchange(self._tpm, Request(Command.GET_CAPABILITY))
            except (OSError, PeerError):
                self._lost()

    def serve(self, hypervisor: socket.socket) -> None:
        """Run until the hypervisor hangs up, or says something after which nothing can be trusted."""
        try:
            while request := control.read_request(hypervisor):
                hypervisor.sendall(self.answer(request))
        except control.OversizedError as error:
            self.guard.spoil(str(error))
            hypervisor.sendall(_FAILED)
        except KororaError as error:
            self.guard.spoil(str(error))
        except OSError:
            pass  # the hypervisor went away in the middle of a reply
        finally:
            hypervisor.close()

    def answer(self, request: Request) -> bytes:
        with self.lock:
            try:
                if self.guard.mode is Mode.RETIRED or not self.tpm_alive:
                    return _dead_reply(request.command)
                return self._answer(request)
            except (OSError, PeerError):
                self._lost()
                return _dead_reply(request.command)
            finally:
                control.close_all(request.descriptors)

    def _answer(self, request: Request) -> bytes:
        match request.command:
            case Command.GET_STATEBLOB:
                return self._give(request).encoded()
            case Command.SET_STATEBLOB:
                return struct.pack(">I", self._take(request))
            case Command.INIT:
                return self._start(request)
            case Command.SET_DATAFD:
                return self._connect_data(request)
            case Command.SHUTDOWN:
                self._shut_down()
                return bytes(4)
            case Command.STOP:
                self.initialised = False
        return control.exchange(self._tpm, request)

    def _give(self, request: Request) -> StateReply:
        _, number, offset = struct.unpack(">III", request.body)
        if number not in list(BlobType) or offset:
            return StateReply(control.FAIL)
        kind = BlobType(number)
        try:
            self.guard.check_outgoing(kind)
        except RefusedError:
            return StateReply(control.FAIL)
        taken = control.get_state(self._tpm, kind)
        absent = kind is BlobType.SAVESTATE and taken.result == control.NO_SUCH_STATE
        if taken.result != control.SUCCESS and not absent:
            self.guard.spoil(f"swtpm answered {taken.result:#x} when asked for its {kind.label} state")
            return taken
        # An absent state travels as an authenticated empty one, so that a stripped one is noticed.
        return StateReply(control.SUCCESS, taken.flags, self.guard.outgoing(kind, taken.flags, taken.state))

    def _take(self, request: Request) -> int:
        flags, number, _ = struct.unpack_from(">III", request.body)
        if number not in list(BlobType):
            self.guard.spoil(f"a blob of unknown type {number} came")
            return control.FAIL
        try:
            whole = self.guard.incoming(BlobType(number), flags, request.body[12:])
        except KororaError:
            return control.FAIL
        return self._load(whole) if whole else control.SUCCESS

    def _load(self, whole: dict[BlobType, Arrived]) -> int:
        """All three have verified: only now does anything of them reach swtpm (and its disk)."""
        for kind, (flags, state) in whole.items():
            result = control.set_state(self._tpm, kind, flags, state) if state else control.SUCCESS
            if result != control.SUCCESS:
                self.guard.spoil(f"swtpm refused the {kind.label} state with {result:#x}")
                return result
        return control.SUCCESS

    def _start(self, request: Request) -> bytes:
        try:
            self.guard.check_start()
        except RefusedError:
            return _FAILED
        reply = control.exchange(self._tpm, request)
        self.initialised = control.result_of(reply) == control.SUCCESS
        if self.initialised:
            self.guard.started()
        else:
            self.guard.spoil(f"swtpm answered {control.result_of(reply):#x} to INIT")
        return reply

    def _connect_data(self, request: Request) -> bytes:
        """Put ourselves between the hypervisor's end of the data channel and swtpm."""
        if len(request.descriptors) != 1 or self.data is not None:
            return _FAILED
        ours, theirs = socket.socketpair()
        with theirs:
            reply = control.exchange(self._tpm, Request(Command.SET_DATAFD, b"", (theirs.fileno(),)))
        if control.result_of(reply) != control.SUCCESS:
            ours.close()
            return reply
        guest = socket.fromfd(request.descriptors[0], socket.AF_UNIX, socket.SOCK_STREAM)
        self.data = DataLane(guest, ours)
        threading.Thread(target=self.data.serve, name="data", daemon=True).start()
        return reply

    def execute(self, command: bytes) -> bytes:
        """One of our own commands. RefusedError unless it only reads; ToolError when no TPM runs."""
        if not tpm_commands.is_allowed(command):
            raise RefusedError("only commands that read may be put to a guest's vTPM", kind="not-read-only")
        return self._running_data().execute(command)

    def permanent(self) -> Digest:
        """SHA-256 of the permanent state, taken between guest commands and hypervisor requests."""
        self._running_data()
        with self._alone():
            try:
                taken = control.get_state(self._tpm, BlobType.PERMANENT)
            except (OSError, PeerError) as error:
                self._lost()
                raise ToolError("swtpm is gone", kind="vtpm-gone") from error
        if taken.result != control.SUCCESS:
            raise ToolError(f"swtpm answered {taken.result:#x} when asked for its state", kind="vtpm-state")
        return sha256(taken.state)

    def retire(self) -> None:
        """After the guest's command that is under way, shut the TPM down for good."""
        with self._alone():
            self.guard.retire()
            self._shut_down()

    def end(self, deadline_s: float) -> None:
        """Shut the TPM down if both lanes come to rest in time; a stuck swtpm loses its channel instead."""
        with self._alone(deadline_s) as at_rest:
            if at_rest:
                self._shut_down()
            else:
                self._tpm.close()

    @contextmanager
    def _alone(self, deadline_s: float = -1) -> Iterator[bool]:
        """Both lanes at rest, or False after the deadline. Always taken in this order."""
        locks = [self.data.busy, self.lock] if self.data is not None else [self.lock]
        with ExitStack() as held:
            for lock in locks:
                if not lock.acquire(timeout=deadline_s):
                    yield False
                    return
                held.callback(lock.release)
            yield True

    def _shut_down(self) -> None:
        try:
            if self.tpm_alive:
                control.exchange(self._tpm, Request(Command.SHUTDOWN))
        except (OSError, PeerError):
            pass  # it is gone, which is what was wanted
        self._lost()

    def _lost(self) -> None:
        self.tpm_alive = self.initialised = False
        if self.data is not None:
            self.data.silence()
        self._tpm.close()

    def _running_data(self) -> DataLane:
        if self.data is None or not self.initialised:
            raise ToolError(
                f"the vTPM is not running: it is {self.guard.mode}"
                + (f" ({self.guard.reason})" if self.guard.reason else ""),
                kind="vtpm-not-running",
            )
        return self.data


def _dead_reply(command: Command) -> bytes:
    """Failure, in the length that every QEMU reads.

    Some versions of QEMU read SET_BUFFERSIZE's long reply always, others only on success: say yes to it, and
    no to the INIT that follows.
    """
    match command:
        case Command.SET_BUFFERSIZE:
            return struct.pack(">IIII", control.SUCCESS, _BUFFER_BYTES, _BUFFER_BYTES, _BUFFER_BYTES)
        case Command.GET_STATEBLOB:
            return StateReply(control.FAIL).encoded()
        case Command.GET_CAPABILITY:
            return bytes(8)
        case _:
            return _FAILED.ljust(control.SHAPES[command].reply, b"\0")
