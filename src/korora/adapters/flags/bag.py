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
import json
from dataclasses import dataclass
from typing import Final

from korora.errors import IntegrityError
from korora.model.flag import FlagId, FlagKind, Place, shown
from korora.protocol import canonical, packing

MAX_BAG_BYTES: Final = 128 << 20
_DECLARATION: Final = b"BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"
_BAGIT: Final = "bagit.txt"
_INFO: Final = "bag-info.txt"
_ORIGINAL: Final = "data/original"
_MANIFEST: Final = "manifest-sha256.txt"
_TAGS: Final = "tagmanifest-sha256.txt"
_FILES: Final = (_BAGIT, _INFO, _ORIGINAL, _MANIFEST, _TAGS)
_WIDTH: Final = 79
_FOLD: Final = "\n  "


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
    files = {_BAGIT: _DECLARATION, _INFO: _info(bag), _ORIGINAL: bag.content}
    files[_MANIFEST] = _line(_ORIGINAL, bag.content)
    files[_TAGS] = _tags(files)
    return packing.packed({f"{bag.flag}/{name}": data for name, data in files.items()})


def opened(packed: bytes, flag: FlagId) -> dict[str, bytes]:
    """The files of this flag's bag by name, `data/original` among them, once all digests were compared.

    IntegrityError(kind="bad-bag") for anything else.
    """
    if len(packed) > MAX_BAG_BYTES:
        raise _bad("it is too large")
    try:
        found = packing.unpacked(packed)
    except IntegrityError as problem:
        raise _bad(problem.message) from problem
    if list(found) != [f"{flag}/{name}" for name in _FILES]:
        raise _bad(f"it has not just the files that the bag of flag {flag} has")
    files = {name: found[f"{flag}/{name}"] for name in _FILES}
    _check(files, flag)
    return files


def _check(files: dict[str, bytes], flag: FlagId) -> None:
    if files[_MANIFEST] != _line(_ORIGINAL, files[_ORIGINAL]):
        raise _bad("the original is not the one that was kept")
    if files[_TAGS] != _tags(files):
        raise _bad("what is said of the original is not what was said")
    if files[_BAGIT] != _DECLARATION or not files[_INFO].startswith(_head(flag)):
        raise _bad("it says that it is about something else")


def _tags(files: dict[str, bytes]) -> bytes:
    return b"".join(_line(name, files[name]) for name in (_BAGIT, _INFO, _MANIFEST))


def _head(flag: FlagId) -> bytes:
    return f"Source-Organization: Korora\nExternal-Identifier: {flag}\n".encode()


def _info(bag: Bag) -> bytes:
    """RFC 8493, section 2.2.2: one element a line, folded with white space at the front."""
    said = {
        "External-Description": f"{bag.kind} in {shown(bag.place)} of VM {bag.vm}: {bag.reason}",
        "Payload-Oxum": f"{len(bag.content)}.1",
        "Korora-VM": bag.vm,
        "Korora-Kind": bag.kind.value,
        "Korora-Place": canonical.encoded(bag.place).decode(),
    }
    lines = (_folded(f"{name}: {_plain(text)}") for name, text in said.items())
    return _head(bag.flag) + "".join(lines).encode()


def _plain(text: str) -> str:
    """What a guest wrote stays on its line, escaped as JSON does it."""
    return "".join(one if one.isprintable() else json.dumps(one)[1:-1] for one in text)


def _folded(line: str) -> str:
    """Between two characters that are no spaces: tools take those away at the ends of a line."""
    parts, width = [], _WIDTH
    while len(line) > width:
        cuts = (at for at in range(width, 0, -1) if not line[at - 1].isspace() and not line[at].isspace())
        if (cut := next(cuts, 0)) == 0:
            break
        parts.append(line[:cut])
        line, width = line[cut:], _WIDTH - len(_FOLD) + 1
    return _FOLD.join([*parts, line]) + "\n"


def _line(name: str, data: bytes) -> bytes:
    return f"{hashlib.sha256(data).hexdigest()}  {name}\n".encode()


def _bad(problem: str) -> IntegrityError:
    return IntegrityError(
        f"this is no bag with an original: {problem}",
        kind="bad-bag",
        remedy="keep it, and find out what changed it",
    )
