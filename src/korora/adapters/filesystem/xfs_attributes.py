"""Extended attributes of XFS, as libfsxfs (20260901) tells them.

Of the current version (5) it gives values in the inode, in leaves and in trees of them as they are, and
refuses those in blocks of their own. What it makes of the latter in version 4 was not seen with a file system
that Linux wrote: they are refused here. Names of Linux's `security.` begin with `secure.` there.

Promise: all attributes with the digests of their values, or an error that says why not.
Source: XFS Algorithms & Data Structures, "Extended Attributes"; the kernel's xfs_attr_leaf_entsize.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

MAX_VALUE_BYTES: Final = 1 << 16
_APART_IS_REFUSED: Final = 5
_BESIDE: Final = 3
"""Bytes of a leaf's entry beside name and value."""


def attributes_of(entry: Any, block_bytes: int, version: int) -> dict[str, str]:
    """Name → SHA-256. ValueError, or whatever the library raises, where not all can be told."""
    found: dict[str, str] = {}
    for number in range(entry.number_of_extended_attributes):
        attribute = entry.get_extended_attribute(number)
        name, value = _as_linux(str(attribute.name)), attribute.read(MAX_VALUE_BYTES + 1) or b""
        if name in found:
            raise ValueError(f"there are two of the name {name[:100]!r}")
        if len(value) != attribute.get_size() or len(value) > MAX_VALUE_BYTES:
            raise ValueError("a value is not as long as it is said to be")
        if version < _APART_IS_REFUSED and _lies_apart(name, value, block_bytes):
            raise ValueError(f"a value in blocks of its own is not read of XFS of version {version}")
        found[name] = hashlib.sha256(value).hexdigest()
    return found


def _as_linux(name: str) -> str:
    return "security." + name.removeprefix("secure.") if name.startswith("secure.") else name


def _lies_apart(name: str, value: bytes, block_bytes: int) -> bool:
    """Whether an entry of a leaf has no room for it: three quarters of a block. The name is with its prefix,
    which is not there: what is at the brink counts as well."""
    return _BESIDE + len(name.encode()) + len(value) > block_bytes * 3 // 4
