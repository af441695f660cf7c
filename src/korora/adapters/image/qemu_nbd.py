"""Images through `qemu-img` and `qemu-nbd` in a sandbox: described, checked, and served to be read.

Promise: the format is the declared one; QEMU can open the image's own file and those that were allowed, and
nothing else but /usr. What cannot be read, or is not answered in time, is an error with its place. Bytes that
lie in the image's file as a guest sees them are read from there, where QEMU says that they lie.
Memory: some 20 MiB here beside QEMU's caches.
Limit: an image that a running VM has open for writing is refused by its lock; read a snapshot of it. Only
what its header says can be asked for meanwhile.
"""

from __future__ import annotations

import errno
import json
import os
import posixpath
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from korora.adapters.image import files, nbd
from korora.adapters.image.export import ALLOCATION, Export, bitmap_context
from korora.adapters.image.layout import Layout, laid_out
from korora.adapters.image.plain import plain
from korora.adapters.image.sandbox import DAY_S, Sandbox, end
from korora.adapters.image.straight import Straight
from korora.errors import IntegrityError, KororaError, ToolError
from korora.model.image import Checked, Format, ImageFiles, NbdExport
from korora.ports.image import OpenImage

CONNECTIONS: Final = 3
STARTS_WITHIN_S: Final = 60.0
CHECKED_WITHIN_S: Final = 600.0
MAPPED_WITHIN_S: Final = 20.0
MAP_BYTES: Final = 16 << 20
"""Of a map that is longer, or takes longer, nothing is used: some 100,000 runs that each lie elsewhere."""
_LOOKED_AGAIN_AFTER_S: Final = (0.1, 0.5)
SECTOR_BYTES: Final = 512
_FOLDER: Final = "/images"
ITSELF: Final = f"{_FOLDER}/.image"
_SOUND: Final = {0, 3, 63}
"""qemu-img check: nothing wrong, some clusters are of no use to anybody, and a format without a check."""
_CORRUPT: Final = 2
_MAX_DESCRIPTION_BYTES: Final = 64 << 20
_LOCKED: Final = re.compile(r"\bFailed to (?:get|lock)\b.*\block\b|\bFailed to lock\b")
_BROKEN_OFF: Final = (
    "for a running VM: there was no room left for what it overwrites meanwhile, or the disk was too slow for"
    " it; make room and begin again. Else the storage below it fails"
)
_HINT: Final = "Is another process using"


@dataclass(frozen=True, slots=True)
class QemuImages:
    """Implements `ports.image.ImageReader`. `in_use`: somebody may be writing to what is described."""

    connections: int = CONNECTIONS
    in_use: bool = False

    def describe(self, image: ImageFiles) -> dict[str, Any]:
        words = ["info", *(["--force-share"] if self.in_use else []), "--output=json", "--image-opts"]
        code, text, said = answered(image, [*words, _options(image)], STARTS_WITHIN_S)
        for pause_s in _LOOKED_AGAIN_AFTER_S if self.in_use else ():
            if code != 0:  # it may have been seen half-written
                time.sleep(pause_s)
                code, text, said = answered(image, [*words, _options(image)], STARTS_WITHIN_S)
        if code != 0:
            raise failed(image, said)
        described: dict[str, Any] = json.loads(text)
        return described

    def check(self, image: ImageFiles) -> Checked:
        if image.format is Format.RAW:
            return Checked()
        own = dict(word.split("=", 1) for word in _options(image).split(","))
        # No backing file: each image of a chain is checked by itself.
        command = ["check", "--output=json", "json:" + json.dumps(own | {"backing": None, "read-only": True})]
        code, text, said = answered(image, command, CHECKED_WITHIN_S)
        if code in _SOUND:
            found = json.loads(text or b"{}")
            return Checked(None, found.get("image-end-offset", 0), bool(found.get("compressed-clusters")))
        if code == _CORRUPT or b"Check failed" in said:
            first = said.decode("utf-8", "replace").partition("\n")[0][:500]
            return Checked(first or "it contradicts itself")
        raise failed(image, said)

    @contextmanager
    def open_export(self, export: NbdExport) -> Iterator[OpenImage]:
        with ExitStack() as undone:
            handles = [_handle(export.name, export.bitmap) for _ in range(self.connections)]
            try:
                for handle in handles:
                    handle.connect_unix(str(export.socket))
            except nbd.library().Error as error:
                raise ToolError(
                    f"the disk at {export.socket} is not served: {error}", kind="unreadable"
                ) from error
            opened = Export(handles, _BROKEN_OFF, export.bitmap, snapshot=export.snapshot)
            undone.callback(opened.close)
            if export.file is None:
                yield opened
                return
            straight = undone.enter_context(plain(export.file))
            if straight.size != opened.size:
                raise ToolError(f"{export.file} is not what is served of it", kind="unreadable")
            yield Straight(opened, straight)

    @contextmanager
    def open(self, image: ImageFiles) -> Iterator[OpenImage]:
        temporary = tempfile.TemporaryDirectory(prefix="korora-image-")
        with temporary as folder, ExitStack() as undone:
            # Undone from the end: once QEMU is gone, whoever waits for an answer waits no longer.
            close = undone.enter_context(ExitStack())
            looking = undone.enter_context(ThreadPoolExecutor(1, "layout"))
            found = looking.submit(in_file, image)
            opened = Export(undone.enter_context(served(image, Path(folder), self.connections)))
            close.callback(opened.close)
            where = found.result()
            if where is None or where.size != opened.size:
                yield opened
                return
            yield Straight(opened, close.enter_context(plain(image.path, where.layout)))


@dataclass(frozen=True, slots=True)
class InFile:
    """A disk's bytes lie in the image's own file, so many: by `layout`, or from its beginning to its end."""

    size: int
    layout: Layout | None = None

    def served_as(self, size: int) -> Layout | None:
        """Where the bytes of a disk of this size lie; None if it is another disk.

        QEMU shows a raw file in whole sectors, with zeros behind its end.
        """
        behind = size - self.size
        if self.layout is not None:
            return self.layout if behind == 0 else None
        if not 0 <= behind < SECTOR_BYTES:
            return None
        return Layout([(self.size, 0), (behind, None)] if behind else [(self.size, 0)])


def in_file(image: ImageFiles) -> InFile | None:
    """Where its bytes lie; None when not all of them do in one file, or it is not known soon."""
    if image.others or image.slice is not None:
        return None
    length = files.identity(image.path).size
    if image.format is Format.RAW:
        return InFile(length)
    words = ["map", "--output=json", "--image-opts", _options(image)]
    try:
        code, mapped, _ = answered(image, words, MAPPED_WITHIN_S)
    except ToolError:
        return None
    if code != 0 or len(mapped) > MAP_BYTES:
        return None
    layout = laid_out(mapped, length)
    return InFile(layout.size, layout) if layout is not None else None


@contextmanager
def served(image: ImageFiles, folder: Path, connections: int = 1) -> Iterator[list[Any]]:
    """So many connections to an export of it at `folder`/nbd; one more can be made there."""
    with tempfile.TemporaryFile() as errors:
        process = _exported(image, folder, connections + 1, errors)
        try:
            yield connected(image, process, errors, folder / "nbd", connections)
        finally:
            end(process)


def answered(
    image: ImageFiles, words: list[str], within_s: float, box: Sandbox | None = None
) -> tuple[int, bytes, bytes]:
    """Exit code, output and errors of qemu-img. ToolError(kind="image-timeout")."""
    box = box or _box(image, processor_s=max(1, int(within_s)))
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = box.start(["qemu-img", *words], output, errors)
        try:
            process.wait(within_s)
        except subprocess.TimeoutExpired as error:
            raise _too_slow(image) from error
        finally:
            end(process)
        output.seek(0)
        return process.returncode, output.read(_MAX_DESCRIPTION_BYTES), last_words(errors)


def _exported(
    image: ImageFiles, folder: Path, connections: int, errors: IO[bytes]
) -> subprocess.Popen[bytes]:
    command = ["qemu-nbd", "--read-only", "--persistent", f"--shared={connections}", "--socket=/run/nbd"]
    words = [*command, "--image-opts", _options(image)]
    return _box(image, folder).start(words, errors=errors)


def _box(image: ImageFiles, folder: Path | None = None, processor_s: int = DAY_S) -> Sandbox:
    """It begins in the image's folder: a data file's relative name QEMU takes from where it was started."""
    return Sandbox(seen(image), folder, processor_s, begins_in=_FOLDER)


def seen(image: ImageFiles) -> dict[str, Path]:
    """What the sandbox shows, by the names under which QEMU will look for it."""
    others = {posixpath.normpath(posixpath.join(_FOLDER, name)): path for name, path in image.others}
    if ITSELF in others:
        raise IntegrityError(f"{image.path} names itself as another file", kind="image-escape")
    return {ITSELF: image.path.resolve()} | {name: path.resolve() for name, path in others.items()}


def _options(image: ImageFiles) -> str:
    if image.slice is None:
        return f"driver={image.format},read-only=on,file.driver=file,file.filename={ITSELF}"
    part = f"file.driver=raw,file.offset={image.slice.offset},file.size={image.slice.length}"
    return f"driver={image.format},read-only=on,{part},file.file.driver=file,file.file.filename={ITSELF}"


def connected(
    image: ImageFiles, process: subprocess.Popen[bytes], errors: IO[bytes], socket: Path, connections: int
) -> list[Any]:
    library = nbd.library()
    deadline = time.monotonic() + STARTS_WITHIN_S
    handles: list[Any] = []
    while len(handles) < connections:
        handle = _handle()
        try:
            handle.connect_unix(str(socket))
            handles.append(handle)
        except library.Error as error:
            if process.poll() is not None:
                raise failed(image, last_words(errors)) from error
            if time.monotonic() > deadline:
                raise _too_slow(image) from error
            time.sleep(0.005)
    return handles


def _handle(export: str = "", bitmap: str = "") -> Any:
    handle = nbd.library().NBD()
    handle.add_meta_context(ALLOCATION)
    if bitmap:
        handle.add_meta_context(bitmap_context(bitmap))
    handle.set_export_name(export)
    return handle


def _too_slow(image: ImageFiles) -> ToolError:
    return ToolError(f"{image.path} was not looked through in time", kind="image-timeout")


def last_words(errors: IO[bytes]) -> bytes:
    length = errors.seek(0, os.SEEK_END)
    errors.seek(max(0, length - 65536))
    return errors.read()


def failed(image: ImageFiles, said: bytes) -> KororaError:
    """QEMU's last word, with what to do about the usual causes."""
    lines = said.decode("utf-8", "replace").replace(ITSELF, str(image.path)).strip().splitlines()
    words = next((line for line in reversed(lines) if not line.startswith(_HINT)), "it ended without a word")[
        :500
    ]
    if _LOCKED.search(words):
        return ToolError(
            f"{image.path} is in use: {words}",
            kind="image-in-use",
            remedy="stop the VM, or take a snapshot and read that",
        )
    if "Permission denied" in words or "bwrap:" in words:
        return ToolError(
            f"{image.path} cannot be opened: {words}",
            kind="image-files",
            remedy="whoever runs korora must be its owner, or everybody may read it:"
            " an administrator's rights do not reach into the sandbox",
        )
    if words.endswith(os.strerror(errno.EIO)):
        return ToolError(
            f"{image.path} cannot be read: {words}",
            kind="unreadable",
            remedy="the storage below it fails; nothing is said of it",
        )
    return IntegrityError(
        f"{image.path} cannot be read as {image.format}: {words}",
        kind="bad-image",
        remedy="see that the format is the right one (--format); if so, the image is damaged",
    )
