"""What is remembered of a VM's boots: the baseline it learned, and the verdict on the last one (A1).

Both lie in the VM's private directory and travel with it. What cannot be read counts as not there.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path

from korora.errors import IntegrityError
from korora.model.evidence import PcrValues
from korora.supervision.life import read_bounded, write_whole

EVENT_LOG_FILE = "eventlog"
FIRMWARE_PCRS = range(8)  # what the firmware measures; the rest changes while the guest runs
_BASELINE_FILE = "baseline.json"
_VERDICT_FILE = "boot.json"
_LIMIT_BYTES = 4 * 2**20


class BootWord(StrEnum):
    WAITING = "waiting"  # no whole event log yet
    LEARNED = "learned"  # the first boot: it became the baseline
    TRUSTED = "trusted"  # as the baseline
    UNTRUSTED = "untrusted"
    SILENT = "silent"  # the guest gave no event log in time
    UNMEASURED = "unmeasured"  # no vTPM of ours


@dataclass(frozen=True, slots=True)
class BootVerdict:
    """What is thought of the last boot. `secure_boot` is None where the log does not say."""

    word: BootWord
    reasons: tuple[str, ...] = ()
    secure_boot: bool | None = None
    pcrs: tuple[tuple[int, str], ...] = ()  # FIRMWARE_PCRS when it was judged
    boots: int = 0  # event logs seen since the VM's process started here
    at: float = 0.0

    @property
    def trusted(self) -> bool:
        return self.word in (BootWord.LEARNED, BootWord.TRUSTED)

    def still_holds(self, pcrs: PcrValues) -> BootVerdict:
        """This verdict, or UNTRUSTED when the guest has booted something else without telling."""
        if not self.trusted or firmware_pcrs(pcrs) == self.pcrs:
            return self
        reason = "the firmware's PCRs changed since the guest gave its event log"
        return replace(self, word=BootWord.UNTRUSTED, reasons=(reason,))


def firmware_pcrs(pcrs: PcrValues) -> tuple[tuple[int, str], ...]:
    return tuple((index, pcrs[index]) for index in FIRMWARE_PCRS if index in pcrs)


def forget_boot(directory: Path) -> None:
    """A new process boots: the last boot's log and verdict are not about it. The baseline stays."""
    for file in (EVENT_LOG_FILE, _VERDICT_FILE):
        (directory / file).unlink(missing_ok=True)


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


def pack(directory: Path) -> bytes | None:
    """Baseline and verdict as one JSON text, to travel with the VM; None when it never booted here."""
    baseline, verdict = read_baseline(directory), read_bounded(directory / _VERDICT_FILE, _LIMIT_BYTES)
    if baseline is None and verdict is None:
        return None
    parts = {"baseline": baseline, "verdict": verdict}
    return json.dumps({name: part.decode() for name, part in parts.items() if part is not None}).encode()


def install(directory: Path, packed: bytes) -> None:
    """Write what `pack` gave on the host it came from. IntegrityError when it is not that."""
    try:
        parts = json.loads(packed)
        baseline, verdict = parts.get("baseline"), parts.get("verdict")
        known = _parse_verdict(verdict.encode()) if verdict is not None else None
        learned = None if baseline is None else baseline.encode()
    except (ValueError, AttributeError, RecursionError) as problem:
        raise IntegrityError(
            "the record of the VM's boots that came with it is not readable",
            kind="boot-record",
            remedy="migrate again from a host of the same Korora version",
        ) from problem
    if learned is not None:
        write_baseline(directory, learned)
    if known is not None:
        # The event logs that were counted are in the source's file; this host's is empty.
        write_verdict(directory, replace(known, boots=0))
