"""The files inside of a disk in one reading: digested, scanned for malware, compared with indicators.

Promise: each file is read once, whatever is made of it; no copy of it is kept. One that broke off, and all of
a volume that nobody can read, is *unknown* to every engine and in the digest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from korora.adapters.filesystem.sandboxed import SandboxedFiles
from korora.agents.integrity.files import dpkg
from korora.agents.integrity.files.digest import shown
from korora.agents.integrity.malware.passing import Passage
from korora.errors import ToolError
from korora.model.files import Begun, Ended, FileRecord, Piece, Problem, Told
from korora.model.image import ImageFiles, NbdExport
from korora.wiring.image_files import Reading, Tell, chosen, read_from
from korora.wiring.indicator_matching import Matching
from korora.wiring.scanning import Engines, Scanned


def name_of(volume: int, path: bytes) -> str:
    """How a file inside is named, where the results of several volumes stand together."""
    return f"volume {volume}: {shown(path)}"


def _silent(_: FileRecord) -> None:
    """Nobody wants to know how far it is."""


@dataclass(slots=True)
class FilesInside:
    """`paths`: shell patterns of the files to look at; none: all."""

    disk: ImageFiles | NbdExport
    engines: Engines | None = None
    matching: Matching | None = None
    paths: Sequence[str] = ()
    tell: Tell = _silent
    _reading: Reading | None = None

    def unread(self) -> list[Problem]:
        """What is unknown beside single files: volumes, tables of partitions, the reader's end."""
        files = {shown(file.path) for file in self.reading.files.values() if file.problem}
        return [one for one in self.reading.digest.problems if one.where not in files]

    @property
    def reading(self) -> Reading:
        """Once `look` has come to its end. ToolError before."""
        if self._reading is None:
            raise ToolError("the files were not read to their end", kind="unread")
        return self._reading

    def look(self) -> Iterator[Scanned]:
        """Read all of it, and give what the engines say of each file, in order. Without engines: nothing."""
        if self.engines is None:
            self._read(None)
            return
        with Passage(self._read).streams() as streams:
            yield from self.engines.scan(streams)

    def _read(self, passage: Passage | None) -> None:
        wanted = self.engines is not None or self.matching is not None
        with closing(SandboxedFiles().walk(self.disk, dpkg.WANTED, pieces=wanted)) as told:
            self._reading = read_from(self._tapped(told, passage), self.tell, self.paths)

    def _tapped(self, told: Iterator[Told], passage: Passage | None) -> Iterator[Told]:
        """Everything but the pieces, which go to whoever takes them."""
        takers = [one for one in (passage, self.matching) if one is not None]
        on = False
        for one in told:
            match one:
                case Begun():
                    on = chosen(one, self.paths)
                    if on:
                        self._begin(one, passage)
                case Piece(data) if on:
                    for taker in takers:
                        taker.piece(data)
                case Ended(problem) if on:
                    for taker in takers:
                        taker.end(problem)
                case Piece() | Ended():
                    pass
                case _:
                    yield one
            if passage is not None and passage.stopped:
                return

    def _begin(self, file: Begun, passage: Passage | None) -> None:
        name = name_of(file.volume, file.path)
        if passage is not None:
            passage.begin(name, file.size)
        if self.matching is not None:
            self.matching.begin(name)
