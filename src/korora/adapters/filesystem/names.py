"""Which file system a part has, where neither reader of file systems knows it."""

from __future__ import annotations

from typing import Final

from korora.adapters.filesystem.disk import Bytes

_MAGIC: Final = (
    (0, b"XFSB", "xfs"),
    (0x10040, b"_BHRfS_M", "btrfs"),
    (0, b"LUKS\xba\xbe", "luks"),
    (0x438, b"\x53\xef", "ext"),
    (0xFF6, b"SWAPSPACE2", "swap"),
    (0, b"hsqs", "squashfs"),
    (0x400, b"\x10\x20\xf5\xf2", "f2fs"),
)


def name_of(part: Bytes) -> str:
    """Empty if it is like nothing that is known here."""
    for offset, magic, name in _MAGIC:
        if part.read(offset, len(magic)) == magic:
            return name
    return ""
