"""The files inside of a disk in one reading: digested, scanned for malware, compared with indicators.

Promise: each file is read once, whatever is made of it; no copy of it is kept. One that broke off, and all of
a volume that nobody can read, is *unknown* to every engine and in the digest.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from korora.adapters.filesystem.sandboxed import SandboxedFiles
from korora.agents.integrity.files.digest import shown
from korora.agents.integrity.files.tapping import name_of, tapped
from korora.agents.integrity.malware.passing import Passage
from korora.errors import ToolError
from korora.model.files import FileRecord, Problem, Told
from korora.model.image import ImageFiles, NbdExport
from korora.ports.filesystem import FileReader
from korora.wiring import packages
from korora.wiring.image_files import Reading, Tell, chosen, read_from
from korora.wiring.scanning import Engines, Scanned

if TYPE_CHECKING:
    from korora.wiring.indicator_matching import Matching

__all__ = ["FilesInside", "name_of"]


def _silent(_: FileRecord) -> None:
    """Nobody wants to know how far it is."""


@dataclass(slots=True)
class FilesInside:
    """`paths`: shell patterns of the files to look at; none: all. `contents`: of the paths whose content is
    kept in the reading, for the packages' databases. Without `digests` the reading has none.
    """

    disk: ImageFiles | NbdExport
    engines: Engines | None = None
    matching: Matching | None = None
    paths: Sequence[str] = ()
    tell: Tell = _silent
    contents: Sequence[bytes] = packages.WANTED
    digests: bool = True
    reader: FileReader = field(default_factory=SandboxedFiles)
    _reading: Reading | None = None

    def unread(self) -> list[Problem]:
        """What is unknown beside single files: volumes, tables of partitions, the reader's end, or all of it
        where there was nothing to look at."""
        digest = self.reading.digest
        files = {
            shown(file.path) for file in self.reading.files.values() if file.problem and file.kind == "file"
        }
        unread = [one for one in digest.problems if one.where not in files]
        if not digest.files and not unread:
            why = "no file in it fits the patterns" if self.paths else "there is no file in it"
            unread.append(Problem("the disk", why))
        return unread

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
        takers = [one for one in (passage, self.matching) if one is not None]
        walk = self.reader.walk(
            self.disk,
            self.contents,
            pieces=bool(takers),
            digests=self.digests,
            beside=packages.BESIDE,
            stopped=lambda: passage is not None and passage.stopped,
        )
        with (
            closing(walk),
            closing(_wanted(walk, passage)) as told,
            closing(tapped(told, takers, lambda one: chosen(one, self.paths))) as through,
        ):
            reading = read_from(through, self.tell, self.paths)
        if passage is None or not passage.stopped:
            self._reading = reading


def _wanted(told: Iterator[Told], passage: Passage | None) -> Generator[Told, None, None]:
    """Until nobody wants any more."""
    for one in told:
        if passage is not None and passage.stopped:
            return
        yield one
