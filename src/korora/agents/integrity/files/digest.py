"""One digest for all files of a disk: of names, contents and the metadata that matters, in any order.

With BLAKE3 in its derive-key mode, H(context, data), and JSON in UTF-8 with sorted keys and no white space
(docs/FILES.md has vectors):

    leaf = H("Korora 2026 files: file", the JSON of the file's facts)
    root = H("Korora 2026 files: disk", the leaves, sorted, one after another)

Promise: a digest is of everything, or there is none: while one file or volume was not read, or a file has no
digest of its own, it is unknown.
Limit: times, inode numbers and the order of names in a folder do not count: they say how it was written down.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

import msgspec
from blake3 import blake3

from korora.model.files import Content, Done, FileRecord, Problem, Told, Volume
from korora.model.identity import Digest

MAX_FILES: Final = 5_000_000
_FILE: Final = "Korora 2026 files: file"
_DISK: Final = "Korora 2026 files: disk"


def leaf(file: FileRecord) -> bytes:
    """Of a file whose content was read. A path and a target are in hex, for they need not be text."""
    facts = {
        "volume": file.volume,
        "path": file.path.hex(),
        "kind": file.kind,
        "mode": file.mode,
        "owner": file.owner,
        "group": file.group,
        "size": file.size,
        "target": file.target.hex(),
        "device": list(file.device) if file.device else None,
        "xattrs": file.xattrs,
        "blake3": file.blake3,
    }
    return blake3(msgspec.json.encode(facts, order="sorted"), derive_key_context=_FILE).digest()


@dataclass(slots=True)
class Digesting:
    """Takes what a reader tells, and passes it on."""

    volumes: list[Volume] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    files: int = 0
    bytes_read: int = 0
    undigested: int = 0
    _leaves: list[bytes] = field(default_factory=list)
    _done: bool = False

    def through(self, told: Iterable[Told]) -> Iterator[FileRecord | Content]:
        """The files and contents, while all is taken note of."""
        for one in told:
            match one:
                case FileRecord():
                    self._file(one)
                    yield one
                case Content():
                    yield one
                case Volume():
                    self.volumes.append(one)
                case Problem():
                    self.problems.append(one)
                case Done():
                    self._done = True
            if self.files > MAX_FILES:
                self.problems.append(Problem("the disk", f"it has more than {MAX_FILES} files"))
                return

    def _file(self, file: FileRecord) -> None:
        self.files += 1
        if file.kind == "file" and file.blake3 is None and not file.problem:
            self.undigested += 1
        else:
            self._leaves.append(leaf(file))
        if file.problem:
            self.problems.append(Problem(shown(file.path), file.problem))
        elif file.kind == "file":
            self.bytes_read += file.size

    @property
    def complete(self) -> bool:
        """Whether everything was read, and something was there to be read."""
        return self._done and not self.problems and self.files > 0

    def root(self) -> Digest | None:
        """None while anything is unknown."""
        if not self.complete or self.undigested:
            return None
        whole = blake3(derive_key_context=_DISK)
        for one in sorted(self._leaves):
            whole.update(one)
        return Digest("blake3:" + whole.hexdigest())


def shown(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")
