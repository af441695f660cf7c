"""Reading the files inside of a disk image that nobody vouches for, without mounting it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Protocol

from korora.model.files import Beside, Told
from korora.model.image import ImageFiles, NbdExport


class FileReader(Protocol):
    def walk(
        self,
        disk: ImageFiles | NbdExport,
        contents: Sequence[bytes] = (),
        *,
        pieces: bool = False,
        digests: bool = True,
        beside: Sequence[Beside] = (),
        stopped: Callable[[], bool] = ...,
    ) -> Generator[Told, None, None]:
        """Everything in all volumes, a directory before what is in it; ends with Done, or with a Problem.

        `contents`: shell patterns of paths whose whole content is told as well, right after their record.
        `pieces`: the content of every file is told, as it is read, before its record. Without `digests` the
        records have none, and no extended attributes: who takes the pieces wants no more of them.
        `beside`: what is made beside BLAKE3, and where: also where nobody can say if the folder is there.
        `stopped`: asked now and then while nothing comes; once it says so, the reading ends with a Problem.
        """
        ...


class FileLocator(Protocol):
    def locate(self, disk: ImageFiles | NbdExport) -> Generator[Told, None, None]:
        """Where the volumes and the files in them lie, without reading any content: `Volume`, `Located`; ends
        with Done, or with a Problem. Not where a folder of XFS lies.
        """
        ...
