"""A diff held against a base, or applied to it: into a new image, or to the image itself.

Promise: a new image is there when it was read back and has the root that was signed, and only then. In place
nothing is written before all of the diff and of the base is known to be right; what a crash breaks off, the
same command finishes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from korora.adapters.image.qemu_nbd import QemuImages
from korora.adapters.image.qemu_writer import QemuImageWriter
from korora.agents.integrity.diffs.applying import applied_in_place, check_root, check_size, walked
from korora.agents.integrity.disks.content import digest
from korora.errors import CancelledError, IntegrityError, KororaError, RefusedError, UsageError
from korora.model.identity import Digest
from korora.model.image import Format, ImageFacts, ImageFiles
from korora.protocol import dsse
from korora.protocol.disk_diff.statement import DiskDiff
from korora.wiring import image_chain
from korora.wiring.disk_diffs import journal
from korora.wiring.disk_diffs.file import DiffFile, diff_at, free, settle, unwritten
from korora.wiring.disk_diffs.making import only_disk, opened
from korora.wiring.images import Disk, Image, Tell, identity_of, refuse_critical

Trusted = Mapping[str, dsse.PublicKey]


def verify(path: Path, trusted: Trusted, base: Image | None, tell: Tell) -> DiskDiff:
    """That it is whole and signed; with a base, that it makes of that one what was signed. Writes nothing."""
    with diff_at(path, trusted) as diff:
        diff.check()
        if base is not None:
            with opened(base) as read:
                walked(diff.said, diff.records(), read, lambda *_: None, tell)
        return diff.said


def apply(path: Path, trusted: Trusted, base: Image, output: ImageFiles, tell: Tell) -> DiskDiff:
    """The result is then at `output`, a new image."""
    partial = ImageFiles(free(output.path), output.format)
    with diff_at(path, trusted) as diff:
        diff.check()
        writer = QemuImageWriter()
        writer.create(partial, diff.said.result.size)
        try:
            with opened(base) as read, writer.open(partial) as image:
                walked(diff.said, diff.records(), read, image.put, tell)
            _check_result(diff.said, partial, tell)
            settle(partial.path, output.path)
        except OSError as error:
            raise unwritten(output.path, error) from error
        finally:
            partial.path.unlink(missing_ok=True)
        return diff.said


def _check_result(said: DiskDiff, image: ImageFiles, tell: Tell) -> None:
    root = _root_of(image, tell)
    if root != said.result.root:
        raise IntegrityError(
            f"{image.path} was written, and does not have what was written to it: its root is {root},"
            f" not {said.result.root}",
            kind="wrong-result",
            remedy="the storage below it, or this machine's memory, fails: use another one",
        )


def _root_of(image: ImageFiles, tell: Tell) -> Digest:
    with QemuImages().open(image) as read:
        return digest(read, tell)


# -- in place ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class InPlace:
    """`resumed`: it was broken off before; `already`: the image had the result, and nothing was written."""

    said: DiskDiff
    resumed: bool = False
    already: bool = False


def apply_in_place(path: Path, trusted: Trusted, image: Image, tell: Tell) -> InPlace:
    """The image itself becomes the result. When it fails after it began, the error says how to finish it."""
    with diff_at(path, trusted) as diff:
        diff.check()
        journal.refuse_unfinished(image.path, diff.name)
        resumed = journal.found(image.path) is not None
        disk = _writable(image, diff.said, resumed=resumed)
        if not resumed:
            root = _checked_base(disk, diff.said, tell)
            if root == diff.said.result.root:
                return InPlace(diff.said, already=True)
        try:
            with QemuImageWriter().open(disk.files) as writable:
                journal.begin(image.path, diff)
                applied_in_place(diff.said, diff.records(), writable, tell)
            _check_result(diff.said, disk.files, tell)
            _check_container(disk)
        except KororaError as error:
            if journal.found(image.path) is None:
                raise
            _unfinished(error, diff, image.path)
            raise
        except KeyboardInterrupt as error:
            if journal.found(image.path) is None:
                raise
            stopped = CancelledError("interrupted", kind="cancelled")
            raise _unfinished(stopped, diff, image.path) from error
        journal.end(image.path)
        return InPlace(diff.said, resumed=resumed)


def _writable(image: Image, said: DiskDiff, *, resumed: bool) -> Disk:
    if not resumed:
        disk = only_disk(image)
    else:
        # Where the storage was full, clusters are counted that are not there: `_check_container` looks again.
        sound = (replace(disk, facts=_without_damage(disk.facts)) for disk in image.disks)
        refuse_critical(replace(image, disks=tuple(sound)))
        disk = image.disks[0]
    if disk.files.format not in {Format.RAW, Format.QCOW2} or disk.files.slice or disk.facts.data_file:
        raise UsageError(
            f"{image.path} is not written in place: that is done for raw and qcow2 without a data file",
            kind="unwritable-format",
            remedy="have a new image written: -o RESULT",
        )
    if said.base.size != said.result.size:
        raise UsageError(
            f"the diff changes the disk's size, from {said.base.size} to {said.result.size} bytes",
            kind="size-changes",
            remedy="have a new image written: -o RESULT",
        )
    return disk


def _checked_base(disk: Disk, said: DiskDiff, tell: Tell) -> Digest:
    """Its root: the base's, or already the result's."""
    with QemuImages().open(disk.files) as read:
        check_size(said, read)
        before = identity_of(disk, read.size)
        root = digest(read, tell)
        if root != said.result.root:
            check_root(said, root)
    if identity_of(disk, said.base.size) != before:
        raise RefusedError(
            f"{disk.files.path} was written while it was read",
            kind="image-changed",
            remedy="stop the VM first",
        )
    return root


def _without_damage(facts: ImageFacts) -> ImageFacts:
    return replace(facts, findings=tuple(one for one in facts.findings if one.kind != "damaged"))


def _check_container(disk: Disk) -> None:
    """It is well not only to a guest."""
    others = [path for _, path in disk.files.others]
    _, facts = image_chain.disk(disk.files.path, disk.files.format, others)
    for one in facts.critical:
        raise IntegrityError(
            f"{disk.files.path} has the content that it is to have, but {one.message}",
            kind="bad-image",
            remedy="stop here and mend it: qemu-img check -r leaks",
        )


def _unfinished(error: KororaError, diff: DiffFile, image: Path) -> KororaError:
    """The image is between two contents; only what happened is another error each time."""
    if error.kind in {"wrong-base", "wrong-result"}:
        again = "have the image back from a copy: somebody else wrote to it since, or its storage fails"
    else:
        again = f"finish it by the same command: korora disk diff apply {diff.path} {image} --in-place"
    error.remedy = f"{error.remedy}; then {again}" if error.remedy else again
    error.message = f"{error.message}. {image} is between two contents until it is finished"
    return error
