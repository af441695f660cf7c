"""Every failure, by who must act. An error says what happened, where the VM runs now, and what to do."""

from __future__ import annotations

from enum import IntEnum
from typing import TypeGuard


class ExitCode(IntEnum):
    """What the command line answers to a script (a contract: see the README)."""

    DONE = 0
    BUG = 1
    USAGE = 2
    REFUSED = 3
    QUESTION = 4
    INTEGRITY = 5
    TOOL = 6
    IN_DOUBT = 7


class KororaError(Exception):
    """A failure that Korora understands. `kind` is a stable, machine-readable word such as `unknown-vm`."""

    exit_code: ExitCode = ExitCode.BUG

    def __init__(
        self, message: str, *, kind: str | None = None, remedy: str = "", vm_runs_on: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.kind = kind or type(self).__name__.removesuffix("Error").lower()
        self.remedy = remedy
        self.vm_runs_on = vm_runs_on


class UsageError(KororaError):
    """The caller must change what was asked: an unknown name, a malformed file."""

    exit_code = ExitCode.USAGE


class RefusedError(KororaError):
    """Policy, attestation or a precheck said no. The VM was not touched: it runs where it ran."""

    exit_code = ExitCode.REFUSED


class QuestionError(KororaError):
    """No rule covers this; a person must decide (the paper's answer *question*). Nothing was touched."""

    exit_code = ExitCode.QUESTION


class IntegrityError(KororaError):
    """Something was changed that must not change. The migration stops; the source VM goes on."""

    exit_code = ExitCode.INTEGRITY


class ToolError(KororaError):
    """A tool (QEMU, swtpm, the TPM, the other host) failed; the administrator of that host must act."""

    exit_code = ExitCode.TOOL


class PeerError(ToolError):
    """The other host sent something that is not in the protocol, or went silent."""


class InDoubtError(KororaError):
    """Released by the source, not yet proved to run at the destination. Both copies are kept."""

    exit_code = ExitCode.IN_DOUBT


class CancelledError(KororaError):
    """The operator cancelled; the VM runs on at the source."""

    exit_code = ExitCode.REFUSED


_BY_CODE: dict[ExitCode, type[KororaError]] = {
    ExitCode.USAGE: UsageError,
    ExitCode.REFUSED: RefusedError,
    ExitCode.QUESTION: QuestionError,
    ExitCode.INTEGRITY: IntegrityError,
    ExitCode.TOOL: ToolError,
    ExitCode.IN_DOUBT: InDoubtError,
}


def error_of(exit_code: int, kind: str, message: str, remedy: str, vm_runs_on: str | None) -> KororaError:
    """Rebuild an error that crossed a process boundary as facts. An unknown code becomes a bug."""
    known = ExitCode(exit_code) if exit_code in list(ExitCode) else ExitCode.BUG
    return _BY_CODE.get(known, KororaError)(message, kind=kind, remedy=remedy, vm_runs_on=vm_runs_on)


def is_of_files(error: BaseException) -> TypeGuard[OSError]:
    """Whether the kernel refused a file of this host, as a full disk does; not a connection or a wait."""
    if not isinstance(error, OSError) or isinstance(error, ConnectionError | TimeoutError):
        return False
    return error.errno is not None


def files_failed(error: OSError) -> ToolError:
    """A full disk, for one. What was begun is undone as after any failure."""
    return ToolError(
        f"this host cannot keep its files: {error.strerror or error}"
        + (f" ({error.filename})" if error.filename else ""),
        kind="files",
        remedy="see that the daemon's state folder is writable and has room, then try again",
    )
