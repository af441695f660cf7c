"""The files inside of disk images on this machine: read, digested, compared with packages and a baseline."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec

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


def compared(before: Files, after: Reading) -> list[FileChange]:
    return list(changes(before, after.files.values()))


# -- a baseline, a line for each file ------------------------------------------------------------------------


class Baseline(msgspec.Struct, frozen=True, tag="korora-files"):
    """The first line."""

    image: str
    root: str | None
    problems: tuple[Problem, ...] = ()


def write_baseline(path: Path, image: str, reading: Reading) -> None:
    encoder, root = msgspec.json.Encoder(), reading.digest.root()
    new = path.with_name(path.name + ".new")
    with new.open("wb") as out:
        out.write(encoder.encode(Baseline(image, root, tuple(reading.digest.problems))) + b"\n")
        for file in reading.files.values():
            out.write(encoder.encode(file) + b"\n")
    new.replace(path)


def read_baseline(path: Path) -> tuple[Baseline, Files]:
    """UsageError(kind="bad-baseline")."""
    files = Files()
    try:
        with path.open("rb") as lines:
            first = msgspec.json.decode(next(lines), type=Baseline)
            decoder = msgspec.json.Decoder(FileRecord)
            for line in lines:
                file = decoder.decode(line)
                files[file.volume, file.path] = file
    except (OSError, StopIteration, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path} is no baseline of files: {error}",
            kind="bad-baseline",
            remedy="make one: korora files digest IMAGE --baseline FILE",
        ) from error
    return first, files
