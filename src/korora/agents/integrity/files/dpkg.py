"""System files against the image's own package database: what Debian's packages put there, by their md5sums.

Promise: a file of a package that is gone, or has another content, is told, though nobody took a baseline.
Limit: the database is the guest's: who can write a program can write its sum. It shows damage and the
careless, and proves nothing against the careful; that takes a baseline from before. Files that a package
only makes when it is configured have no sums.

Source: dpkg's documentation: deb-md5sums(5), dpkg-query(1), dpkg-divert(1); deb-conffiles(5).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from korora.model.files import Content, FileRecord

WANTED: Final = (
    b"/var/lib/dpkg/info/*.md5sums",
    b"/var/lib/dpkg/info/*.list",
    b"/var/lib/dpkg/status",
    b"/var/lib/dpkg/diversions",
)
MAX_LINKS: Final = 40
_SUM: Final = re.compile(rb"([0-9a-f]{32})  (.+)")
_CONFFILE: Final = re.compile(rb" (/\S.*) ([0-9a-f]{32})")  # one that is obsolete has a word more

Finding = Literal["changed", "missing", "configured", "not a file", "unread", "privileged"]


@dataclass(frozen=True, slots=True)
class SystemFinding:
    """`configured`: a configuration file that differs, as its administrator may want it."""

    finding: Finding
    path: bytes
    package: str


@dataclass(slots=True)
class PackageDatabase:
    """What the database of one volume says; fed with contents as they come."""

    sums: dict[bytes, tuple[str, str]] = field(default_factory=dict)  # path → (md5, package)
    conffiles: dict[bytes, tuple[str, str]] = field(default_factory=dict)
    owned: set[bytes] = field(default_factory=set)
    diverted: dict[bytes, bytes] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def is_there(self) -> bool:
        return bool(self.sums)

    def take(self, content: Content) -> None:
        name = content.path.rsplit(b"/", 1)[1]
        if name.endswith(b".md5sums"):
            self._sums(_package(name), content.content)
        elif name.endswith(b".list"):
            self.owned.update(line for line in content.content.split(b"\n") if line.startswith(b"/"))
        elif name == b"status":
            self._status(content.content)
        else:
            self._diversions(content.content)

    def _sums(self, package: str, text: bytes) -> None:
        for line in text.split(b"\n"):
            if (match := _SUM.fullmatch(line)) is not None:
                self.sums[b"/" + match[2].lstrip(b"/")] = match[1].decode(), package
            elif line:
                self.problems.append(f"a line of the sums of {package} is none")

    def _status(self, text: bytes) -> None:
        package = ""
        for line in text.split(b"\n"):
            if line.startswith(b"Package: "):
                package = line[9:].decode("utf-8", "replace")
            elif (match := _CONFFILE.fullmatch(line)) is not None:
                self.conffiles[match[1]] = match[2].decode(), package

    def _diversions(self, text: bytes) -> None:
        lines = text.split(b"\n")
        for original, moved in zip(lines[::3], lines[1::3], strict=False):
            self.diverted[original] = moved


def _package(name: bytes) -> str:
    return name.removesuffix(b".md5sums").decode("utf-8", "replace")


def compared(database: PackageDatabase, files: Mapping[bytes, FileRecord]) -> Iterator[SystemFinding]:
    """The system's files of one volume, by path, against its database."""
    for stated, configured in ((database.sums, False), (database.conffiles, True)):
        for path, (md5, package) in sorted(stated.items()):
            if finding := _found(path, md5, database, files, configured=configured):
                yield SystemFinding(finding, path, package)
    yield from _privileged(database, files)


def _found(
    path: bytes,
    md5: str,
    database: PackageDatabase,
    files: Mapping[bytes, FileRecord],
    *,
    configured: bool,
) -> Finding | None:
    file = files.get(resolved(database.diverted.get(path, path), files))
    if file is None:
        return "missing"
    if file.kind != "file":
        return "not a file"
    if file.md5 is None:
        return "unread"
    if file.md5 == md5:
        return None
    return "configured" if configured or path in database.conffiles else "changed"


def _privileged(database: PackageDatabase, files: Mapping[bytes, FileRecord]) -> Iterator[SystemFinding]:
    """Programs that run with more rights than whoever starts them, and that no package brought."""
    owned = {resolved(path, files) for path in database.owned}
    for path, file in files.items():
        gains = file.mode & 0o6000 or "security.capability" in (file.xattrs or {})
        if file.kind == "file" and file.mode & 0o111 and gains and path not in owned:
            yield SystemFinding("privileged", path, "")


def resolved(path: bytes, files: Mapping[bytes, FileRecord]) -> bytes:
    """Where it leads once the links in its folders are followed, as /bin is /usr/bin; its last part stays."""
    for _ in range(MAX_LINKS):
        for at in _folders(path):
            above = files.get(at)
            if above is not None and above.kind == "symlink":
                path = _joined(at, above.target) + path[len(at) :]
                break
        else:
            return path
    return path


def _folders(path: bytes) -> Iterable[bytes]:
    at = path.find(b"/", 1)
    while at != -1:
        yield path[:at]
        at = path.find(b"/", at + 1)


def _joined(link: bytes, target: bytes) -> bytes:
    parts = [] if target.startswith(b"/") else link.split(b"/")[1:-1]
    for part in target.split(b"/"):
        if part == b"..":
            parts = parts[:-1]
        elif part not in {b"", b"."}:
            parts.append(part)
    return b"/" + b"/".join(parts)
