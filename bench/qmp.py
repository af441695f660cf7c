"""QMP as a benchmark wants it: synchronous, one connection for a process's life, events, no polling."""

from __future__ import annotations

import json
import socket
import time
from collections import deque
from pathlib import Path
from typing import Any, Final

from korora.errors import ToolError

_DEADLINE_S: Final = 300.0
_RETRY_S: Final = 0.001


class Qmp:
    """Connected and ready for commands."""

    def __init__(self, path: Path) -> None:
        self._socket = _connected(path)
        self._lines = self._socket.makefile("rwb")
        self._events: deque[dict[str, Any]] = deque()
        self._lines.readline()  # the greeting
        self("qmp_capabilities")

    def __call__(self, command: str, **arguments: Any) -> Any:
        """What QEMU returns; ToolError with its words."""
        named = {key.replace("_", "-"): value for key, value in arguments.items()}
        self._lines.write(json.dumps({"execute": command, "arguments": named}).encode() + b"\n")
        self._lines.flush()
        while "event" in (answer := self._read()):
            self._events.append(answer)
        if "error" in answer:
            raise ToolError(f"QEMU refused {command}: {answer['error'].get('desc')}", kind="bench-qemu")
        return answer["return"]

    def wait_for(self, event: str, **data: str) -> None:
        """Until an event of that name, with that data, has come; earlier ones count."""
        while True:
            seen = self._events.popleft() if self._events else self._read()
            if seen.get("event") == event and all(seen["data"].get(k) == v for k, v in data.items()):
                return
            if seen.get("event") == "MIGRATION" and seen["data"]["status"] in {"failed", "cancelled"}:
                raise ToolError(f"QEMU's migration {seen['data']['status']}", kind="bench-qemu")

    def forget_events(self) -> None:
        self._events.clear()

    def close(self) -> None:
        self._lines.close()
        self._socket.close()

    def _read(self) -> dict[str, Any]:
        line = self._lines.readline()
        if not line:
            raise ToolError("QEMU has ended", kind="bench-qemu")
        told: dict[str, Any] = json.loads(line)
        return told


def _connected(path: Path) -> socket.socket:
    limit = time.monotonic() + _DEADLINE_S
    while True:
        end = socket.socket(socket.AF_UNIX)
        end.settimeout(_DEADLINE_S)
        try:
            end.connect(str(path))
            return end
        except (FileNotFoundError, ConnectionRefusedError):
            end.close()
            if time.monotonic() > limit:
                raise
            time.sleep(_RETRY_S)
