"""Writing disk images, chunk by chunk, in whatever format keeps them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Final, Protocol

from korora.model.image import ImageFiles
from korora.ports.image import OpenImage

MAX_BYTES: Final = 1 << 20


class WritableImage(OpenImage, Protocol):
    """Several requests are under way at once, in no order: between two calls of `flush` no byte is written
    twice, nor read after it was. ToolError(kind="image-full") when there is no room, "unwritable" for
    another failure; either may come with a later call, at last with `flush`.
    """

    def put(self, offset: int, data: bytes) -> None:
        """These bytes, at most MAX_BYTES."""
        ...

    def zero(self, offset: int, length: int) -> None:
        """Zeros from here on, for which no room is kept where format and storage can do without."""
        ...

    def flush(self) -> None:
        """All that was written so far outlives a crash of this host."""
        ...


class ImageWriter(Protocol):
    def create(self, image: ImageFiles, size: int) -> None:
        """A new image of zeros; its owner alone may read it. UsageError(kind="exists") if there is a file."""
        ...

    def open(self, image: ImageFiles) -> AbstractContextManager[WritableImage]:
        """For reading and writing, as the declared format: raw or qcow2. Nobody else may have it open.

        When it is left without an error, all is flushed; after an error, some of what was put may be there.
        """
        ...
