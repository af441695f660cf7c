"""Disks that move with their VM: as they are ordered, and as they arrived."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from korora.model.identity import Digest

ALL: Final = "*"
"""In a request: every disk of the VM, whatever their names. No disk can have this name."""


class StorageMode(StrEnum):
    """How a running VM's disks are copied (docs/DISKS.md)."""

    AUTO = "auto"
    MIRROR = "mirror"
    OUTSOURCE = "outsource"


@dataclass(frozen=True, slots=True)
class DisksAsked:
    """Which disks move with their VM, and how: what is asked and signed. The others are on storage that both
    hosts see.

    `names`: of the disks, or (ALL,). `format`: what they become, "" as they are. `incremental`: the source
    keeps what it has of them, and only what differs is sent to a destination that kept one before (W2).
    `replacement`: a folder of the source, for what the guest writes when it is outsourced; "" for the VM's
    own. `keep_backing`: they come over the images that lie beneath them, which the destination has too; else
    each as one image.
    """

    names: tuple[str, ...] = ()
    format: str = ""
    incremental: bool = False
    storage_mode: StorageMode = StorageMode.AUTO
    replacement: str = ""
    keep_backing: bool = False


NO_DISKS: Final = DisksAsked()


@dataclass(frozen=True, slots=True)
class DiskOrder:
    """A disk that is to come. Bytes: `size` that the guest sees, `used` of the storage at the source.

    `keeps_backing`: over the images that lie beneath it, which the destination has too; else as one image.
    """

    name: str
    format: str
    size: int
    used: int
    keeps_backing: bool = False


class Beneath(StrEnum):
    """What became of the images that lay beneath a disk that moved."""

    NOTHING = ""  # there were none
    KEPT = "kept"  # it lies over the same ones
    FLATTENED = "flattened"  # it is one image now


@dataclass(frozen=True, slots=True)
class DiskContent:
    """A disk as it was when the VM was paused for good; `root`: of its content tree (docs/IMAGES.md)."""

    name: str
    size: int
    root: Digest
    beneath: Beneath = Beneath.NOTHING
