"""Whether something lies in NTFS's $LogFile alone. It is not played: of whatever is in it, nothing is known.

Promise: it is called clean only if it is empty, nobody has it open, or who closed it last says so.
Source: Linux-NTFS, "NTFS Documentation": $LogFile; ntfs_is_logfile_clean in the kernel's fs/ntfs/logfile.c.
"""

from __future__ import annotations

import struct
from typing import Any, Final

_INODE: Final = 2
_PAGE: Final = struct.Struct("<4s12xIIH")
_AREA: Final = struct.Struct("<QHHHH")
_LARGEST_PAGE: Final = 1 << 16
_EMPTY, _RESTART, _CHECKED = b"\xff\xff\xff\xff", b"RSTR", b"CHKD"
_NOBODY, _IS_CLEAN = 0xFFFF, 0x2


def is_clean(files: Any) -> bool:
    """`files`: as The Sleuth Kit opened it. OSError where it cannot be read."""
    log = files.open_meta(_INODE)
    areas = []
    place = 0
    for _ in range(2):  # the same twice, of which the newer counts
        page = bytes(log.read_random(place, _LARGEST_PAGE))
        if page.startswith(_EMPTY):
            break
        try:
            magic, size, _, begin = _PAGE.unpack_from(page)
            if magic not in {_RESTART, _CHECKED}:
                return False
            areas.append(_AREA.unpack_from(page, begin))
        except struct.error:
            return False
        place = size
    if not areas:
        return True
    _, _, _, opened, flags = max(areas)
    return opened == _NOBODY or bool(flags & _IS_CLEAN)
