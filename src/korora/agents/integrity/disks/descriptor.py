"""The files that an OVF descriptor refers to.

Promise: no document type, so no entity; bounded bytes and counts. Limit: reads the references alone.

Source: DMTF DSP0243, Open Virtualization Format 2.1, section 7.1 (File references).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from xml.parsers import expat

from korora.errors import IntegrityError
from korora.model.image import MAX_MEMBERS

MAX_DESCRIPTOR_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class Reference:
    """`altered`: how the file is not the disk itself, such as compressed; empty if it is."""

    file: str
    altered: str = ""


def references(descriptor: bytes) -> tuple[Reference, ...]:
    """IntegrityError(kind="bad-package") when it is no OVF descriptor."""
    found: list[Reference] = []
    roots: list[str] = []

    def begun(name: str, attributes: dict[str, str]) -> None:
        if not roots:
            roots.append(name)
        if _local(name) != "File":
            return
        said = {_local(key): value for key, value in attributes.items()}
        if len(found) >= MAX_MEMBERS:
            raise _bad(f"it refers to more than {MAX_MEMBERS} files")
        found.append(Reference(said.get("href", ""), _altered(said)))

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler = begun
    parser.StartDoctypeDeclHandler = _refuse_type
    try:
        parser.Parse(descriptor, True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise _bad(str(error)) from error
    if _local(roots[0]) != "Envelope":
        raise _bad(f"it is a {_local(roots[0])!r}")
    return tuple(found)


def _altered(said: dict[str, str]) -> str:
    if said.get("compression", "identity") not in {"", "identity"}:
        return f"compressed ({said['compression']})"
    return "cut in pieces" if said.get("chunkSize") else ""


def _refuse_type(*_: object) -> None:
    raise _bad("it has a document type")


def _local(name: str) -> str:
    return name.rpartition(" ")[2]


def _bad(problem: str) -> IntegrityError:
    return IntegrityError(f"the package's descriptor cannot be read: {problem}", kind="bad-package")
