"""OVF packages, in an archive or in a folder: where their files lie, and what their manifest says of them.

Promise: names lead to files of the package alone; a file that the descriptor refers to and is not there, or
that the manifest says is another, is a critical finding. Limit: certificates are not looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

from korora.adapters.image import archive, files
from korora.agents.integrity.disks import descriptor, package
from korora.agents.integrity.disks.descriptor import Reference
from korora.errors import IntegrityError
from korora.model.image import Format, ImageFinding, Slice, is_plain
from korora.wiring.image_chain import beside

Place: TypeAlias = tuple[Path, Slice | None]
Places: TypeAlias = Mapping[str, Place]


def opened(path: Path) -> tuple[Places, tuple[ImageFinding, ...]]:
    """The files of the package by name, and what is wrong with them. IntegrityError when it is none."""
    archived = path.suffix.lower() == ".ova"
    places = (
        {name: (path, part) for name, part in archive.members(path).items()} if archived else _beside(path)
    )
    referred = _referred(path, places)
    return places, (*package.covered(referred, list(places)), *_manifest(places))


def disks(places: Places) -> Iterator[tuple[str, Path, Slice | None, Format]]:
    for name, (path, part) in places.items():
        if (which := package.disk_format(name)) is not None:
            yield name, path, part, which


def _beside(path: Path) -> Places:
    """Of a package in a folder: what its descriptor and its manifest name, so far as it is there."""
    places: dict[str, Place] = {path.name: (path, None)}
    names = [one.file for one in _referred(path, places)]
    manifest = path.with_suffix(".mf")
    if manifest.exists():
        places[manifest.name] = beside(path, manifest.name), None
        stated, _ = package.claims(files.read(manifest, package.MAX_MANIFEST_BYTES))
        names += [claim.file for claim in stated]
    for name in names:
        if is_plain(name) and beside(path, name).exists():
            places[name] = beside(path, name), None
    return places


def _referred(path: Path, places: Places) -> tuple[Reference, ...]:
    for name, (at, part) in places.items():
        if name.lower().endswith(".ovf"):
            return descriptor.references(files.read(at, descriptor.MAX_DESCRIPTOR_BYTES, part))
    raise IntegrityError(f"{path} is no package: it has no descriptor (.ovf)", kind="bad-package")


def _manifest(places: Places) -> Iterator[ImageFinding]:
    stated: tuple[package.Claim, ...] = ()
    for name, (path, part) in places.items():
        if name.lower().endswith(".mf"):
            stated, problems = package.claims(files.read(path, package.MAX_MANIFEST_BYTES, part))
            yield from problems
            break
    digests = {}
    for claim in stated:
        if claim.file in places:
            path, part = places[claim.file]
            digests[claim.file] = files.hashed(path, claim.algorithm, part)
    yield from package.judged(stated, list(places), digests)
