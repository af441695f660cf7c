"""A real swtpm that is manufactured in milliseconds: no EK, no certificate. For tests that need neither."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
from pathlib import Path

from korora.adapters.vtpm.swtpm import Swtpm
from korora.model.identity import Secret


class PlainSwtpm(Swtpm):
    def manufacture(self, state: Path, key: Secret) -> None:
        ours, theirs = socket.socketpair()
        reader, writer = os.pipe()
        os.write(writer, key.reveal().hex().encode())
        os.close(writer)
        command = list(self.command(state, reader, theirs.fileno()))
        with ours, subprocess.Popen(command, pass_fds=(reader, theirs.fileno()), stderr=subprocess.DEVNULL):
            theirs.close()
            os.close(reader)
            ours.settimeout(20)
            for request in (struct.pack(">II", 2, 0), struct.pack(">I", 3)):  # INIT, SHUTDOWN
                ours.sendall(request)
                assert ours.recv(4) == bytes(4)
        assert self.permanent_state(state).exists()
