"""Disk images and packages of them on this machine: look at, digest, compare."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from korora.adapters.image import files
from korora.adapters.image.qemu_nbd import QemuImages
from korora.agents.integrity.disks import content
from korora.agents.integrity.disks.content import Difference, Progress
from korora.agents.integrity.disks.recognition import HEAD_BYTES, recognised
from korora.errors import RefusedError, UsageError
from korora.model.identity import Digest
from korora.model.image import Format, ImageFacts, ImageFiles, ImageFinding
from korora.model.image_record import DiskRecord, ImageRecord
from korora.protocol.content_tree import package_root
from korora.wiring import image_chain, image_package, image_state

__all__ = ["Difference", "Disk", "Image", "Progress", "Tell", "differing", "digested", "looked_at"]

Tell = Callable[[Progress], None]
_ALLOW = "see `korora image info`; `--allow FILE` names another file that it may open"
_REMEDIES = {
    "backing": _ALLOW,
    "data-file": _ALLOW,
    "backing-elsewhere": "convert it on the host it comes from: such a file is never opened",
    "data-file-elsewhere": "convert it on the host it comes from: such a file is never opened",
    "backing-format": "if you trust it: qemu-img rebase -u -F FORMAT -b FILE IMAGE",
    "size": "larger disks are not read",
}


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
    is_package: bool = False


def looked_at(
    path: Path, declared: Format | None = None, allowed: Sequence[Path] = (), in_use: bool = False
) -> Image:
    """The image and its facts. `allowed`: other files that it may open, such as those of its chain.
    `in_use`: a running VM may be writing to it.

    UsageError when it is no file, or nobody can say what it is; IntegrityError when it is damaged.
    """
    if declared is None and path.suffix.lower() in {".ova", ".ovf"}:
        return _package(path)
    which = declared or recognised(path.name, *files.ends(path, HEAD_BYTES, 512))
    return Image(path, (Disk("", *image_chain.disk(path, which, allowed, in_use=in_use)),))


def _package(path: Path) -> Image:
    places, findings = image_package.opened(path)
    disks = tuple(
        Disk(name, *image_chain.disk(at, which, part=part))
        for name, at, part, which in image_package.disks(places)
    )
    return Image(path, disks, findings, is_package=True)


def digested(image: Image, tell: Tell, kept: Path | None = None) -> ImageRecord:
    """Its record. RefusedError(kind="image-refused") where the container is not to be trusted.

    `kept`: a file in which a digest that is broken off is put aside, to be taken up there; a disk's alone.
    """
    refuse_critical(image)
    if not image.disks:
        raise UsageError(
            f"{image.path} has no disk",
            kind="no-disk",
            remedy="see `korora image info`: what is in a package goes by its descriptor and its manifest",
        )
    if kept is not None:
        if len(image.disks) != 1:
            raise UsageError("only the digest of one disk can be taken up again", kind="no-state")
        image_state.check(kept)
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
                remedy=_REMEDIES.get(finding.kind, "see `korora image info`; take another copy of it"),
            )
    for disk in image.disks:
        if disk.facts.encrypted:
            raise RefusedError(
                f"{image.path} is encrypted: what a guest sees of it cannot be read without its key",
                kind="image-encrypted",
                remedy="decrypt a copy of it first",
            )


# -- a digest that can be taken up again -------------------------------------------------------------------


def _digested(disk: Disk, tell: Tell, kept: Path | None) -> DiskRecord:
    with QemuImages().open(disk.files) as opened:
        identity = identity_of(disk, opened.size)
        last: list[Progress] = []

        def told(progress: Progress) -> None:
            last[:] = [progress]
            tell(progress)

        try:
            begun = image_state.taken_up(kept, identity, opened.size) if kept is not None else None
            root = content.digest(opened, told, begun)
        except BaseException:
            if kept is not None and last:
                image_state.put_aside(kept, identity, last[0].count, last[0].peaks)
            raise
        if identity_of(disk, opened.size) != identity:
            raise RefusedError(
                f"{disk.files.path} was written while it was read: its digest is of no moment",
                kind="image-changed",
                remedy="stop the VM, or take a snapshot and read that",
            )
    if kept is not None:
        kept.unlink(missing_ok=True)
    return DiskRecord(name=disk.name, format=disk.files.format, size=opened.size, root=root)


def identity_of(disk: Disk, size: int) -> dict[str, object]:
    paths = (disk.files.path, *(path for _, path in disk.files.others))
    seen = [asdict(files.identity(path)) for path in paths]
    part = asdict(disk.files.slice) if disk.files.slice else None
    return {"files": seen, "part": part, "format": disk.files.format.value, "size": size}
