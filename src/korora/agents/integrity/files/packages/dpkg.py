"""Debian's package database: the md5sums of what packages brought, and the configuration files among it.

Limit: files that a package only makes when it is configured have no sums.

Source: dpkg's documentation: deb-md5sums(5), dpkg-query(1), dpkg-divert(1); deb-conffiles(5).
"""

from __future__ import annotations

import re
from typing import Final

from korora.model.files import Content
from korora.model.packages import Made, Packages, Stated

FOLDERS: Final = (b"/var/lib/dpkg/",)
ALGORITHMS: Final[tuple[Made, ...]] = ("md5",)
WANTED: Final = (b"info/*.md5sums", b"info/*.list", b"status", b"diversions")
_SUM: Final = re.compile(rb"([0-9a-f]{32})  (.+)")
_CONFFILE: Final = re.compile(rb" (/\S.*) ([0-9a-f]{32})")  # one that is obsolete has a word more


class DpkgDatabase:
    """Implements `ports.packages.PackageDatabase`."""

    def __init__(self) -> None:
        self._sums: dict[bytes, Stated] = {}
        self._conffiles: dict[bytes, Stated] = {}
        self._owned: set[bytes] = set()
        self._diverted: dict[bytes, bytes] = {}
        self._problems: list[str] = []

    def take(self, content: Content) -> None:
        name = content.path.rsplit(b"/", 1)[1]
        if not content.whole:
            if not content.offset:
                self._problems.append(f"{name.decode('utf-8', 'backslashreplace')} is too large")
        elif name.endswith(b".md5sums"):
            self._take_sums(_package(name), content.content)
        elif name.endswith(b".list"):
            self._owned.update(line for line in content.content.split(b"\n") if line.startswith(b"/"))
        elif name == b"status":
            self._take_status(content.content)
        else:
            self._take_diversions(content.content)

    def read(self) -> Packages:
        stated = self._sums | self._conffiles
        return Packages("Debian", stated, self._owned, self._diverted, self._problems)

    def close(self) -> None:
        """It has nothing outside of memory."""

    def _take_sums(self, package: str, text: bytes) -> None:
        for line in text.split(b"\n"):
            if (match := _SUM.fullmatch(line)) is not None:
                self._sums[b"/" + match[2].lstrip(b"/")] = Stated("md5", match[1].decode(), package)
            elif line:
                self._problems.append(f"a line of the sums of {package} is none")

    def _take_status(self, text: bytes) -> None:
        package = ""
        for line in text.split(b"\n"):
            if line.startswith(b"Package: "):
                package = line[9:].decode("utf-8", "replace")
            elif (match := _CONFFILE.fullmatch(line)) is not None:
                self._conffiles[match[1]] = Stated("md5", match[2].decode(), package, configured=True)

    def _take_diversions(self, text: bytes) -> None:
        lines = text.split(b"\n")
        for original, moved in zip(lines[::3], lines[1::3], strict=False):
            self._diverted[original] = moved


def _package(name: bytes) -> str:
    return name.removesuffix(b".md5sums").decode("utf-8", "replace")
