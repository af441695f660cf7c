"""What was measured of an image, as it is written down: by `image digest --json`, read by `image verify`."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from korora.errors import UsageError

Root = Annotated[str, msgspec.Meta(pattern="^blake3:[0-9a-f]{64}$")]
Bytes = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class DiskRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One disk. `name`: in its package; empty for an image that is a disk."""

    name: str = ""
    format: str
    size: Bytes
    root: Root


class ImageRecord(msgspec.Struct, frozen=True, kw_only=True):
    """`root` is the disk's; of a package, the root over its disks (docs/IMAGES.md)."""

    version: Literal[1] = 1
    kind: Literal["korora-image"] = "korora-image"
    image: str
    root: Root
    disks: tuple[DiskRecord, ...]


def read(text: bytes) -> ImageRecord:
    """UsageError(kind="bad-record")."""
    try:
        return msgspec.json.decode(text, type=ImageRecord)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(
            f"this is no record of an image: {error}",
            kind="bad-record",
            remedy="make one: korora image digest IMAGE --json > FILE",
        ) from error
