"""A diff made of two images, or of an image and the leaves that an earlier visit left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from korora import named_file
from korora.adapters.image.qemu_nbd import QemuImages
from korora.agents.integrity.diffs.making import Base, base_of, counted, leaves_of, made
from korora.agents.integrity.disks.content import Progress
from korora.agents.integrity.disks.measuring import KeptLeaves, Leaves, read_leaves
from korora.errors import RefusedError, UsageError
from korora.model.identity import Digest
from korora.ports.image import OpenImage
from korora.protocol import dsse
from korora.protocol.content_tree import CHUNK_BYTES, ContentTree, chunks_of
from korora.protocol.disk_diff.statement import HEAD_BYTES, DiskDiff, head
from korora.wiring.disk_diffs import journal
from korora.wiring.disk_diffs.file import new_file
from korora.wiring.images import Disk, Image, Tell, identity_of, refuse_critical

_MAX_LEAVES_BYTES: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class Signer:
    """Who makes it: `by` is for people, the key for those who verify it."""

    by: str
    key: dsse.SigningKey


def only_disk(image: Image) -> Disk:
    """RefusedError for what is not to be read; UsageError(kind="which-disk") for a package of several."""
    refuse_critical(image)
    if len(image.disks) != 1:
        raise UsageError(f"{image.path} has {len(image.disks)} disks; a diff is of one", kind="which-disk")
    journal.refuse_unfinished(image.path)
    return image.disks[0]


@contextmanager
def opened(image: Image, connections: int = 2) -> Iterator[OpenImage]:
    """RefusedError(kind="image-changed") at the end if its files were written meanwhile."""
    disk = only_disk(image)
    with QemuImages(connections=connections).open(disk.files) as found:
        before = identity_of(disk, found.size)
        yield found
        if identity_of(disk, found.size) != before:
            raise RefusedError(
                f"{disk.files.path} was written while it was read",
                kind="image-changed",
                remedy="stop the VM, or take a snapshot and read that",
            )


def make(base: Image | KeptBase, image: Image, output: Path, signer: Signer, at: int, tell: Tell) -> DiskDiff:
    """The statement of the diff that is then at `output`, a new file."""
    with ExitStack() as undone:
        file = undone.enter_context(new_file(output))
        now = undone.enter_context(opened(image))
        was = (
            base.for_size(now.size)
            if isinstance(base, KeptBase)
            else base_of(undone.enter_context(opened(base)))
        )
        file.write(bytes(HEAD_BYTES))
        done = made(was, now, file.write, tell)
        said = DiskDiff(
            by=signer.by,
            at=at,
            base=done.base,
            result=done.result,
            records=done.writing.records,
            length=done.writing.length,
            digest=done.writing.digest,
        )
        file.flush()
        file.seek(0)
        file.write(head(said, [signer.key]))
    return said


# -- leaves ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class KeptBase:
    """What an earlier visit left of a disk: a leaf for each chunk. `size` in bytes, if it is said."""

    leaves: tuple[Leaves, ...]
    size: int | None = None

    def for_size(self, size: int) -> Base:
        """If it is not said: as large as the disk is now. UsageError if it cannot have been."""
        count = sum(one.count for one in self.leaves)
        of = self.size if self.size is not None else size
        if count != chunks_of(of):
            raise UsageError(
                f"these are the leaves of {count} chunks, and a disk of {of} bytes has {chunks_of(of)}",
                kind="bad-leaves",
                remedy="say with --base-size how many bytes the disk had",
            )
        return Base(of, self.leaves)


def kept_base(path: Path, size: int | None) -> KeptBase:
    """As `keep` wrote them, or the inspection of a VM. UsageError(kind="bad-leaves")."""
    try:
        return KeptBase(tuple(read_leaves(named_file.read(path, _MAX_LEAVES_BYTES))), size)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path} has no leaves of a disk: {getattr(error, 'strerror', None) or error}",
            kind="bad-leaves",
            remedy="make them: korora disk diff leaves IMAGE -o FILE",
        ) from error


def keep(image: Image, output: Path, tell: Tell) -> tuple[int, Digest]:
    """Size and root of the disk of which `output`, a new file, then has all leaves."""
    kept, tree = KeptLeaves(), ContentTree()
    with new_file(output) as file, opened(image, connections=4) as now:
        for one in counted(leaves_of(now), tree, now.size):
            kept.add(one)
            tell(Progress(min(tree.count * CHUNK_BYTES, now.size), now.size, tree.count, ()))
        done = kept.done()
        if done is None:
            raise UsageError(f"{image.path} is too large to keep its leaves", kind="too-large")
        file.write(done)
        return now.size, tree.root(now.size)
