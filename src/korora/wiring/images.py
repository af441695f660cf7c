"""Disk images on this machine, by whatever reads them: describe, digest, compare."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from korora.adapters.image import files
from korora.adapters.image.qemu_nbd import QemuImages
from korora.agents.integrity.disks import content, package
from korora.agents.integrity.disks.containers import check_vmdk_header, judged, vmdk_extents
from korora.agents.integrity.disks.content import Difference, Progress
from korora.agents.integrity.disks.recognition import HEAD_BYTES, recognised
from korora.errors import IntegrityError, RefusedError, UsageError
from korora.model.identity import Digest
from korora.model.image import Format, ImageFacts, ImageFiles, ImageFinding, Slice, is_plain
from korora.model.image_record import DiskRecord, ImageRecord
from korora.protocol.content_tree import ContentTree, package_root

__all__ = ["Difference", "Disk", "Image", "Progress", "Tell", "differing", "digested", "looked_at"]

MAX_DESCRIPTOR_BYTES: Final = 1 << 20
MAX_CHAIN: Final = 64
Tell = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Disk:
    """One disk to look at, and what its container says. `name`: in its package."""

    name: str
    files: ImageFiles
    facts: ImageFacts


@dataclass(frozen=True, slots=True)
class Image:
    """What the path names: a disk, or a package of some. `findings`: of the package."""

    path: Path
    disks: tuple[Disk, ...]
    findings: tuple[ImageFinding, ...] = ()

    @property
    def is_package(self) -> bool:
        return self.path.suffix.lower() in {".ova", ".ovf"}


def looked_at(path: Path, declared: Format | None = None, allowed: Sequence[Path] = ()) -> Image:
    """The image and its facts. `allowed`: other files that it may open, such as those of its chain.

    UsageError when it is no file, or nobody can say what it is; IntegrityError when it is damaged.
    """
    if path.suffix.lower() == ".ova" and declared is None:
        return _package(path)
    if path.suffix.lower() == ".ovf" and declared is None:
        return _folder(path)
    ends = files.ends(path, HEAD_BYTES, 512)  # and it is a file or a disk, or this fails
    which = declared or recognised(path.name, *ends)
    return Image(path, (_disk("", path, which, allowed),))


def digested(image: Image, tell: Tell, kept: Path | None = None) -> ImageRecord:
    """Its record. RefusedError(kind="image-refused") where the container is not to be trusted.

    `kept`: a file in which a digest that is broken off is put aside, to be taken up there; a disk's alone.
    """
    refuse_critical(image)
    if kept is not None and len(image.disks) != 1:
        raise UsageError("only the digest of one disk can be taken up again", kind="no-state")
    disks = tuple(_digested(disk, tell, kept) for disk in image.disks)
    roots = [(disk.name, Digest(disk.root)) for disk in disks]
    root = package_root(roots) if image.is_package else roots[0][1]
    return ImageRecord(image=image.path.name, root=root, disks=disks)


def differing(one: Image, other: Image, tell: Tell) -> Iterator[Difference]:
    """Where two disks differ. UsageError for packages of several disks."""
    for image in (one, other):
        refuse_critical(image)
        if len(image.disks) != 1:
            raise UsageError(
                f"{image.path} has {len(image.disks)} disks; only two disks can be compared",
                kind="which-disk",
                remedy="compare the roots that `korora image digest` names",
            )
    with ExitStack() as opened:
        reader = QemuImages(connections=2)
        left, right = (opened.enter_context(reader.open(image.disks[0].files)) for image in (one, other))
        yield from content.differences(left, right, tell)


def refuse_critical(image: Image) -> None:
    for finding in (*image.findings, *(one for disk in image.disks for one in disk.facts.critical)):
        if finding.severity == "critical":
            raise RefusedError(
                f"{image.path} is not read: {finding.message}",
                kind="image-refused",
                remedy="see `korora image info`; `--allow FILE` names another file that it may open",
            )
    for disk in image.disks:
        if disk.facts.encrypted:
            raise RefusedError(
                f"{image.path} is encrypted: what a guest sees of it cannot be read without its key",
                kind="image-encrypted",
                remedy="decrypt a copy of it first",
            )


# -- what belongs to an image ------------------------------------------------------------------------------


def _disk(name: str, path: Path, which: Format, allowed: Sequence[Path] = ()) -> Disk:
    others = _parts(path) if which is Format.VMDK else ()
    chain, described = _chain(ImageFiles(path, which, others=others), allowed)
    return Disk(name, chain, judged(described, which, [called for called, _ in chain.others]))


def _parts(path: Path) -> tuple[tuple[str, Path], ...]:
    """The files of a split VMDK."""
    head, _ = files.ends(path, HEAD_BYTES, 0)
    check_vmdk_header(head)
    if head.startswith((b"KDMV", b"COWD")):
        return ()
    named = vmdk_extents(files.read(path, MAX_DESCRIPTOR_BYTES)).files
    parts = tuple((name, _beside(path, name)) for name in named)
    for _, part in parts:
        check_vmdk_header(files.ends(part, HEAD_BYTES, 0)[0])
    return parts


def _beside(path: Path, name: str) -> Path:
    """The file of that name in the same folder. IntegrityError(kind="image-escape") if it leads elsewhere."""
    found = path.with_name(name)
    if found.is_symlink():
        raise IntegrityError(
            f"{found} is a link to another file, and no part of {path}",
            kind="image-escape",
            remedy="an image's parts lie in its own folder; do not use this one",
        )
    return found


def _chain(image: ImageFiles, allowed: Sequence[Path]) -> tuple[ImageFiles, dict[str, object]]:
    """With the files of its chain that are allowed; QEMU's description of the first."""
    may, others = {path.resolve() for path in allowed}, list(image.others)
    described = QemuImages().describe(image)
    above, at = described, image.path
    for _ in range(MAX_CHAIN):
        special = above.get("format-specific", {}).get("data", {})
        _allow(special.get("data-file"), at, may, others)
        backing = _allow(above.get("backing-filename"), at, may, others)
        form = above.get("backing-filename-format")
        if backing is None or form not in list(Format):
            break
        at = backing
        above = QemuImages().describe(ImageFiles(at, Format(form)))
        if judged(above, Format(form)).backing is not None and not is_plain(str(above["backing-filename"])):
            break
    return ImageFiles(image.path, image.format, image.slice, tuple(others)), described


def _allow(named: object, at: Path, may: set[Path], others: list[tuple[str, Path]]) -> Path | None:
    """The file that is named, if it may be opened."""
    if not isinstance(named, str) or "\0" in named:
        return None
    path = at.parent / named
    if path.resolve() not in may:
        return None
    others.append((named, path))
    return path


# -- packages ----------------------------------------------------------------------------------------------

Place = tuple[Path, Slice | None]


def _package(path: Path) -> Image:
    places: dict[str, Place] = {name: (path, part) for name, part in files.members(path).items()}
    images = [(name, ImageFiles(path, which, part)) for name, (_, part), which in _disks_of(places)]
    disks = tuple(Disk(name, image, _facts_of(image)) for name, image in images)
    return Image(path, disks, tuple(_manifest(places)))


def _facts_of(image: ImageFiles) -> ImageFacts:
    return judged(QemuImages().describe(image), image.format)


def _folder(path: Path) -> Image:
    """A package whose files lie beside its .ovf: those that its manifest names."""
    manifest = path.with_suffix(".mf")
    places: dict[str, Place] = {path.name: (path, None)}
    if manifest.exists():
        places[manifest.name] = manifest, None
        stated, _ = package.claims(files.read(manifest, package.MAX_MANIFEST_BYTES))
        named = [claim.file for claim in stated if is_plain(claim.file)]
        places |= {name: (_beside(path, name), None) for name in named if path.with_name(name).is_file()}
    disks = tuple(_disk(name, at, which) for name, (at, _), which in _disks_of(places))
    return Image(path, disks, tuple(_manifest(places)))


def _disks_of(places: Mapping[str, Place]) -> Iterator[tuple[str, Place, Format]]:
    for name, place in places.items():
        if (which := package.disk_format(name)) is not None:
            yield name, place, which


def _manifest(places: Mapping[str, Place]) -> Iterator[ImageFinding]:
    stated: tuple[package.Claim, ...] = ()
    for name, (path, part) in places.items():
        if name.endswith(".mf"):
            stated, problems = package.claims(files.read(path, package.MAX_MANIFEST_BYTES, part))
            yield from problems
            break
    digests = {}
    for claim in stated:
        if claim.file in places:
            path, part = places[claim.file]
            digests[claim.file] = files.hashed(path, claim.algorithm, part)
    yield from package.judged(stated, list(places), digests)


# -- a digest that can be taken up again -------------------------------------------------------------------


def _digested(disk: Disk, tell: Tell, kept: Path | None) -> DiskRecord:
    with QemuImages().open(disk.files) as opened:
        identity = _identity(disk, opened.size)
        last: list[Progress] = []

        def told(progress: Progress) -> None:
            last[:] = [progress]
            tell(progress)

        try:
            root = content.digest(opened, told, _taken_up(kept, identity))
        except BaseException:
            if kept is not None and last:
                _put_aside(kept, identity, last[0])
            raise
        if _identity(disk, opened.size) != identity:
            raise RefusedError(
                f"{disk.files.path} was written while it was read: its digest is of no moment",
                kind="image-changed",
                remedy="stop the VM, or take a snapshot and read that",
            )
    if kept is not None:
        kept.unlink(missing_ok=True)
    return DiskRecord(name=disk.name, format=disk.files.format, size=opened.size, root=root)


def _identity(disk: Disk, size: int) -> dict[str, object]:
    paths = (disk.files.path, *(path for _, path in disk.files.others))
    seen = [asdict(files.identity(path)) for path in paths]
    return {"files": seen, "format": disk.files.format.value, "size": size}


def _put_aside(kept: Path, identity: dict[str, object], progress: Progress) -> None:
    peaks = [(level, digest.hex()) for level, digest in progress.peaks]
    new = kept.with_name(kept.name + ".new")
    new.write_text(json.dumps({"identity": identity, "count": progress.count, "peaks": peaks}))
    new.replace(kept)


def _taken_up(kept: Path | None, identity: dict[str, object]) -> ContentTree | None:
    """None when there is nothing, or it is of another state of the image."""
    if kept is None or not kept.exists():
        return None
    try:
        said = json.loads(kept.read_bytes())
        if said["identity"] != identity:
            return None
        return ContentTree(said["count"], [(level, bytes.fromhex(digest)) for level, digest in said["peaks"]])
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{kept} is nothing that was put aside: {error}",
            kind="bad-state",
            remedy="remove it, or name another file",
        ) from error
