"""Disks on their way without a hypervisor: QEMU's storage daemon takes them, libnbd writes them there.

All of a disk is written when its copying begins, and again when it is cut.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from korora.adapters.image import nbd
from korora.adapters.image.qemu_nbd import QemuImages, served
from korora.adapters.image.writable import WritableExport
from korora.errors import RefusedError, ToolError
from korora.model.image import Format, ImageFiles, NbdExport
from korora.model.vm import Disk
from korora.ports.image import OpenImage
from korora.ports.moving_disks import Copied, DiskHere, DiskThere, Load

STARTS_WITHIN_S = 30.0
WRITTEN = "written.json"
RECORD = "outsourced"


class FakeImages(QemuImages):
    """Knows what was written to the disks of FakeMovingDisks, as a bitmap would say it; all are raw.

    `beneath`: what an image's header would name, by its inode.
    """

    beneath: ClassVar[dict[int, str]] = {}

    def describe(self, image: ImageFiles) -> dict[str, Any]:
        described = {**super().describe(replace(image, format=Format.RAW)), "format": image.format.value}
        over = self.beneath.get(image.path.stat().st_ino)
        return described if over is None else {**described, "backing-filename": over}

    @contextmanager
    def open_export(self, export: NbdExport) -> Iterator[OpenImage]:
        with super().open_export(export) as image:
            told = export.socket.with_name(WRITTEN)
            if told.exists():
                ranges = [(at, min(1 << 20, image.size - at)) for at in json.loads(told.read_text())]
                image.written = lambda: iter(ranges)  # type: ignore[method-assign]
            yield image


def overlays(directory: Path) -> tuple[str, ...]:
    record = directory / RECORD
    return tuple(record.read_text().splitlines()) if record.exists() else ()


def fold_back(directory: Path) -> None:
    """A fake guest writes to its disks in any case."""
    for overlay in overlays(directory):
        Path(overlay).unlink(missing_ok=True)
    (directory / RECORD).unlink(missing_ok=True)


def _connected(name: str, socket: Path) -> WritableExport:
    handle = nbd.library().NBD()
    handle.set_export_name(name)
    handle.connect_unix(str(socket))
    return WritableExport([handle])


class FakeMovingDisks:
    """Of raw images. `processes`: where to note what must end with the guest."""

    def __init__(
        self, disks: Sequence[Disk], directory: Path, processes: list[subprocess.Popen[bytes]]
    ) -> None:
        self._disks = {disk.name: disk for disk in disks}
        self._directory = directory
        self._processes = processes
        self._server: subprocess.Popen[bytes] | None = None
        self._there: dict[str, Any] = {}
        self.loads: list[Load] = []
        self._copying: dict[str, asyncio.Task[None]] = {}
        self._before: dict[str, bytes] = {}
        self._frozen: dict[str, bytes] = {}

    @property
    def sizes(self) -> Mapping[str, int]:
        return {name: Path(disk.path).stat().st_size for name, disk in self._disks.items()}

    @property
    def socket(self) -> Path:
        return self._directory / "disks.sock"

    async def receive(self) -> None:
        words = ["qemu-storage-daemon", "--nbd-server", f"addr.type=unix,addr.path={self.socket}"]
        for name, disk in self._disks.items():
            words += ["--blockdev", f"file,filename={disk.path},node-name={name}"]
            words += ["--export", f"nbd,id={name},node-name={name},name={name},writable=on"]
        self._server = self._started(words)
        limit = time.monotonic() + STARTS_WITHIN_S
        while not await self._serves():
            if self._server.poll() is not None or time.monotonic() > limit:
                raise ToolError("the storage daemon does not serve", kind="disks-served")
            await asyncio.sleep(0.01)

    async def _serves(self) -> bool:
        """Its socket is there before anybody listens at it."""
        try:
            _, writer = await asyncio.open_unix_connection(self.socket)
        except OSError:
            return False
        writer.close()
        return True

    async def load(self) -> Load:
        return self.loads.pop(0) if self.loads else Load(0, 0.0)

    def shown(self, name: str) -> AbstractAsyncContextManager[NbdExport]:
        return self.written(name)

    def refuse_unfit(self, folder: Path) -> None:
        if not folder.is_dir():
            raise RefusedError(f"{folder} is no folder", kind="replacement", remedy="name another")

    async def mirror(self, name: str, socket: Path, cap_bytes_per_s: int = 0) -> None:
        handle = self._there[name] = nbd.library().NBD()
        handle.set_export_name(name)
        await asyncio.to_thread(handle.connect_unix, str(socket))
        self._copying[name] = asyncio.create_task(self._copy(name))

    async def reach(self, name: str, socket: Path) -> DiskThere:
        return await asyncio.to_thread(_connected, name, socket)

    async def fill(self, name: str) -> DiskHere:
        return await asyncio.to_thread(_connected, name, self.socket)

    async def outsource(self, name: str, folder: Path) -> None:
        if not folder.is_dir():
            raise RefusedError(f"{folder} is not there", kind="replacement")
        overlay = folder / f"korora-{self._directory.name}-{name}.qcow2"
        overlay.touch(0o600)
        with (self._directory / RECORD).open("a") as record:
            record.write(f"{overlay}\n")
        self._frozen[name] = self._before[name] = Path(self._disks[name].path).read_bytes()

    @asynccontextmanager
    async def frozen(self, name: str) -> AsyncIterator[NbdExport]:
        with (
            tempfile.TemporaryDirectory(prefix="kd-") as folder,
            tempfile.NamedTemporaryFile(prefix="kd-") as copy,
        ):
            Path(copy.name).write_bytes(self._frozen[name])
            with served(ImageFiles(Path(copy.name), Format.RAW), Path(folder), 5):
                yield NbdExport(Path(folder) / "nbd")

    def nearer(self, name: str) -> AbstractAsyncContextManager[NbdExport]:
        return self.frozen(name)

    def room_nearer(self, name: str) -> int:
        return 1 << 30

    async def copied(self) -> Copied:
        ended = [task.done() for task in self._copying.values()]
        for task in self._copying.values():
            if task.done() and task.exception() is not None:
                raise ToolError(f"a disk was not copied: {task.exception()}", kind="mirror-failed")
        total = sum(self.sizes[name] for name in self._copying)
        ready = all(ended)
        read = {name: self.sizes[name] for name, task in self._copying.items() if task.done()}
        return Copied(total if ready else 0, total, ready, read)

    async def cut(self) -> None:
        if not (await self.copied()).ready:
            raise ToolError("a disk was not copied", kind="mirror-failed")
        for name, handle in self._there.items():
            await self._copy(name)
            await asyncio.to_thread(handle.shutdown)

    async def _copy(self, name: str) -> None:
        def blocking() -> None:
            content = Path(self._disks[name].path).read_bytes()
            for at in range(0, len(content), 1 << 20):
                self._there[name].pwrite(content[at : at + (1 << 20)], at)

        await asyncio.to_thread(blocking)

    @asynccontextmanager
    async def written(self, name: str) -> AsyncIterator[NbdExport]:
        with (
            tempfile.TemporaryDirectory(prefix="kd-") as folder,
            tempfile.NamedTemporaryFile(prefix="kd-") as copy,
        ):
            await asyncio.to_thread(self._copied_to, name, Path(copy.name), Path(folder) / WRITTEN)
            with served(ImageFiles(Path(copy.name), Format.RAW), Path(folder), 5):
                yield NbdExport(Path(folder) / "nbd")

    async def stand_by(self) -> None:
        pass

    async def end(self) -> None:
        fold_back(self._directory)
        for task in self._copying.values():
            task.cancel()
        if self._server is not None:
            self._server.kill()
            self._server.wait()
        self._server = None
        self._copying.clear()
        self._there.clear()
        self.socket.unlink(missing_ok=True)

    def _copied_to(self, name: str, path: Path, written: Path) -> None:
        content = Path(self._disks[name].path).read_bytes()
        path.write_bytes(content)
        before = self._before.get(name)
        if before is not None:
            chunks = range(0, len(content), 1 << 20)
            changed = [at for at in chunks if content[at : at + (1 << 20)] != before[at : at + (1 << 20)]]
            written.write_text(json.dumps(changed))
        self._before[name] = content

    def _started(self, words: Sequence[str]) -> subprocess.Popen[bytes]:
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(words, stdin=quiet, stdout=quiet, stderr=quiet)
        self._processes.append(process)
        return process
