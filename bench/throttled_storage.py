"""Storage of a lab that is throttled (bench/throttled_folder.py), and who asked it for what."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
from bench.throttled_folder import READY, Done

from korora.errors import ToolError

_PROJECT: Final = Path(__file__).parents[1]
_ENDS_WITHIN_S: Final = 10.0
Told = dict[str, Done]


class ThrottledStorage:
    """`folder` is throttled from when this is made until `close`.

    What lies in `beside` is in `folder`, too.
    """

    def __init__(self, folder: Path, beside: Path, iops: int, bytes_per_s: int) -> None:
        self.folder = folder
        self.beside = beside
        for one in (folder, beside):
            one.mkdir(parents=True, mode=0o700)
        rates = (iops, bytes_per_s)
        command = [sys.executable, "-m", "bench.throttled_folder", beside, folder, *rates]
        self._process = subprocess.Popen(
            [str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=_PROJECT
        )
        assert self._process.stdout is not None
        self._told: list[tuple[float, Told]] = [(time.monotonic(), {})]
        if self._process.stdout.readline().strip() != READY:
            self.close()
            raise ToolError(
                "no folder could be throttled",
                kind="bench-fuse",
                remedy="be root, on a kernel with /dev/fuse (Linux 6.2 or later)",
            )
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Whoever still uses it gets errors. Idempotent."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(_ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def between(self, began: float, ended: float) -> Told:
        """What every program did in this time (monotonic seconds), to a second."""
        before, after = self._at(began), self._at(ended)
        return {name: _less(done, before.get(name, Done())) for name, done in after.items()}

    def _at(self, when: float) -> Mapping[str, Done]:
        return max((one for one in list(self._told) if one[0] <= when), default=self._told[0])[1]

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._told.append((time.monotonic(), msgspec.json.decode(line, type=Told)))


def _less(after: Done, before: Done) -> Done:
    return Done(*(getattr(after, name) - getattr(before, name) for name in Done.__struct_fields__))
