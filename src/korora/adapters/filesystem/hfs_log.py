"""Whether something lies in the journal of HFS+ alone. It is not played: of what is in it, nothing is known.

Promise: it is called clean only if there is none, or what it says of itself is that it is empty or not begun.
Source: Apple's Technical Note TN1150, "Journal".
"""

from __future__ import annotations

import struct
from typing import Any, Final

from korora.adapters.filesystem.disk import Bytes

_HEADER: Final = 1024
_SIGNATURES: Final = {b"H+", b"HX"}
_WRAPPER: Final = b"BD"
_WRAPPED: Final = struct.Struct(">20xI4xH94x2sH")
_VOLUME: Final = struct.Struct(">2sHI4xI24xI")
_SECTOR: Final = 512
_HAS_JOURNAL: Final = 1 << 13
_INFO: Final = struct.Struct(">I32xQQ")
_IN_ITSELF, _ELSEWHERE, _NOT_BEGUN = 1, 2, 4
_JOURNAL: Final = ">4sIQQ", "<4sIQQ"
_MAGIC, _ENDIAN = {b"JNLx", b"xLNJ"}, 0x12345678


def is_clean(part: Bytes) -> bool:
    """OSError where that cannot be read."""
    at = _begin(part)
    signature, _, attributes, info_block, block_bytes = _unpacked(_VOLUME, part, at + _HEADER)
    if signature not in _SIGNATURES:
        return False
    if not attributes & _HAS_JOURNAL:
        return True
    flags, offset, _ = _unpacked(_INFO, part, at + info_block * block_bytes)
    if flags & _NOT_BEGUN:
        return True
    if flags & _ELSEWHERE or not flags & _IN_ITSELF:
        return False
    for form in _JOURNAL:
        magic, endian, start, end = _unpacked(struct.Struct(form), part, at + offset)
        if magic in _MAGIC and endian == _ENDIAN:
            return bool(start == end)
    return False


def _begin(part: Bytes) -> int:
    """Of the volume, which may lie in one of HFS."""
    if part.read(_HEADER, 2) != _WRAPPER:
        return 0
    block_bytes, first, signature, start = _unpacked(_WRAPPED, part, _HEADER)
    return first * _SECTOR + start * block_bytes if signature in _SIGNATURES else 0


def _unpacked(form: struct.Struct, part: Bytes, at: int) -> tuple[Any, ...]:
    data = part.read(at, form.size)
    if len(data) != form.size:
        raise OSError("its journal reaches beyond the end")
    return form.unpack(data)
