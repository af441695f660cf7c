"""What is remembered of a VM's boots: the baseline it learned, and the verdict on the last one (A1).

Both lie in the VM's private directory and travel with it. What cannot be read counts as not there.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path

import msgspec

from korora.errors import ToolError
from korora.model.evidence import PcrValues
from korora.policy.guest_boot import BOOT_PCRS
from korora.supervision.boots.eventlog import (
    FILE_LIMIT_BYTES,
    FRAME_LIMIT_BYTES,
    GuestLogs,
    framed,
    read_guest_logs,
)
from korora.supervision.life import read_bounded, write_whole

EVENT_LOG_FILE = "eventlog"
_BASELINE_FILE = "baseline.json"
_VERDICT_FILE = "boot.json"
_LIMIT_BYTES = 4 * 2**20
_PART_LIMIT_BYTES = FRAME_LIMIT_BYTES + 8  # a frame, less its last byte, may be under way


class BootWord(StrEnum):
    WAITING = "waiting"  # no whole event log yet
    LEARNED = "learned"  # the first boot: it became the baseline
    TRUSTED = "trusted"  # as the baseline
    UNTRUSTED = "untrusted"
    UNMEASURED = "unmeasured"  # no vTPM of ours


@dataclass(frozen=True, slots=True)
class BootVerdict:
    """What is thought of the last boot. `secure_boot` is None where the log does not say."""

    word: BootWord
    reasons: tuple[str, ...] = ()
    secure_boot: bool | None = None
    pcrs: tuple[tuple[int, str], ...] = ()  # BOOT_PCRS when it was judged
    boots: int = 0  # event logs seen since the VM's process started here
    at: float = 0.0

    @property
    def trusted(self) -> bool:
        return self.word in (BootWord.LEARNED, BootWord.TRUSTED)

    def still_holds(self, pcrs: PcrValues) -> BootVerdict:
        """This verdict, or UNTRUSTED when the guest has booted something else without telling."""
        if not self.trusted or boot_pcrs(pcrs) == self.pcrs:
            return self
        reason = "the boot's PCRs changed since it was judged"
        return replace(self, word=BootWord.UNTRUSTED, reasons=(reason,))


class BootEvidence(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The newest boot's event log, what the guest was writing after it, and the learned baseline."""

    event_log: bytes | None = None
    baseline: bytes | None = None
    rest: bytes = b""


def boot_pcrs(pcrs: PcrValues) -> tuple[tuple[int, str], ...]:
    return tuple((index, pcrs[index]) for index in BOOT_PCRS if index in pcrs)


def forget_boot(directory: Path) -> None:
    """A new process boots: the last boot's log and verdict are not about it. The baseline stays."""
    for name in (EVENT_LOG_FILE, _VERDICT_FILE):
        (directory / name).unlink(missing_ok=True)


def read_baseline(directory: Path) -> bytes | None:
    return read_bounded(directory / _BASELINE_FILE, _LIMIT_BYTES)


def write_baseline(directory: Path, baseline: bytes) -> None:
    write_whole(directory / _BASELINE_FILE, baseline)


def read_verdict(directory: Path) -> BootVerdict | None:
    data = read_bounded(directory / _VERDICT_FILE, _LIMIT_BYTES)
    return None if data is None else _parse_verdict(data)


def write_verdict(directory: Path, verdict: BootVerdict) -> None:
    write_whole(directory / _VERDICT_FILE, _verdict_text(verdict))


def _verdict_text(verdict: BootVerdict) -> bytes:
    return json.dumps(asdict(verdict)).encode()


def _parse_verdict(data: bytes) -> BootVerdict | None:
    """What `_verdict_text` wrote, or None: a verdict that cannot be read is none."""
    try:
        raw = json.loads(data)
        return BootVerdict(
            word=BootWord(raw["word"]),
            reasons=tuple(str(reason) for reason in raw["reasons"]),
            secure_boot=None if raw["secure_boot"] is None else bool(raw["secure_boot"]),
            pcrs=tuple((int(index), str(value)) for index, value in raw["pcrs"]),
            boots=int(raw["boots"]),
            at=float(raw["at"]),
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def read_logs(directory: Path) -> GuestLogs:
    """The event logs of the boots that this VM told of, oldest first."""
    return read_guest_logs(read_bounded(directory / EVENT_LOG_FILE, FILE_LIMIT_BYTES) or b"")


def pack(directory: Path) -> bytes | None:
    """What travels with the VM, as one text; None when there is nothing to tell.

    Of a running guest, true only while it is paused: it may write at any moment.
    """
    logs = read_logs(directory)
    evidence = BootEvidence(logs.latest, read_baseline(directory), logs.rest)
    return None if evidence == BootEvidence() else msgspec.json.encode(evidence)


def take_over(directory: Path, packed: bytes | None) -> None:
    """Lay down what `pack` gave on the host the VM came from; the boot is then appraised as if made here.

    What cannot be read makes the boot untrusted, and is no error. ToolError when nothing can be written.
    """
    evidence = BootEvidence() if packed is None else _parsed(packed)
    for name in (_VERDICT_FILE, _BASELINE_FILE):
        (directory / name).unlink(missing_ok=True)
    if evidence is None:
        reason = "the record of its boots that came with the VM is not readable"
        write_verdict(directory, BootVerdict(BootWord.UNTRUSTED, (reason,)))
        return
    told = framed(evidence.event_log) if evidence.event_log is not None else b""
    _rewrite(directory / EVENT_LOG_FILE, told + evidence.rest)
    if evidence.baseline is not None:
        write_baseline(directory, evidence.baseline)


def _parsed(packed: bytes) -> BootEvidence | None:
    try:
        evidence = msgspec.json.decode(packed, type=BootEvidence)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    parts = (evidence.event_log or b"", evidence.rest)
    return evidence if all(len(part) <= _PART_LIMIT_BYTES for part in parts) else None


def _rewrite(file: Path, data: bytes) -> None:
    """In place: QEMU may hold the file open already, to append the boots to come."""
    try:
        file.write_bytes(data)
    except OSError as problem:
        raise ToolError(
            f"cannot write {file}: {problem.strerror}",
            kind="state-directory",
            remedy="see that the daemon's state directory is writable and has room",
        ) from problem
