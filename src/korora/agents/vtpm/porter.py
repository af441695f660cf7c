"""Carries the vTPM of a stopped VM: takes the hypervisor's place while its state is taken out or put in.

Promise: speaks to the interposer as a hypervisor does, so the same checks and the same encryption apply; no
TPM command is ever sent, so the TPM is not used meanwhile. Limit: blocking; run it off the event loop.
"""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path
from types import TracebackType
from typing import Annotated

import msgspec

from korora.agents.vtpm.interposer.control_channel import (
    DECRYPTED,
    DELETE_VOLATILE,
    SUCCESS,
    Command,
    Request,
    exchange,
    get_state,
    result_of,
    set_state,
)
from korora.errors import IntegrityError, ToolError
from korora.protocol.vtpm_blob import MAX_BLOB, BlobType

_TIMEOUT_S = 60.0
_BUFFER_BYTES = 4096

Sealed = Annotated[bytes, msgspec.Meta(max_length=MAX_BLOB)]


class RestingState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The three blobs of a stopped VM's vTPM as the interposer gave them out: encrypted for one move."""

    permanent: tuple[int, Sealed]  # swtpm's state flags, and the blob
    volatile: tuple[int, Sealed]
    savestate: tuple[int, Sealed]

    def encoded(self) -> bytes:
        return msgspec.msgpack.encode(self)

    @classmethod
    def parse(cls, data: bytes) -> RestingState:
        """IntegrityError(kind="vtpm-blob") when these are not three blobs."""
        try:
            return msgspec.msgpack.decode(data, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise IntegrityError(f"the vTPM's state cannot be read: {error}", kind="vtpm-blob") from error


class Porter:
    """One visit to one vTPM. Leaving switches the TPM off."""

    def __init__(self, path: Path) -> None:
        """Connect and prepare. ToolError or OSError when the interposer refuses; nothing stays open then."""
        self._control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._control.settimeout(_TIMEOUT_S)
        self._data, theirs = socket.socketpair()
        try:
            self._connect(path)
            self._must(Request(Command.SET_DATAFD, descriptors=(theirs.fileno(),)), "take a data channel")
            exchange(self._control, Request(Command.GET_CAPABILITY))
            self._ready()
        except BaseException:
            self._hang_up()
            raise
        finally:
            theirs.close()

    def __enter__(self) -> Porter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hang_up()

    def take_out(self) -> RestingState:
        """Switch the TPM on, without starting it up, and take its state."""
        self._must(Request(Command.INIT, struct.pack(">I", 0)), "be switched on")
        return RestingState(*(self._taken(kind) for kind in BlobType))

    def put_in(self, state: RestingState) -> None:
        """Give it its state and switch it on; the interposer has verified all three blobs by then."""
        self._must(Request(Command.STOP), "stop")
        for kind, (flags, blob) in zip(
            BlobType, (state.permanent, state.volatile, state.savestate), strict=True
        ):
            if set_state(self._control, kind, flags, blob) != SUCCESS:
                raise ToolError(f"the vTPM did not take its {kind.label} state", kind="vtpm-load")
        self._ready()
        self._must(Request(Command.INIT, struct.pack(">I", DELETE_VOLATILE)), "be switched on")

    def _taken(self, kind: BlobType) -> tuple[int, bytes]:
        reply = get_state(self._control, kind, DECRYPTED)
        if reply.result != SUCCESS:
            raise ToolError(f"the vTPM did not give its {kind.label} state", kind="vtpm-save")
        return reply.flags, reply.state

    def _ready(self) -> None:
        self._must(Request(Command.STOP), "stop")
        self._must(Request(Command.SET_BUFFERSIZE, struct.pack(">I", _BUFFER_BYTES)), "set its buffer")

    def _must(self, request: Request, what: str) -> None:
        if result_of(exchange(self._control, request)) != SUCCESS:
            raise ToolError(f"the vTPM did not {what}", kind="vtpm-refused", remedy="see the daemon's log")

    def _connect(self, path: Path) -> None:
        # Through the directory's descriptor: the path itself may be longer than sun_path's 107 bytes.
        directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
        try:
            self._control.connect(f"/proc/self/fd/{directory}/{path.name}")
        finally:
            os.close(directory)

    def _hang_up(self) -> None:
        self._control.close()
        self._data.close()
