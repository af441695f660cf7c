"""RPM's package database, read by rpm itself in a sandbox, from a copy.

Promise: it ends within its bounds of time and memory; what rpm complains of, and a kind of database that
this machine's rpm has no reader for, are problems. Limits: Debian's rpm reads SQLite and Berkeley DB, and
not ndb, as openSUSE has it. Links and folders of packages are not compared. A database that takes over rpm
could fill the folder of its copy.

Source: rpm's documentation: rpm-queryformat, Tags (file data), and the flags of rpmfiles.h.
"""

from __future__ import annotations

import re
import selectors
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from korora.adapters.image.sandbox import Sandbox, end
from korora.model.files import Content
from korora.model.packages import Algorithm, Made, Packages, Stated

FOLDERS: Final = (b"/usr/lib/sysimage/rpm/", b"/var/lib/rpm/")
ALGORITHMS: Final[tuple[Made, ...]] = ("sha256", "md5")
KINDS: Final = {"rpmdb.sqlite": "SQLite", "Packages.db": "ndb", "Packages": "Berkeley DB"}
WANTED: Final = (*(name.encode() for name in KINDS), b"rpmdb.sqlite-wal")
NOT_INSTALLED: Final = "RPM's database is not read: rpm is not installed here (apt-get install rpm)"
MAX_LINES: Final = 5_000_000
WITHIN_S: Final = 600.0
_MAX_LINE: Final = 1 << 17
_TAGS: Final = (
    "=FILEDIGESTALGO", "FILEFLAGS", "FILESTATES", "FILEMODES", "FILEDIGESTS", "FILECAPS",
    "=NAME", "FILENAMES",
)  # fmt: skip
_FORMAT: Final = "[" + "\\t".join(f"%{{{tag}}}" for tag in _TAGS) + "\\n]"
_LINE: Final = re.compile(
    rb"(\d+|\(none\))\t(\d+)\t(-?\d+|\(none\))\t(\d+)\t([0-9a-f]*|\(none\))\t([^\t]*)\t([^\t]+)\t(/[^\x00]*)",
    re.DOTALL,
)
_ALGORITHMS: Final[dict[bytes, Algorithm]] = {b"8": "sha256", b"1": "md5", b"(none)": "md5"}
_CONFIGURED, _OPTIONAL, _GHOST = 1, 8, 64
_INSTALLED: Final = {b"0", b"(none)"}
_NOTHING: Final = {b"", b"(none)"}


class RpmDatabase:
    """Implements `ports.packages.PackageDatabase`."""

    def __init__(self, within_s: float = WITHIN_S) -> None:
        self._within_s = within_s
        self._temporary = tempfile.TemporaryDirectory(prefix="korora-rpm-")
        self._folder = Path(self._temporary.name)
        self._stated: dict[bytes, Stated] = {}
        self._owned: set[bytes] = set()
        self._problems: list[str] = []

    def take(self, content: Content) -> None:
        name = content.path.rsplit(b"/", 1)[1]
        if name in WANTED:
            try:
                self._write(self._folder / name.decode(), content)
            except OSError as error:
                self._problems.append(f"RPM's database could not be copied: {error.strerror}")

    def read(self) -> Packages:
        names = [name for name in KINDS if (self._folder / name).exists()]
        if not names or self._problems:
            return Packages("RPM", problems=self._problems)
        if shutil.which("rpm") is None:
            self._problems.append(NOT_INSTALLED)
        elif names != ["rpmdb.sqlite"] and len(names) > 1:
            self._problems.append(f"there are several databases of RPM: {', '.join(names)}")
        else:
            self._query(names[0])
        return Packages("RPM", self._stated, self._owned, {}, self._problems)

    def close(self) -> None:
        self._temporary.cleanup()

    @staticmethod
    def _write(path: Path, content: Content) -> None:
        with path.open("r+b" if path.exists() else "w+b") as file:
            file.seek(content.offset)
            file.write(content.content)

    def _query(self, name: str) -> None:
        command = ["rpm", "--dbpath", "/run", "--nosignature", "-qa", "--queryformat", _FORMAT]
        deadline = time.monotonic() + self._within_s
        with tempfile.TemporaryFile() as errors:
            sandbox = Sandbox({}, self._folder, processor_s=int(self._within_s) + 1)
            process = sandbox.start(command, subprocess.PIPE, errors)
            try:
                for line in _lines(process, deadline):
                    self._take(line)
                code = process.wait(timeout=max(0.1, deadline - time.monotonic()))
                self._complaints(name, code, errors)
            except (OSError, subprocess.TimeoutExpired) as error:
                self._problems.append(f"RPM's database was not read to its end: {error}"[:500])
            finally:
                end(process)
                if process.stdout is not None:
                    process.stdout.close()

    def _complaints(self, name: str, code: int, errors: IO[bytes]) -> None:
        errors.seek(0)
        lines = errors.read(1 << 16).decode("utf-8", "replace").splitlines()
        said = next((line for line in lines if line.startswith("error:")), lines[0] if lines else "")
        kind = f"RPM's database ({KINDS[name]})"
        if code or said.startswith("error:"):
            self._problems.append(f"{kind}: rpm ended with {code}: {said}"[:500])
        elif not self._owned and name != "rpmdb.sqlite":
            self._problems.append(f"{kind}: rpm finds nothing in it: {said}"[:500])

    def _take(self, line: bytes) -> None:
        if (match := _LINE.fullmatch(line)) is None:
            if not self._problems:  # one says it for all
                self._problems.append("RPM's database: a line of rpm's answer is none")
            return
        algorithm, flags, state, mode, digest, capabilities, package, path = match.groups()
        self._owned.add(path)
        if not stat.S_ISREG(int(mode)) or int(flags) & _GHOST or state not in _INSTALLED:
            return
        known = _ALGORITHMS.get(algorithm, "other") if digest not in _NOTHING else "other"
        self._stated[path] = Stated(
            algorithm=known,
            digest=digest.decode(),
            package=package.decode("utf-8", "replace"),
            configured=bool(int(flags) & _CONFIGURED),
            optional=bool(int(flags) & _OPTIONAL),
            mode=stat.S_IMODE(int(mode)),
            capabilities=capabilities not in _NOTHING,
        )


def _lines(process: subprocess.Popen[bytes], deadline: float) -> Iterator[bytes]:
    """OSError beyond the bounds."""
    assert process.stdout is not None  # noqa: S101  it is a pipe
    held, count = b"", 0
    with selectors.DefaultSelector() as ready:
        ready.register(process.stdout, selectors.EVENT_READ)
        while True:
            if not ready.select(max(0.0, deadline - time.monotonic())):
                raise OSError("rpm did not end in time")
            piece = process.stdout.read1(1 << 18)  # type: ignore[attr-defined]
            if not piece:
                break
            *whole, held = (held + piece).split(b"\n")
            count += len(whole)
            if count > MAX_LINES or len(held) > _MAX_LINE:
                raise OSError("rpm tells of too much")
            yield from whole
    if held:
        yield held
