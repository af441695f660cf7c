"""What a container says of itself, judged: other files that it would open, states that make it no plain disk.

Promise: an image that names another file, in whatever way, has a critical finding until that very file was
allowed. Limit: judges what QEMU reports of the header, and a VMDK's descriptor by its own reading.

Source: QEMU's `qemu-img info --output=json`; VMware, "Virtual Disk Format 5.0" (descriptor files).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from korora.errors import IntegrityError
from korora.model.image import Format, ImageFacts, ImageFinding, is_plain

MAX_SANE_BYTES: Final = 1 << 50
"""A petabyte: a virtual size beyond that is named, and read all the same."""
MAX_EXTENTS: Final = 10_000
MAX_SNAPSHOTS: Final = 1_000
_PROTOCOL: Final = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_EXTENT: Final = re.compile(
    r'^\s*(?:RW|RDONLY|NOACCESS)\s+\d+\s+(?P<kind>[A-Z]+)(?:\s+"(?P<file>[^"]*)")?', re.IGNORECASE
)


def judged(said: Mapping[str, Any], which: Format, allowed: Collection[str] = ()) -> ImageFacts:
    """The facts in QEMU's description. `allowed`: other files by the names that the image has for them.

    IntegrityError if the description is not of that shape, as that of a damaged image may be.
    """
    try:
        return _judged(said, which, allowed)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise IntegrityError(
            f"QEMU's description of the image cannot be understood: {error!r}", kind="bad-image"
        ) from error


def _judged(said: Mapping[str, Any], which: Format, allowed: Collection[str]) -> ImageFacts:
    special = said.get("format-specific", {}).get("data", {})
    backing, data_file = said.get("backing-filename"), special.get("data-file")
    snapshots = tuple(str(one["name"]) for one in said.get("snapshots", ())[:MAX_SNAPSHOTS])
    facts = ImageFacts(
        format=which,
        virtual_size=int(said["virtual-size"]),
        actual_size=int(said.get("actual-size", 0)),
        findings=(),
        backing=backing,
        backing_format=said.get("backing-filename-format"),
        data_file=data_file,
        encrypted=bool(said.get("encrypted")),
        snapshots=snapshots,
    )
    findings = (*_others(facts, allowed), *_states(facts, said, special))
    return ImageFacts(**{name: getattr(facts, name) for name in facts.__slots__} | {"findings": findings})


def _others(facts: ImageFacts, allowed: Collection[str]) -> Iterator[ImageFinding]:
    for kind, name in (("backing", facts.backing), ("data-file", facts.data_file)):
        if name is None:
            continue
        if name.startswith("json:") or _PROTOCOL.match(name):
            yield ImageFinding("critical", f"{kind}-elsewhere", f"it would open {name!r}, no plain file")
        elif name not in allowed:
            yield ImageFinding("critical", kind, f"it would open another file of the host: {name!r}")
    if facts.backing is not None and facts.backing_format is None:
        yield ImageFinding(
            "critical",
            "backing-format",
            "it does not say its backing file's format: that would be guessed from bytes a guest wrote",
        )


def _states(facts: ImageFacts, said: Mapping[str, Any], special: Mapping[str, Any]) -> Iterator[ImageFinding]:
    if facts.virtual_size > MAX_SANE_BYTES:
        yield ImageFinding("warning", "size", f"it claims to be {facts.virtual_size / 2**50:,.0f} PiB large")
    if facts.encrypted:
        yield ImageFinding("warning", "encrypted", "it is encrypted: its content is not read without its key")
    if facts.snapshots:
        number = len(facts.snapshots)
        yield ImageFinding("info", "snapshots", f"it keeps {number} snapshots, which no digest covers")
    if special.get("corrupt"):
        yield ImageFinding("critical", "corrupt", "it is marked as corrupt")
    if said.get("dirty-flag"):
        yield ImageFinding("warning", "dirty", "it was not closed: its writer crashed, or has it open")


@dataclass(frozen=True, slots=True)
class Extents:
    """The files of a split image, as its descriptor names them."""

    files: tuple[str, ...]


def vmdk_extents(descriptor: bytes) -> Extents:
    """Of a VMDK's text descriptor. IntegrityError(kind="image-escape") if one lies anywhere but beside it."""
    found = []
    for line in descriptor.decode("utf-8", "replace").splitlines()[: 10 * MAX_EXTENTS]:
        if (extent := _EXTENT.match(line)) is None or extent["file"] is None:
            continue
        found.append(_beside(extent["file"]))
    if len(found) > MAX_EXTENTS:
        raise IntegrityError(f"the image has more than {MAX_EXTENTS} parts", kind="bad-image")
    return Extents(tuple(dict.fromkeys(found)))


def _beside(name: str) -> str:
    if not is_plain(name) or _PROTOCOL.match(name):
        raise IntegrityError(
            f"the image names {name!r} as a part of it, which is not beside it",
            kind="image-escape",
            remedy="an image's parts lie in its own folder; do not use this one",
        )
    return name
