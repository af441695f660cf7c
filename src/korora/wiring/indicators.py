"""Indicators on this machine: the store opened, files of sources read into it, one import all or nothing.

Promise: a file with an entry that cannot be understood leaves the store as it was, unless it was asked to
keep going.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from korora.adapters.indicators.sqlite import SqliteIndicators
from korora.agents.integrity.indicators import readers
from korora.agents.integrity.indicators.merging import disagreements, standing
from korora.agents.integrity.indicators.readers.reading import UnreadableError
from korora.errors import UsageError
from korora.model.indicator import Entry, Finding, Indicator, Kind, Provenance, Severity, Standing, Verdict
from korora.ports.indicators import IndicatorStore

FORMATS: Final = tuple(readers.READERS)
FINDINGS_MAX: Final = 200
_DAY_S: Final = 86_400
_PIECE: Final = 1 << 20
# Who reads a service's export need not say that it is that service's.
_SOURCES: Final = frozenset(FORMATS) - {readers.STIX, readers.MISP, readers.OPENIOC, readers.PLAIN}


@dataclass(frozen=True, slots=True)
class Wanted:
    """How files are to be read. Without `format` and `source` both follow from each file."""

    format: str | None = None
    source: str | None = None
    verdict: Verdict = Verdict.MALICIOUS
    valid_days: int | None = None
    keep_going: bool = False


@dataclass(slots=True)
class Imported:
    """What became of one file. `findings` are the first of each severity; `counted` counts all of them."""

    file: str
    format: str = ""
    source: str = ""
    digest: str = ""
    entries: int = 0
    new: int = 0
    merged: int = 0
    counted: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def note(self, finding: Finding) -> None:
        severity = finding.severity.value
        self.counted[severity] = self.counted.get(severity, 0) + 1
        if self.counted[severity] <= FINDINGS_MAX:
            self.findings.append(finding)

    @property
    def broken(self) -> bool:
        return Severity.BROKEN.value in self.counted


class _BrokenError(Exception):
    """What was read must not be kept."""


@contextmanager
def opened(path: Path, *, made: bool = False) -> Iterator[IndicatorStore]:
    """The store, which is made if it may be; otherwise UsageError(kind="nothing-compared") without one."""
    if made:
        _make_folder(path.parent)
    elif not path.exists():
        raise UsageError(
            f"there are no indicators: no such file {path}",
            kind="nothing-compared",
            remedy="import some first: korora indicators import FILE; or name another store: --store FILE",
        )
    store = SqliteIndicators(path)
    try:
        yield store
    finally:
        store.close()


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise _unusable(folder, error.strerror or str(error)) from error


def import_files(
    store: IndicatorStore, files: Sequence[Path], wanted: Wanted, now: int
) -> tuple[list[Imported], bool]:
    """What became of each file, and whether anything was kept: nothing is when one of them is broken."""
    reports = [Imported(str(file)) for file in files]
    try:
        written = store.write(_batches(files, reports, wanted, now))
    except _BrokenError:
        return reports, False
    for report, one in zip(reports, written, strict=True):
        report.new, report.merged = one.new, one.merged
    return reports, True


def _batches(
    files: Sequence[Path], reports: list[Imported], wanted: Wanted, now: int
) -> Iterator[Iterator[Entry]]:
    for file, report in zip(files, reports, strict=True):
        yield _entries(file, report, wanted, now)
    if any(report.broken for report in reports) and not wanted.keep_going:
        raise _BrokenError


def _entries(path: Path, report: Imported, wanted: Wanted, now: int) -> Iterator[Entry]:
    """The entries of one file; findings go to its report."""
    with _file(path) as file:
        try:
            basis = _basis(path, file, report, wanted, now)
            for item in readers.read(report.format, file, basis):
                if isinstance(item, Finding):
                    report.note(item)
                else:
                    report.entries += 1
                    yield _limited(item, wanted, now)
            if not report.entries and not report.counted:
                report.note(Finding(Severity.WARNING, "the file", "there is nothing in it to take"))
        except UnreadableError as error:
            report.note(Finding(Severity.BROKEN, "the file", str(error)))
        except OSError as error:
            report.note(Finding(Severity.BROKEN, "the file", error.strerror or str(error)))


def _basis(path: Path, file: BinaryIO, report: Imported, wanted: Wanted, now: int) -> Provenance:
    report.format = wanted.format or readers.recognised(file.read(readers.HEAD))
    file.seek(0)
    digest = hashlib.sha256()
    while piece := file.read(_PIECE):
        digest.update(piece)
    file.seek(0)
    named = report.format if report.format in _SOURCES else path.name
    report.source = (wanted.source or named).encode("utf-8", "backslashreplace").decode()
    report.digest = f"sha256:{digest.hexdigest()}"
    return Provenance(report.source, verdict=wanted.verdict, imported_at=now, file=report.digest)


def _limited(entry: Entry, wanted: Wanted, now: int) -> Entry:
    """With the expiry that the importer wants, and as of now where the source does not say when."""
    said = entry.provenance
    changes: dict[str, int] = {} if said.changed_at is not None else {"changed_at": now}
    if wanted.valid_days is not None and said.expires is None:
        seen = said.last_seen or said.first_seen or now
        changes["expires"] = seen + wanted.valid_days * _DAY_S
    if not changes:
        return entry
    return Entry(entry.kind, entry.value, msgspec.structs.replace(said, **changes))


@contextmanager
def _file(path: Path) -> Iterator[BinaryIO]:
    """A regular file: a pipe could keep us waiting, and cannot be read twice."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise _unusable(path, why) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _unusable(path, "it is no regular file")
    with os.fdopen(descriptor, "rb") as file:
        yield file


def _unusable(path: Path, why: str) -> UsageError:
    return UsageError(
        f"{path} cannot be imported: {why}",
        kind="unreadable-file",
        remedy="name a file that can be read; nothing was imported",
    )


# -- what is known -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Told:
    """One indicator, judged."""

    indicator: Indicator
    standing: Standing
    disagreements: tuple[str, ...]


def told(indicator: Indicator, now: int) -> Told:
    return Told(indicator, standing(indicator, now), disagreements(indicator))


def listed(
    store: IndicatorStore,
    now: int,
    *,
    kind: Kind | None,
    source: str | None,
    containing: str,
    differing: bool,
) -> Iterator[Told]:
    """Those that are asked for, by kind and value."""
    for indicator in store.listed(kind, containing):
        if source is not None and source not in {one.source for one in indicator.provenances}:
            continue
        judged = told(indicator, now)
        if judged.disagreements or not differing:
            yield judged
