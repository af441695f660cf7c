"""Disk images that would have QEMU open another file of the host. Blocking.

Limit: an image is looked at before the start; whoever may write it then may still change it.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterable
from pathlib import Path

from korora.errors import RefusedError
from korora.model.vm import Disk

_QCOW2_MAGIC = b"QFI\xfb"
_QCOW2_HEADER = struct.Struct(">4sI")  # magic, version
_INCOMPATIBLE_FEATURES_AT = 72  # QEMU's docs/interop/qcow2.txt
_EXTERNAL_DATA_FILE = 1 << 2


def refuse_escaping_images(disks: Iterable[Disk]) -> None:
    """RefusedError(kind="disk-escapes") for an image that would have QEMU open another file of the host.

    QEMU's command line cuts off the backing file; it cannot cut off an external data file.
    """
    for disk in disks:
        if disk.format == "qcow2" and _has_external_data(Path(disk.path)):
            raise RefusedError(
                f"the image {disk.path} keeps its data in another file",
                kind="disk-escapes",
                remedy="convert it to one file: qemu-img convert -O qcow2",
            )


def _has_external_data(path: Path) -> bool:
    try:
        if not stat.S_ISREG(path.stat().st_mode) and not path.is_block_device():
            return False
        with path.open("rb") as file:
            header = file.read(_INCOMPATIBLE_FEATURES_AT + 8)
    except OSError:
        return False  # QEMU will say why it cannot be opened
    if len(header) < _INCOMPATIBLE_FEATURES_AT + 8:
        return False
    magic, version = _QCOW2_HEADER.unpack_from(header)
    features = struct.unpack_from(">Q", header, _INCOMPATIBLE_FEATURES_AT)[0]
    return bool(magic == _QCOW2_MAGIC and version >= 3 and features & _EXTERNAL_DATA_FILE)
