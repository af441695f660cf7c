"""Images made by `qemu-img` and written through `qemu-nbd`, in the sandbox in which others are read.

Promise: QEMU can write to the one image, and read those files that were allowed beside it; a hole in its
drivers can spoil that image, and nothing else. Zeros keep no room. Once it was left without an error, the
image is closed and on stable storage.
Limit: raw and qcow2; a data file beside a qcow2 is not written.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from korora.adapters.image import files
from korora.adapters.image.qemu_nbd import (
    CONNECTIONS,
    ITSELF,
    STARTS_WITHIN_S,
    answered,
    connected,
    failed,
    last_words,
    seen,
)
from korora.adapters.image.sandbox import Sandbox, end
from korora.adapters.image.writable import FLUSHED_WITHIN_S, WritableExport
from korora.errors import ToolError, UsageError
from korora.model.image import Format, ImageFiles
from korora.ports.image_writer import WritableImage

FORMATS: Final = (Format.RAW, Format.QCOW2)
_SPARE_BYTES: Final = 1 << 30
"""How much more than twice its content an image may take, before QEMU is stopped: for its tables."""


@dataclass(frozen=True, slots=True)
class QemuImageWriter:
    """Implements `ports.image_writer.ImageWriter`."""

    connections: int = CONNECTIONS

    def create(self, image: ImageFiles, size: int) -> None:
        _check(image)
        try:
            os.close(os.open(image.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError as error:
            raise UsageError(
                f"{image.path} is there already", kind="exists", remedy="name a new file"
            ) from error
        except OSError as error:
            raise UsageError(
                f"{image.path} cannot be made: {error.strerror}", kind="output", remedy="name another folder"
            ) from error
        try:
            words = ["create", "-q", "-f", image.format.value, ITSELF, str(size)]
            code, _, said = answered(image, words, STARTS_WITHIN_S, _box(image, size))
            if code != 0:
                raise _full(image, said) or failed(image, said)
        except BaseException:
            image.path.unlink(missing_ok=True)
            raise

    @contextmanager
    def open(self, image: ImageFiles) -> Iterator[WritableImage]:
        _check(image)
        with (
            tempfile.TemporaryDirectory(prefix="korora-image-") as folder,
            tempfile.TemporaryFile() as errors,
            ExitStack() as undone,
        ):
            undone.enter_context(_alone(image))
            process = _exported(image, Path(folder), self.connections + 1, errors)
            undone.callback(end, process)
            count = self.connections + 1
            handles = connected(image, process, errors, Path(folder) / "nbd", count)
            opened = WritableExport(handles)
            undone.callback(opened.close)
            yield opened
            opened.leave()
            _await_end(image, process, errors)


@contextmanager
def _alone(image: ImageFiles) -> Iterator[None]:
    """QEMU's own lock keeps VMs away, and lets two of its servers write at once."""
    with files.opened(image.path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ToolError(
                f"{image.path} is in use: another korora writes to it",
                kind="image-in-use",
                remedy="wait until it is done",
            ) from error
        yield


def _check(image: ImageFiles) -> None:
    if image.format not in FORMATS or image.slice is not None:
        raise UsageError(
            f"{image.path} is not written: it is a {image.format}, and only raw and qcow2 are",
            kind="unwritable-format",
            remedy="convert it first, or have a new image written",
        )


def _box(image: ImageFiles, size: int, folder: Path | None = None) -> Sandbox:
    shown = {name: path for name, path in seen(image).items() if name != ITSELF}
    written = {ITSELF: image.path.resolve()}
    return Sandbox(shown, folder, written=written, written_bytes=2 * size + _SPARE_BYTES)


def _exported(
    image: ImageFiles, folder: Path, connections: int, errors: IO[bytes]
) -> subprocess.Popen[bytes]:
    """It ends when the last connection does, and closes the image before."""
    options = f"driver={image.format},read-only=off,discard=unmap"
    options += f",file.driver=file,file.discard=unmap,file.filename={ITSELF}"
    command = ["qemu-nbd", f"--shared={connections}", "--socket=/run/nbd", "--image-opts", options]
    return _box(image, _most(image), folder).start(command, errors=errors)


def _most(image: ImageFiles) -> int:
    """What it may grow to, when nobody knows yet what a guest sees of it."""
    if image.format is Format.RAW:
        return image.path.stat().st_size
    with image.path.open("rb") as file:
        head = file.read(32).ljust(32, b"\0")
    return max(image.path.stat().st_size, min(int.from_bytes(head[24:32], "big"), 1 << 50))


def _await_end(image: ImageFiles, process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
    try:
        code = process.wait(FLUSHED_WITHIN_S)
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"{image.path} was not closed in time", kind="image-timeout") from error
    if code != 0:
        raise _full(image, last_words(errors)) or failed(image, last_words(errors))


def _full(image: ImageFiles, said: bytes) -> ToolError | None:
    if b"No space left" not in said:
        return None
    return ToolError(
        f"there is no room for {image.path}", kind="image-full", remedy="make room where the image lies"
    )
