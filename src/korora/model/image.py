"""Disk images: formats, what an image says of itself, and the parts of its content."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, Literal

MAX_MEMBERS: Final = 1_000
"""Files of one package."""
MAX_NAME: Final = 255
"""Characters in the name of a file."""


class Format(StrEnum):
    """By QEMU's names for their drivers."""

    RAW = "raw"
    QCOW2 = "qcow2"
    VMDK = "vmdk"
    VDI = "vdi"
    VHD = "vpc"
    VHDX = "vhdx"


@dataclass(frozen=True, slots=True)
class Extent:
    """Bytes from `offset` on that are all alike to a reader: zeros without looking, or to be read."""

    offset: int
    length: int
    zero: bool

    @property
    def end(self) -> int:
        return self.offset + self.length


@dataclass(frozen=True, slots=True)
class Slice:
    """A file of its own inside of a file, such as a disk in a package."""

    offset: int
    length: int


UNFINISHED_SUFFIX: Final = ".korora-diff"
"""A file IMAGE.korora-diff says that a diff is being applied to IMAGE, or was broken off (docs/DIFFS.md)."""


def is_plain(name: str) -> bool:
    """Whether it names a file of the same folder or package, and nothing else."""
    return name not in {"", ".", ".."} and not {"/", "\0"} & set(name) and len(name) <= MAX_NAME


@dataclass(frozen=True, slots=True)
class ImageFiles:
    """All files that may be opened for one image, by its own and nobody else's say: `path` as `format`.

    `others`: of a chain or a split image, as the image's text names them, and where they are.
    """

    path: Path
    format: Format
    slice: Slice | None = None
    others: tuple[tuple[str, Path], ...] = ()


@dataclass(frozen=True, slots=True)
class Layer:
    """An image that a disk is made of. `data_file`: where its content lies instead, if it says so."""

    path: str
    format: str
    data_file: str = ""


@dataclass(frozen=True, slots=True)
class NbdExport:
    """A disk that somebody serves already, such as the hypervisor of a running VM.

    `bitmap`: one that its server shows with it, of what was written since some moment; none if empty.
    `file`: where the same bytes can be read without asking the server, which writes there at once.
    `snapshot`: whether the server shows what was at an earlier moment, while it goes on writing.
    `layers`: what the server says that it has open for it, from what it writes to down to the last; none if
    nobody asked.
    """

    socket: Path
    name: str = ""
    bitmap: str = ""
    file: Path | None = None
    snapshot: bool = False
    layers: tuple[Layer, ...] = ()


@dataclass(frozen=True, slots=True)
class Checked:
    """What a look through a container's tables found. `problem`: None if nothing, or if it has no check.

    `end`: where the last cluster in use ends, in the image's file; 0 if that is not known.
    """

    problem: str | None = None
    end: int = 0
    compressed: bool = False


@dataclass(frozen=True, slots=True)
class ImageFinding:
    """Something of the container that a person should know. `kind` is stable, for scripts."""

    severity: Literal["critical", "warning", "info"]
    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What an image says of itself. Sizes in bytes."""

    format: Format
    virtual_size: int
    actual_size: int
    findings: tuple[ImageFinding, ...]
    backing: str | None = None
    backing_format: str | None = None
    data_file: str | None = None
    encrypted: bool = False
    snapshots: tuple[str, ...] = ()

    @property
    def critical(self) -> tuple[ImageFinding, ...]:
        return tuple(finding for finding in self.findings if finding.severity == "critical")
