"""A host's content store, opened by its settings, and disk images put into it.

Promise: what is kept is what a guest sees of an image that is to be trusted as far as `korora image` says;
what is referred to is the bytes of a file, whatever they mean, of which only names are taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Final, TypeVar

from korora.adapters.image.plain import plain
from korora.adapters.image.qemu_nbd import QemuImages
from korora.adapters.store.store import FolderStore
from korora.agents.integrity.disks.content import Progress, runs
from korora.errors import UsageError
from korora.model.store_settings import StoreSettings
from korora.model.stored import Added, Located, Scope
from korora.ports.content_store import ContentStore
from korora.ports.image import OpenImage
from korora.protocol.content_tree import CHUNK_BYTES
from korora.protocol.dedup.names import UNIT_BYTES, is_zero, name_of, units
from korora.wiring.image_files import only_disk
from korora.wiring.images import Image, Tell

T = TypeVar("T")
_AT_ONCE: Final = 4096


@contextmanager
def opened(settings: StoreSettings, *, made: bool = False) -> Iterator[ContentStore]:
    """UsageError(kind="no-store") when it is not there and may not be made."""
    if not made and not settings.folder.is_dir():
        raise UsageError(
            f"there is no content store: no folder {settings.folder}",
            kind="no-store",
            remedy="put an image into it: korora store add IMAGE; or name another one: --store FOLDER",
        )
    with closing(FolderStore(settings.folder, settings.bounds)) as store:
        yield store


def refer(store: ContentStore, scope: Scope, path: Path, tell: Tell, *, learnt: bool = False) -> Added:
    """The bytes of that file, in chunks and units, wherever they lie in it. A VM may run on it.

    Of a compressed image they are of no use, for no guest sees them.
    """
    with plain(path) as image:
        cut = _through(image, _named, tell)
        parts = (one for offset, named in cut for one in _placed(offset, named))
        return store.refer(scope, path, parts, learnt=learnt)


def keep(store: ContentStore, scope: Scope, image: Image, tell: Tell) -> Added:
    """Own copies of what a guest sees. RefusedError where the container is not to be trusted."""
    disk = only_disk(image)
    with QemuImages().open(disk) as opened_image:
        return store.keep(
            scope, image.path.resolve(), (chunk for _, chunk in _through(opened_image, bytes, tell))
        )


def _through(image: OpenImage, work: Callable[[memoryview], T], tell: Tell) -> Iterator[tuple[int, T]]:
    """Where each chunk that may be more than zeros begins, and what `work` made of it."""
    plan = runs(image.extents(), image.size)
    while some := list(islice(plan, _AT_ONCE)):
        begins = [run.first * CHUNK_BYTES for run in some if not run.zero]
        ranges = [(begin, min(CHUNK_BYTES, image.size - begin)) for begin in begins]
        for begin, made in zip(begins, image.each(ranges, work), strict=True):
            yield begin, made
            tell(Progress(min(begin + CHUNK_BYTES, image.size), image.size, 0, ()))


def _named(chunk: memoryview) -> list[tuple[int, int, bytes]]:
    """Offset in the chunk, length and name: of all of it, and of its units."""
    if is_zero(chunk):
        return []
    small = [(at, min(UNIT_BYTES, len(chunk) - at), name) for at, name in units(chunk) if name is not None]
    return [(0, len(chunk), name_of(chunk)), *small]


def _placed(begin: int, parts: list[tuple[int, int, bytes]]) -> Iterator[Located]:
    for at, length, name in parts:
        yield Located(begin + at, length, name)
