"""The program that emulates a TPM: how one is manufactured, and how its process is started."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from korora.model.identity import Secret


class VtpmEmulator(Protocol):
    def manufacture(self, state: Path, key: Secret) -> None:
        """Make a new TPM in the empty directory `state`: EK, EK certificate, SHA-256 PCR bank. Takes seconds.

        What is at rest is encrypted under `key` (32 bytes). ToolError on failure: `state` may hold remains.
        """
        ...

    def command(self, state: Path, key_fd: int, control_fd: int) -> Sequence[str]:
        """The process: it reads the key (hex) from one descriptor and serves control on the other.

        The process ends when the control channel's other end is closed.
        """
        ...

    def permanent_state(self, state: Path) -> Path:
        """The file that holds the TPM's permanent state at rest. It need not exist."""
        ...

    def volatile_state(self, state: Path) -> Path:
        """The file that a running TPM leaves when its volatile state was taken out. It need not exist."""
        ...
