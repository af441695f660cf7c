"""A VM's dossier: its flags, the last report, the baseline and the originals. It lies in the VM's private
directory, and goes where the VM goes (E5).

    flags.json                  protocol.flag.FlagRecord
    report.json                 model.inspection.Inspection
    verification.json           what came of holding the VM against the report, last
    ran                         there once the VM has run after it was inspected at rest
    baseline-DISK.files         a line of JSON for each file of the disk, compressed by zlib
    baseline-DISK.chunks        a leaf for each chunk: agents.integrity.disks.measuring
    configuration-N             a configuration file, as it was
    original-FLAG.tar           a bag (RFC 8493)

Promise: what came from another host is taken as a whole or not at all, once its digest was held against the
signed manifest; names, kinds and sizes are checked besides, for that host may lie.
Limit: packed, it is held in memory; past `PACKED_MAX_BYTES` baselines stay behind, and then originals.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from korora.errors import IntegrityError, ToolError
from korora.model.identity import Digest
from korora.model.inspection import Inspection, Verification
from korora.protocol import canonical, packing
from korora.protocol.flag import FlagRecord, parse_record
from korora.supervision.life import read_bounded, write_whole

FOLDER: Final = "inspection"
FLAGS: Final = "flags.json"
REPORT: Final = "report.json"
RAN: Final = "ran"
VERIFICATION: Final = "verification.json"
PACKED_MAX_BYTES: Final = 64 << 20
_ENDING_BYTES: Final = 1 << 16  # blocks of zeros that end a tar
_RECORD_MAX_BYTES: Final = 32 << 20  # ten thousand flags, each with a resolution
_ORIGINAL: Final = re.compile(r"original-[0-9a-f]{32}\.tar")
_BASELINE: Final = re.compile(
    r"baseline-[A-Za-z0-9][A-Za-z0-9._-]{0,62}\.(files|chunks)|configuration-[0-9]{1,3}"
)


def folder(directory: Path) -> Path:
    return directory / FOLDER


def original(directory: Path, flag: str) -> Path:
    return folder(directory) / f"original-{flag}.tar"


# -- one at a time --------------------------------------------------------------------------------------


def read_flags(directory: Path, vm: str) -> FlagRecord:
    """None yet: an empty one. IntegrityError(kind="unreadable-flags") when it cannot be read: flags are never
    silently forgotten."""
    path = folder(directory) / FLAGS
    data = read_bounded(path, _RECORD_MAX_BYTES)
    if data is None:
        if os.path.lexists(path):
            raise _unreadable(vm, path, "the file system does not give it")
        return FlagRecord(vm=vm)
    try:
        return parse_record(data, vm)
    except IntegrityError as error:
        raise _unreadable(vm, path, error.message) from error


def _unreadable(vm: str, path: Path, problem: str) -> IntegrityError:
    return IntegrityError(
        f"the flags of {vm} cannot be read: {path}: {problem}",
        kind="unreadable-flags",
        remedy="find out what changed that file, and put back a copy that was good; without one, move it away"
        f" and look anew: korora vm inspect {vm} (what was resolved is open again then)",
    )


def write_flags(directory: Path, record: FlagRecord) -> None:
    _made(directory)
    write_whole(folder(directory) / FLAGS, canonical.encoded(record))


def read_report(directory: Path) -> Inspection | None:
    """IntegrityError when there is one that cannot be read."""
    data = read_bounded(folder(directory) / REPORT, _RECORD_MAX_BYTES)
    return None if data is None else canonical.decoded(data, Inspection)


def read_verification(directory: Path) -> Verification | None:
    """None as well when it cannot be read: nothing is shown then."""
    data = read_bounded(folder(directory) / VERIFICATION, _RECORD_MAX_BYTES)
    try:
        return None if data is None else canonical.decoded(data, Verification)
    except IntegrityError:
        return None


def write_verification(directory: Path, verification: Verification) -> None:
    write_whole(folder(directory) / VERIFICATION, canonical.encoded(verification))


def note_run(directory: Path) -> None:
    """The VM runs: from now on its disks may be as it made them."""
    if (folder(directory) / REPORT).exists() and not has_run(directory):
        write_whole(folder(directory) / RAN, b"")


def has_run(directory: Path) -> bool:
    return (folder(directory) / RAN).exists()


# -- after an inspection --------------------------------------------------------------------------------


def keep(directory: Path, output: Path, report: Inspection, record: FlagRecord) -> None:
    """The inspection's output becomes the dossier; originals of flags that are still there stay.

    The report is written last: a crash before leaves an older one, whose baseline then does not fit and is
    not used.
    """
    _made(directory)
    place, flags = folder(directory), {flag.id for flag in record.flags}
    for name in (REPORT, VERIFICATION):
        (place / name).unlink(missing_ok=True)
    for path in [*place.glob("baseline-*"), *place.glob("configuration-*")]:
        path.unlink()
    for path in place.glob("original-*.tar"):
        if path.name.removeprefix("original-").removesuffix(".tar") not in flags:
            path.unlink()
    for path in sorted(output.iterdir()):
        if _BASELINE.fullmatch(path.name) or _ORIGINAL.fullmatch(path.name):
            shutil.move(path, place / path.name)
    write_whole(place / FLAGS, canonical.encoded(record))
    if report.running:
        write_whole(place / RAN, b"")
    else:
        (place / RAN).unlink(missing_ok=True)
    write_whole(place / REPORT, canonical.encoded(report))


def baseline_digest(place: Path) -> Digest:
    """SHA-256 over `NAME SHA256\\n` of every baseline file, by name; of no file, "" ."""
    lines = [f"{path.name} {_sha256(path)}\n" for path in _baselines(place)]
    return Digest("sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest() if lines else "")


def _baselines(place: Path) -> list[Path]:
    return sorted(path for path in place.iterdir() if _BASELINE.fullmatch(path.name))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# -- to go with the VM ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Packed:
    """`left`: names of the files that did not fit."""

    data: bytes
    left: tuple[str, ...]

    @property
    def originals_left(self) -> bool:
        return any(_ORIGINAL.fullmatch(name) for name in self.left)


def pack(directory: Path) -> Packed | None:
    """All of it in one tar, in one spelling; None for a VM without any. ToolError when it cannot be read."""
    place = folder(directory)
    if not (place / FLAGS).exists() and not (place / REPORT).exists():
        return None
    try:
        files, room, left = dict[str, bytes](), PACKED_MAX_BYTES, list[str]()
        for path in _in_order(place):
            taken = path.stat().st_size + 2 * packing.BLOCK_BYTES
            if taken > room:
                left.append(path.name)
                continue
            room -= taken
            files[path.name] = path.read_bytes()
        return Packed(packing.packed(files), tuple(left))
    except OSError as problem:
        raise ToolError(
            f"cannot read {problem.filename or place}: {problem.strerror}",
            kind="state-directory",
            remedy="see that the daemon's state directory can be read",
        ) from problem


def _in_order(place: Path) -> Iterator[Path]:
    """What matters most first: what does not fit any more stays behind."""
    for name in (FLAGS, REPORT, RAN):
        if (place / name).is_file():
            yield place / name
    yield from sorted(path for path in place.iterdir() if _ORIGINAL.fullmatch(path.name))
    yield from _baselines(place)


def unpacked(packed: bytes, vm: str) -> dict[str, bytes]:
    """The files in it. IntegrityError(kind="bad-dossier") for anything but a dossier of this VM."""
    check_size(len(packed))
    try:
        found = packing.unpacked(packed)
    except IntegrityError as problem:
        raise _bad(problem.message) from problem
    for name in found:
        if not _is_named(name):
            raise _bad(f"{name[:100]!r} does not belong into it")
    if FLAGS in found:
        parse_record(found[FLAGS], vm)
    if REPORT in found and canonical.decoded(found[REPORT], Inspection).vm != vm:
        raise _bad("its report is about another VM")
    return found


def check_size(size: int) -> None:
    """IntegrityError(kind="bad-dossier") past what `pack` makes, in bytes."""
    if size > PACKED_MAX_BYTES + _ENDING_BYTES:
        raise _bad("it is too large")


def _is_named(name: str) -> bool:
    return name in {FLAGS, REPORT, RAN} or bool(_ORIGINAL.fullmatch(name) or _BASELINE.fullmatch(name))


def report_in(found: dict[str, bytes]) -> Inspection | None:
    return canonical.decoded(found[REPORT], Inspection) if REPORT in found else None


def record_in(found: dict[str, bytes], vm: str) -> FlagRecord:
    return parse_record(found[FLAGS], vm) if FLAGS in found else FlagRecord(vm=vm)


def lay(directory: Path, found: dict[str, bytes]) -> None:
    """In the place of whatever was here. ToolError when it cannot be written; nothing is changed then."""
    fresh = directory / f".{FOLDER}.new"
    try:
        shutil.rmtree(fresh, ignore_errors=True)
        if not found:
            shutil.rmtree(folder(directory), ignore_errors=True)
            return
        fresh.mkdir(mode=0o700, parents=True)
        for name, data in found.items():
            with os.fdopen(os.open(fresh / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        shutil.rmtree(folder(directory), ignore_errors=True)
        fresh.rename(folder(directory))
    except OSError as problem:
        shutil.rmtree(fresh, ignore_errors=True)
        raise ToolError(
            f"cannot write {folder(directory)}: {problem.strerror}",
            kind="state-directory",
            remedy="see that the daemon's state directory is writable and has room",
        ) from problem


def _made(directory: Path) -> None:
    try:
        folder(directory).mkdir(mode=0o700, exist_ok=True)
    except OSError as problem:
        raise ToolError(
            f"cannot make {folder(directory)}: {problem.strerror}",
            kind="state-directory",
            remedy="see that the daemon's state directory is writable and has room",
        ) from problem


def _bad(problem: str) -> IntegrityError:
    return IntegrityError(
        f"this is no dossier of a VM: {problem}",
        kind="bad-dossier",
        remedy="find out what changed it, on the other host or on the way",
    )
