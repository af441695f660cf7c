"""An original as a bag: BagIt 1.0 (RFC 8493), in one tar file whose bytes follow from what is in it.

    FLAG/bagit.txt              version and encoding
    FLAG/bag-info.txt           flag, VM, kind, place, reason
    FLAG/data/original          the bytes
    FLAG/manifest-sha256.txt    of the bytes
    FLAG/tagmanifest-sha256.txt of the three others

Promise: a bag that is read has just these files, with just these digests. Any BagIt tool reads it unpacked.
Limit: the original lies in it as it is: malware is malware.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from dataclasses import dataclass
from typing import Final

from korora.errors import IntegrityError
from korora.model.flag import FlagId, FlagKind, Place, shown
from korora.protocol import canonical

MAX_BAG_BYTES: Final = 128 << 20
_DECLARATION: Final = b"BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"
_INFO: Final = "bag-info.txt"
_ORIGINAL: Final = "data/original"
_MANIFEST: Final = "manifest-sha256.txt"
_TAGS: Final = "tagmanifest-sha256.txt"
_WIDTH: Final = 79


@dataclass(frozen=True, slots=True)
class Bag:
    """`place` in words; it stands in the bag as JSON too."""

    flag: FlagId
    vm: str
    kind: FlagKind
    place: Place
    reason: str
    content: bytes


def written(bag: Bag) -> bytes:
    """The tar file."""
    files = {"bagit.txt": _DECLARATION, _INFO: _info(bag), _ORIGINAL: bag.content}
    files[_MANIFEST] = _line(_ORIGINAL, bag.content)
    files[_TAGS] = b"".join(_line(name, files[name]) for name in ("bagit.txt", _INFO, _MANIFEST))
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(f"{bag.flag}/{name}")
            member.size, member.mode = len(data), 0o600
            archive.addfile(member, io.BytesIO(data))
    return packed.getvalue()


def opened(packed: bytes) -> dict[str, bytes]:
    """The files of the bag by name, `data/original` among them, once all digests were compared.

    IntegrityError(kind="bad-bag") for anything else.
    """
    found = _members(packed)
    if set(found) != {"bagit.txt", _INFO, _ORIGINAL, _MANIFEST, _TAGS} or found["bagit.txt"] != _DECLARATION:
        raise _bad("it has other files than a bag of a flag has")
    if found[_MANIFEST] != _line(_ORIGINAL, found[_ORIGINAL]):
        raise _bad("the original is not the one that was kept")
    if found[_TAGS] != b"".join(_line(name, found[name]) for name in ("bagit.txt", _INFO, _MANIFEST)):
        raise _bad("what is said of the original is not what was said")
    return found


def _members(packed: bytes) -> dict[str, bytes]:
    if len(packed) > MAX_BAG_BYTES:
        raise _bad("it is too large")
    found: dict[str, bytes] = {}
    folders = set()
    try:
        with tarfile.open(fileobj=io.BytesIO(packed), mode="r:") as archive:
            for member in archive:
                folder, _, name = member.name.partition("/")
                file = archive.extractfile(member) if member.isreg() and not member.issparse() else None
                if file is None or name in found:
                    raise _bad(f"{member.name[:100]!r} does not belong into it")
                folders.add(folder)
                found[name] = file.read()
    except (tarfile.TarError, ValueError, EOFError, OSError) as problem:
        raise _bad(str(problem)[:200]) from problem
    if len(folders) != 1:
        raise _bad("it is not one folder")
    return found


def _info(bag: Bag) -> bytes:
    """RFC 8493, section 2.2.2: one element a line, folded with white space at the front."""
    said = {
        "Source-Organization": "Korora",
        "External-Identifier": bag.flag,
        "External-Description": f"{bag.kind} in {shown(bag.place)} of VM {bag.vm}: {bag.reason}",
        "Payload-Oxum": f"{len(bag.content)}.1",
        "Korora-VM": bag.vm,
        "Korora-Kind": bag.kind.value,
        "Korora-Place": canonical.encoded(bag.place).decode(),
    }
    return "".join(_folded(f"{name}: {_plain(text)}") for name, text in said.items()).encode()


def _plain(text: str) -> str:
    """What a guest wrote stays on its line."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def _folded(line: str) -> str:
    parts = [line[:_WIDTH]]
    rest = line[_WIDTH:]
    while rest:
        parts.append("  " + rest[: _WIDTH - 2])
        rest = rest[_WIDTH - 2 :]
    return "\n".join(parts) + "\n"


def _line(name: str, data: bytes) -> bytes:
    return f"{hashlib.sha256(data).hexdigest()}  {name}\n".encode()


def _bad(problem: str) -> IntegrityError:
    return IntegrityError(
        f"this is no bag with an original: {problem}",
        kind="bad-bag",
        remedy="keep it, and find out what changed it",
    )
