"""Type commands as a person would, in the lab's folder: what is shown is exactly what runs.

Promise: a command owns the terminal while it runs, so that it shows what it always shows (a real progress
bar, too). Limit: it waits for the command, for ten minutes at most.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from korora.errors import ToolError
from korora.lab.demo.stage import Stage

_DEADLINE_S = 600.0


@dataclass(frozen=True, slots=True)
class Shell:
    """`folder` is where the commands are typed; `korora` is the one of this very installation."""

    folder: Path
    configuration: Path
    stage: Stage

    def inside(self, folder: Path) -> Shell:
        """The same, after `cd`."""
        return Shell(folder, self.configuration, self.stage)

    def type(self, line: str) -> int:
        """Show a command line and run it; its exit code. What it says goes where ours goes."""
        self.stage.command(line)
        sys.stdout.flush()
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=self.folder,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,  # one order for both, also in a file
            timeout=_DEADLINE_S,
            check=False,
        )
        return done.returncode

    def must(self, line: str) -> None:
        """As `type`, for a command without which the story cannot go on: ToolError when it fails."""
        code = self.type(line)
        if code:
            raise ToolError(
                f"`{line}` answered {code}, so the demonstration cannot go on",
                kind="demo-stopped",
                remedy="run script/demo --keep and look at hosts/*/hostd.log in the lab's folder",
            )

    def ask(self, *words: str, may_find: bool = False) -> Any:
        """The JSON answer of `korora WORDS --json`, without showing it. ToolError when it fails.

        `may_find`: its exit code says what it found.
        """
        command = ["korora", *words, "--json"]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=_DEADLINE_S,
            check=False,
        )
        if (done.returncode and not may_find) or not done.stdout.strip():
            raise ToolError(
                f"`{' '.join(command)}` answered {done.returncode}: {done.stderr.strip()}",
                kind="demo-stopped",
            )
        return json.loads(done.stdout)

    def _environment(self) -> dict[str, str]:
        beside = str(Path(sys.executable).parent)
        path = f"{beside}:{os.environ.get('PATH', os.defpath)}"
        return {**os.environ, "PATH": path, "KORORA_CONFIG": str(self.configuration)}
