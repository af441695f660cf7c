"""Engines on this machine, made from scan.toml, and files given to them.

Promise: an engine that cannot be had takes part all the same, and answers *unknown* with the reason. What was
started ends with the `with` block. Limit: mistakes in the configuration itself are errors.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from korora.adapters.scanner.absent import Absent
from korora.adapters.scanner.clamav import ClamAv
from korora.adapters.scanner.clamd_process import ClamdLimits, start
from korora.adapters.scanner.signature_folder import KORORAS_OWN, signatures
from korora.adapters.scanner.yara import Yara
from korora.agents.integrity.malware.archives import ArchiveLimits
from korora.agents.integrity.malware.examination import Examination, Limits, Scanned
from korora.agents.integrity.malware.streams import NamedStream
from korora.agents.integrity.malware.strength import weaknesses
from korora.errors import ToolError
from korora.model.scan import EngineFacts, Rule
from korora.model.scan_configuration import (
    ENGINES,
    ArchiveSettings,
    ClamAvSettings,
    ScanSettings,
    YaraSettings,
)
from korora.ports.scanner import BLOCK_BYTES, BrokenStreamError, Scanner
from korora.wiring.files import PASSED_OVER, files_below

__all__ = ["Engines", "Scanned", "files", "opened", "weaknesses"]

SYSTEM_SOCKET: Final = Path("/run/clamav/clamd.ctl")
SYSTEM_SIGNATURES: Final = Path("/var/lib/clamav")
OWN_NOTE: Final = "Korora's own signatures, which know test files alone"
SYSTEM_NOTE: Final = "the system's clamd, whose limits are its own"


@dataclass(frozen=True, slots=True)
class Engines:
    """Engines in force. `off`: those that the configuration does not use."""

    rule: Rule
    facts: tuple[EngineFacts, ...]
    off: tuple[str, ...]
    examination: Examination

    def scan(self, streams: Iterable[NamedStream]) -> Iterator[Scanned]:
        return self.examination.scan(streams)


@contextmanager
def opened(settings: ScanSettings, folder: Path, rule: Rule | None = None) -> Iterator[Engines]:
    """`folder`: where relative paths of the settings begin. `rule`: instead of theirs."""
    settings = replace(settings, rule=rule or settings.rule)
    engines: list[Scanner] = []
    try:
        for engine in _engines(settings, folder):
            engines.append(engine)  # one by one: what was started is ended, whatever comes next
        used = {engine.name for engine in engines}
        yield Engines(
            settings.rule,
            tuple(engine.facts() for engine in engines),
            tuple(name for name in ENGINES if name not in used),
            Examination(
                engines, settings.rule, settings.weights, _limits(settings), _archives(settings.archives)
            ),
        )
    finally:
        for engine in engines:
            engine.close()


def _engines(settings: ScanSettings, folder: Path) -> Iterator[Scanner]:
    if settings.reputation is not None:  # first: it alone may be configured wrongly
        from korora.wiring.reputation import reputation  # a tenth of a second, for who needs it

        yield reputation(settings.reputation, folder)
    if settings.clamav is not None:
        yield _clamav(settings.clamav, folder, settings)
    if settings.yara is not None:
        yield _yara(settings.yara, folder)


def _limits(settings: ScanSettings) -> Limits:
    return Limits(file_s=settings.file_seconds, total_s=settings.total_seconds, parallel=settings.parallel)


def _archives(settings: ArchiveSettings | None) -> ArchiveLimits | None:
    if settings is None:
        return None
    return ArchiveLimits(
        settings.archive_mib << 20, settings.total_mib << 20, settings.members, settings.depth, settings.ratio
    )


def _clamav(settings: ClamAvSettings, folder: Path, scan: ScanSettings) -> Scanner:
    """The clamd that is named; otherwise the system's, if it answers; otherwise one of our own."""
    given = folder / settings.signatures if settings.signatures else None
    if settings.socket is not None:
        return ClamAv(folder / settings.socket, signatures(given or SYSTEM_SIGNATURES), note=SYSTEM_NOTE)
    if given is None and ClamAv(SYSTEM_SOCKET).answers():
        return ClamAv(SYSTEM_SOCKET, signatures(SYSTEM_SIGNATURES), note=SYSTEM_NOTE)
    there = signatures(given or SYSTEM_SIGNATURES)
    if there is None and given is not None:
        return Absent("clamav", f"there are no signatures that can be read in {given}")
    used = there or signatures(KORORAS_OWN)
    place = used.folder if used else KORORAS_OWN
    limits = ClamdLimits(
        stream_bytes=settings.stream_mib << 20,
        scan_bytes=2 * settings.stream_mib << 20,
        seconds=scan.file_seconds,
        threads=scan.parallel + 2,
    )
    try:
        process = start(place, limits, lambda socket: ClamAv(socket).answers())
    except ToolError as error:
        return Absent("clamav", error.message)
    return ClamAv(process.socket, used, process, OWN_NOTE if place == KORORAS_OWN else "")


def _yara(settings: YaraSettings, folder: Path) -> Scanner:
    cache = folder / settings.cache if settings.cache else _cache_folder()
    own = settings.rules is None
    rules = KORORAS_OWN if settings.rules is None else folder / settings.rules
    return Yara(rules, cache, read_bytes=settings.read_mib << 20, own=own, note=OWN_NOTE if own else "")


def _cache_folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or str(Path("~").expanduser() / ".cache")
    return Path(home) / "korora" / "yara"


# -- files of this machine ---------------------------------------------------------------------------------


@dataclass(slots=True)
class Passed:
    """How much was passed over, because it has no content of its own."""

    count: int = 0


def files(paths: Sequence[Path], passed: Passed) -> Iterator[NamedStream]:
    """Every file at and below the paths; what cannot be looked at is a stream that says so."""
    for path in paths:
        for place, why in files_below(path):
            if why == PASSED_OVER:
                passed.count += 1
            else:
                yield _file(place, why)


def _file(path: Path, why: str) -> NamedStream:
    @contextmanager
    def opening() -> Iterator[Iterator[bytes]]:
        if why:
            raise BrokenStreamError(why)
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            mode = os.fstat(descriptor).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
                raise BrokenStreamError("it is no file")
            yield iter(lambda: os.read(descriptor, BLOCK_BYTES), b"")
        finally:
            os.close(descriptor)

    return NamedStream(os.fsdecode(path), None, opening)
