"""The files inside of disk images on this machine: read, digested, compared with packages and a baseline."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from korora import named_file
from korora.adapters.filesystem.sandboxed import SandboxedFiles
from korora.agents.integrity.files.comparing import FileChange, changes
from korora.agents.integrity.files.digest import Digesting, shown
from korora.agents.integrity.files.packages.verifying import SystemFinding
from korora.errors import UsageError
from korora.model.files import Begun, FileRecord, Problem, Told
from korora.model.image import ImageFiles
from korora.wiring import packages
from korora.wiring.images import Image, refuse_critical
from korora.wiring.packages import Database, Gathering

__all__ = ["FileChange", "Reading", "SystemFinding", "compared", "read_files", "shown", "system_findings"]

Files = dict[tuple[int, bytes], FileRecord]
Tell = Callable[[FileRecord], None]


@dataclass(frozen=True, slots=True)
class Reading:
    """Of one disk. `digest.root()` is None while anything of it is unknown."""

    digest: Digesting
    files: Files
    databases: list[Database]


def read_files(image: Image, tell: Tell, paths: Sequence[str] = ()) -> Reading:
    """All files, or those whose path fits one of these shell patterns; a digest is of what was chosen.

    RefusedError where the container is not to be trusted; what cannot be read is in the digest's problems.
    """
    told = SandboxedFiles().walk(only_disk(image), packages.WANTED, beside=packages.BESIDE)
    return read_from(told, tell, paths)


def only_disk(image: Image) -> ImageFiles:
    """RefusedError where the container is not to be trusted; UsageError for packages of several disks."""
    refuse_critical(image)
    if len(image.disks) != 1:
        raise UsageError(
            f"{image.path} has {len(image.disks)} disks: take them one by one", kind="which-disk"
        )
    return image.disks[0].files


def read_from(told: Iterable[Told], tell: Tell, paths: Sequence[str] = ()) -> Reading:
    """What a reader tells, gathered."""
    digest, files = Digesting(), Files()
    with Gathering() as gathering:
        for one in digest.through(one for one in told if chosen(one, paths)):
            if isinstance(one, FileRecord):
                files[one.volume, one.path] = one
                tell(one)
            else:
                gathering.take(one)
        databases = gathering.read()
        digest.problems += gathering.problems
    return Reading(digest, files, databases)


def chosen(one: object, paths: Sequence[str]) -> bool:
    """Whether it is no file, or one whose path fits a pattern; without patterns every file does."""
    if not paths or not isinstance(one, FileRecord | Begun):
        return True
    text = one.path.decode("latin-1")
    return any(fnmatchcase(text, pattern.encode().decode("latin-1")) for pattern in paths)


def system_findings(reading: Reading) -> Iterator[SystemFinding]:
    """Of every root that has a package database."""
    yield from packages.findings(reading.databases, reading.files)


def compared(before: Files, after: Reading, paths: Sequence[str] = ()) -> list[FileChange]:
    """Of those files whose path fits."""
    known = {place: file for place, file in before.items() if chosen(file, paths)}
    return list(changes(known, after.files.values()))


# -- a baseline, a line for each file ------------------------------------------------------------------------


MAX_LINE_BYTES: Final = 64 << 20
MAX_BASELINE_BYTES: Final = 8 << 30


class Baseline(msgspec.Struct, frozen=True, tag="korora-files", omit_defaults=True):
    """The first line. `paths`: the patterns, where not all files were taken down."""

    image: str
    root: str | None
    problems: tuple[Problem, ...] = ()
    paths: tuple[str, ...] = ()


def check_baseline(path: Path) -> None:
    """UsageError(kind="output") before a disk is read, if no baseline could be written there."""
    if path.exists() and not path.is_file():
        raise _unwritable(path, "it is no file")
    if not os.access(path.absolute().parent, os.W_OK | os.X_OK):
        raise _unwritable(path, f"nothing can be written to {path.absolute().parent}")


def write_baseline(path: Path, image: str, reading: Reading, paths: Sequence[str] = ()) -> None:
    """Whole or not at all. UsageError(kind="output")."""
    encoder, root = msgspec.json.Encoder(), reading.digest.root()
    new = path.with_name(path.name + ".new")
    try:
        with new.open("wb") as out:
            first = Baseline(image, root, tuple(reading.digest.problems), tuple(paths))
            out.write(encoder.encode(first) + b"\n")
            for file in reading.files.values():
                out.write(encoder.encode(file) + b"\n")
        new.replace(path)
    except OSError as error:
        raise _unwritable(path, error.strerror or str(error)) from error


def _unwritable(path: Path, why: str) -> UsageError:
    return UsageError(
        f"the baseline {path} cannot be written: {why}",
        kind="output",
        remedy="name a file where there is room",
    )


def read_baseline(path: Path) -> tuple[Baseline, Files]:
    """UsageError(kind="bad-baseline"), also when it is too long, or a line of it is."""
    files, left = Files(), MAX_BASELINE_BYTES
    try:
        with named_file.opened(path) as file:
            lines = iter(partial(file.readline, MAX_LINE_BYTES), b"")
            first = msgspec.json.decode(next(lines, b""), type=Baseline)
            decoder = msgspec.json.Decoder(FileRecord)
            for line in lines:
                if (left := left - len(line)) < 0:
                    raise _no_baseline(path, f"it has more than {MAX_BASELINE_BYTES} bytes")
                record = decoder.decode(line)
                files[record.volume, record.path] = record
    except OSError as error:
        raise _no_baseline(path, f"it cannot be read: {error.strerror}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _no_baseline(path, str(error)) from error
    return first, files


def paths_of(baseline: Baseline, asked: Sequence[str]) -> Sequence[str]:
    """Those that are compared. UsageError(kind="other-paths") for one that the baseline says nothing of."""
    if baseline.paths and (beyond := [one for one in asked if one not in baseline.paths]):
        raise UsageError(
            f"the baseline is of {', '.join(baseline.paths)} alone: it says nothing of {', '.join(beyond)}",
            kind="other-paths",
            remedy="ask for paths that it was made with, or for none; or make another one",
        )
    return asked or baseline.paths


def _no_baseline(path: Path, why: str) -> UsageError:
    return UsageError(
        f"{path} is no baseline of files: {why}",
        kind="bad-baseline",
        remedy="make one: korora files digest IMAGE --baseline FILE",
    )
