"""What a host has for a VM beside the hypervisor: boot files, disks, memory to give. For the prechecks.

Blocking. Limit: a file is looked at when asked; it may change before the VM starts.
"""

from __future__ import annotations

import hashlib
import stat
import struct
from collections.abc import Iterable
from pathlib import Path

from korora.errors import RefusedError, ToolError
from korora.model.facts import DiskSizes, FileDigests
from korora.model.vm import Disk

_QCOW2_MAGIC = b"QFI\xfb"
_QCOW2_HEADER = struct.Struct(">4sI")  # magic, version
_INCOMPATIBLE_FEATURES_AT = 72  # QEMU's docs/interop/qcow2.txt
_EXTERNAL_DATA_FILE = 1 << 2
_MEMINFO = Path("/proc/meminfo")


def file_digests(paths: Iterable[str]) -> FileDigests:
    """SHA-256 of each file that can be read here."""
    digests = {}
    for path in paths:
        try:
            with Path(path).open("rb") as file:
                digests[path] = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            continue
    return digests


def disk_sizes(disks: Iterable[Disk]) -> DiskSizes:
    """The size of each disk that can be opened here: a file's length, or a block device's."""
    sizes = {}
    for disk in disks:
        try:
            with Path(disk.path).open("rb") as file:
                sizes[disk.path] = file.seek(0, 2)
        except OSError:
            continue
    return sizes


def memory_available_bytes(meminfo: Path = _MEMINFO) -> int:
    """MemAvailable of proc(5): what can be had without swapping."""
    for line in meminfo.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise ToolError(f"{meminfo} does not tell MemAvailable", kind="no-meminfo")


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
