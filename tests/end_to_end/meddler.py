"""Somebody with root on a host, between its QEMU and its vTPM's interposer: what he changes travels inside
the sealed stream, where no man in the middle can reach it.

He speaks swtpm's control channel by the product's own code. Limit: only the blobs that leave are changed.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self

from korora.agents.vtpm.interposer import control_channel as control
from korora.agents.vtpm.interposer.control_channel import Command, Request, StateReply
from korora.errors import PeerError
from korora.protocol.vtpm_blob import BlobType

Change = Callable[[BlobType, StateReply], StateReply]


def unchanged(kind: BlobType, reply: StateReply) -> StateReply:
    return reply


class Meddler:
    """`qemu` is a program that starts QEMU with its vTPM led through here, to the interposer at `onward`.

    `arrived` holds the blobs of the last move to this host, `gave` what left since `meddle` was called.
    """

    def __init__(self, directory: Path, onward: Path) -> None:
        self.arrived: dict[BlobType, StateReply] = {}
        self.gave: dict[BlobType, StateReply] = {}
        self._change: Change = unchanged
        self._onward = onward
        self._path = directory / "meddler.sock"
        self.qemu = directory / "meddled-qemu"
        way = f"socket,id=vtpm,path={self._path}"
        self.qemu.write_text(f'#!/bin/bash\nexec qemu-system-x86_64 "${{@/#socket,id=vtpm,path=*/{way}}}"\n')
        self.qemu.chmod(0o755)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self._path))
        self._listener.listen(8)

    def meddle(self, change: Change) -> None:
        self._change, self.gave = change, {}

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, name="meddling", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._path.unlink()
        self.qemu.unlink()

    def _accept(self) -> None:
        while True:
            try:
                hypervisor, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(hypervisor,), name="meddling", daemon=True).start()

    def _serve(self, hypervisor: socket.socket) -> None:
        with hypervisor, socket.socket(socket.AF_UNIX) as tpm, contextlib.suppress(OSError, PeerError):
            tpm.connect(str(self._onward))
            while request := control.read_request(hypervisor):
                try:
                    hypervisor.sendall(self._answer(tpm, request))
                finally:
                    control.close_all(request.descriptors)

    def _answer(self, tpm: socket.socket, request: Request) -> bytes:
        if request.command is Command.GET_STATEBLOB:
            kind = BlobType(struct.unpack_from(">II", request.body)[1])
            self.gave[kind] = self._change(kind, control.get_state(tpm, kind))
            return self.gave[kind].encoded()
        if request.command is Command.SET_STATEBLOB:
            flags, number = struct.unpack_from(">II", request.body)
            self.arrived[BlobType(number)] = StateReply(control.SUCCESS, flags, request.body[12:])
        return control.exchange(tpm, request)
