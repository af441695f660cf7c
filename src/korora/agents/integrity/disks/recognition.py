"""Which format an image has, by its bytes; asked only where nobody has declared one.

Limit: a guest writes what it likes to a raw disk, a header of another format too. So what looks like a
container is one only if its name says so as well; where they differ a person must declare it.

Source: the magic numbers of QEMU's block drivers (docs/interop/qcow2.txt) and of the formats' specifications.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Final

from korora.errors import UsageError
from korora.model.image import Format

HEAD_BYTES: Final = 1024
_FOOTER_BYTES: Final = 512
_SUFFIXES: Final = {
    ".qcow2": Format.QCOW2,
    ".qcow": Format.QCOW2,
    ".vmdk": Format.VMDK,
    ".vdi": Format.VDI,
    ".vhd": Format.VHD,
    ".vpc": Format.VHD,
    ".vhdx": Format.VHDX,
    ".raw": Format.RAW,
    ".img": Format.RAW,
    ".iso": Format.RAW,
}


def looks_like(head: bytes, tail: bytes = b"") -> Format:
    """By the first HEAD_BYTES and the last 512 bytes; RAW if like nothing else."""
    if head.startswith(b"QFI\xfb"):
        return Format.QCOW2
    if head.startswith((b"KDMV", b"COWD")) or _is_descriptor(head):
        return Format.VMDK
    if head[64:68] == b"\x7f\x10\xda\xbe":
        return Format.VDI
    if head.startswith(b"vhdxfile"):
        return Format.VHDX
    if b"conectix" in (head[:8], tail[-_FOOTER_BYTES:][:8]):
        return Format.VHD
    return Format.RAW


def recognised(name: str, head: bytes, tail: bytes = b"") -> Format:
    """The format, if name and bytes agree. UsageError(kind="format-unclear") asks for a declaration."""
    seen = looks_like(head, tail)
    named = _SUFFIXES.get(PurePath(name).suffix.lower())
    if (named is None and seen is Format.RAW) or named is seen:
        return seen
    called = f"{name!r} is called {_called(named)} and looks like" if named else f"{name!r} looks like"
    why = "a guest could have written that to a raw disk"
    if named and seen is Format.RAW:
        why = f"nothing that a {_called(named)} begins with is in it"
    raise UsageError(
        f"{called} {_called(seen)}; {why}",
        kind="format-unclear",
        remedy=f"declare what it is: --format {named or Format.RAW}, or --format {seen}",
    )


def _called(which: Format) -> str:
    return {Format.RAW: "a raw disk", Format.VHD: "vhd"}.get(which, which.value)


def _is_descriptor(head: bytes) -> bool:
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(b"# disk descriptorfile")
