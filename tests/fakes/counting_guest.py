"""A guest in one sector: it counts, and writes each number to its first disk, then to its second, for ever.

Assembled by hand for the BIOS's disk service (INT 13h, function 03h). It stops for good once a write fails.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

MIB: Final = 1 << 20
COUNT_AT: Final = 512
_BOOT_SECTOR: Final = bytes.fromhex(
    "31c0"  # 7c00  xor ax, ax
    "8ed8"  # 7c02  mov ds, ax
    "8ec0"  # 7c04  mov es, ax
    "8ed0"  # 7c06  mov ss, ax
    "bc007c"  # 7c08  mov sp, 0x7c00
    "66c706008000000000"  # 7c0b  mov dword [0x8000], 0
    "66ff060080"  # 7c14  inc dword [0x8000]       next:
    "b280"  # 7c19  mov dl, 0x80
    "e80700"  # 7c1b  call write
    "b281"  # 7c1e  mov dl, 0x81
    "e80200"  # 7c20  call write
    "ebef"  # 7c23  jmp next
    "b80103"  # 7c25  mov ax, 0x0301               write: one sector
    "b90200"  # 7c28  mov cx, 2                    the second of the disk
    "b600"  # 7c2b  mov dh, 0
    "bb0080"  # 7c2d  mov bx, 0x8000
    "cd13"  # 7c30  int 0x13
    "7201"  # 7c32  jc failed
    "c3"  # 7c34  ret
    "f4"  # 7c35  hlt                          failed:
    "ebfd"  # 7c36  jmp failed
)


def lay_out(first: Path, second: Path) -> None:
    """Two disks of 3 MiB, the first of which boots."""
    first.write_bytes((_BOOT_SECTOR.ljust(510, b"\0") + b"\x55\xaa").ljust(3 * MIB, b"\0"))
    second.write_bytes(bytes(3 * MIB))


def count(disk: bytes) -> int:
    return int.from_bytes(disk[COUNT_AT : COUNT_AT + 4], "little")


def counted(disk: Path) -> int:
    with disk.open("rb") as file:
        return count(file.read(COUNT_AT + 4))
