"""Kept disks in a folder of the host's state: an image and a record for each, root's alone.

    kept/VM/DISK.image   as QEMU left it
    kept/VM/DISK.json    a model.kept.KeptDisk

Promise: an image is moved, never copied, and only within one file system; one without a record is wiped
with the next that is kept or dropped of that VM, and never used.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from korora.adapters.durable import sync_folder
from korora.adapters.premises.wiping import wiped
from korora.model.evidence import WipeStep
from korora.model.identity import VmName, checked_name
from korora.model.kept import KeptDisk

FOLDER: Final = "kept"
_IMAGE: Final = ".image"
_RECORD: Final = ".json"


class LocalKeptDisks:
    """Implements ports.kept_disks.KeptDisks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def all(self) -> list[KeptDisk]:
        return sorted(self._found(), key=lambda one: (one.vm, one.name))

    def of(self, vm: VmName, disk: str) -> tuple[KeptDisk, Path] | None:
        image = self._image(vm, disk)
        try:
            record = msgspec.json.decode(image.with_suffix(_RECORD).read_bytes(), type=KeptDisk)
            used = os.lstat(image).st_blocks * 512
        except (OSError, msgspec.MsgspecError):
            return None
        if (record.vm, record.name) != (vm, disk):
            return None
        return msgspec.structs.replace(record, used=used), image

    async def keep(self, kept: KeptDisk, path: Path) -> None:
        await asyncio.to_thread(self._keep, kept, path)

    async def take(self, vm: VmName, disk: str, path: Path) -> None:
        await asyncio.to_thread(_take, self._image(vm, disk), path)

    async def put_back(self, vm: VmName, disk: str, path: Path) -> None:
        await asyncio.to_thread(_put_back, path, self._image(vm, disk))

    async def drop(self, vm: VmName) -> Sequence[WipeStep]:
        return await asyncio.to_thread(self._drop, vm)

    def _image(self, vm: str, disk: str) -> Path:
        return self._folder / checked_name(vm, "VM name") / (checked_name(disk, "disk name") + _IMAGE)

    def _found(self) -> Iterator[KeptDisk]:
        for image in self._folder.glob(f"*/*{_IMAGE}"):
            if (kept := self.of(VmName(image.parent.name), image.stem)) is not None:
                yield kept[0]

    def _keep(self, kept: KeptDisk, path: Path) -> None:
        image = self._image(kept.vm, kept.name)
        image.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        there = path.exists()
        if there:
            status = os.lstat(path)
            if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
                raise OSError(f"{path} is no file of its own")
            if status.st_dev != image.parent.stat().st_dev:
                raise OSError(f"{path} is on another file system than {image.parent}")
            wiped(image)
        elif not image.exists():
            raise OSError(f"there is no {path}")
        record = image.with_suffix(_RECORD)
        draft = record.with_suffix(".new")
        draft.write_bytes(msgspec.json.encode(kept))
        draft.chmod(0o600)
        draft.replace(record)
        if there:
            path.chmod(0o600)
            path.rename(image)
        sync_folder(image.parent)

    def _drop(self, vm: VmName) -> list[WipeStep]:
        folder = self._folder / checked_name(vm, "VM name")
        steps = [wiped(image) for image in sorted(folder.glob(f"*{_IMAGE}"))]
        for record in folder.glob("*"):
            record.unlink()
        if folder.is_dir():
            folder.rmdir()
        return steps


def _take(image: Path, path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.link(image, path)  # which a rename would do over what is there
    image.unlink()


def _put_back(path: Path, image: Path) -> None:
    if path.is_file() and image.with_suffix(_RECORD).exists() and not image.exists():
        path.rename(image)
