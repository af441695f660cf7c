"""Kept disks in a folder of the host's state: an image and a record for each, root's alone.

    kept/VM/DISK.image   as QEMU left it
    kept/VM/DISK.json    a model.kept.KeptDisk
    kept/VM/DISK.wiped   an image that is being wiped: nobody takes it any more

Promise: an image is moved, never copied, and only within one file system; one without a record is wiped
with the next that is kept or dropped of that VM, and never used. What somebody has taken is not wiped.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
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
_WIPED: Final = ".wiped"


class LocalKeptDisks:
    """Implements ports.kept_disks.KeptDisks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names = threading.Lock()  # held while files get or lose their names, never for long
        self._wiping = threading.Lock()  # one wipes at a time

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
        await asyncio.to_thread(self._take, self._image(vm, disk), path)

    async def put_back(self, vm: VmName, disk: str, path: Path) -> None:
        await asyncio.to_thread(self._put_back, path, self._image(vm, disk))

    async def drop(self, vm: VmName, disk: str | None = None) -> Sequence[WipeStep]:
        return await asyncio.to_thread(self._drop, vm, disk)

    async def finish(self) -> Sequence[WipeStep]:
        return await asyncio.to_thread(self._finish)

    def _image(self, vm: str, disk: str) -> Path:
        return self._folder / checked_name(vm, "VM name") / (checked_name(disk, "disk name") + _IMAGE)

    def _found(self) -> Iterator[KeptDisk]:
        for folder in self._folder.glob("*"):
            with suppress(FileNotFoundError):  # its last disk was taken or wiped meanwhile
                for image in list(folder.glob(f"*{_IMAGE}")):
                    if (kept := self.of(VmName(folder.name), image.stem)) is not None:
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
            self._wiped([image])
        elif not image.exists():
            raise OSError(f"there is no {path}")
        with self._names:
            image.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            record = image.with_suffix(_RECORD)
            draft = record.with_suffix(".new")
            draft.write_bytes(msgspec.json.encode(kept))
            draft.chmod(0o600)
            draft.replace(record)
            if there:
                path.chmod(0o600)
                path.rename(image)
            sync_folder(image.parent)

    def _take(self, image: Path, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._names:
            os.link(image, path)  # which a rename would do over what is there
            image.unlink()

    def _put_back(self, path: Path, image: Path) -> None:
        with self._names:
            if path.is_file() and image.with_suffix(_RECORD).exists() and not image.exists():
                path.rename(image)

    def _drop(self, vm: VmName, disk: str | None) -> list[WipeStep]:
        folder = self._folder / checked_name(vm, "VM name")
        if disk is not None:
            images = {self._image(vm, disk)}
        else:
            found = [*folder.glob(f"*{_IMAGE}"), *folder.glob(f"*{_WIPED}")]
            images = {path.with_suffix(_IMAGE) for path in found}
        steps = self._wiped(sorted(images))
        self._tidied(folder, disk)
        return steps

    def _tidied(self, folder: Path, disk: str | None) -> None:
        """Without the records of what is kept no more."""
        with self._names:
            for path in folder.glob("*"):
                of_it = disk is None or path.stem == disk
                if of_it and path.suffix not in {_IMAGE, _WIPED} and not path.with_suffix(_IMAGE).exists():
                    path.unlink()
            with suppress(OSError):  # there is more in it, or it is not there
                folder.rmdir()

    def _finish(self) -> list[WipeStep]:
        steps = []
        for aside in sorted(self._folder.glob(f"*/*{_WIPED}")):
            steps += self._wiped([aside.with_suffix(_IMAGE)], asides_alone=True)
            self._tidied(aside.parent, aside.stem)
        return steps

    def _wiped(self, images: Sequence[Path], *, asides_alone: bool = False) -> list[WipeStep]:
        """Each is out of reach before its first byte is written over. OSError: it is still kept."""
        steps = []
        with self._wiping:
            for image in images:
                aside = image.with_suffix(_WIPED)
                # What is aside already is of a wipe that a crash cut short.
                for left in (aside,) if asides_alone else (aside, image):
                    with self._names:
                        if not left.exists():
                            continue
                        left.rename(aside)
                    steps.append(self._one_wiped(image, aside))
        return steps

    def _one_wiped(self, image: Path, aside: Path) -> WipeStep:
        try:
            return dataclasses.replace(wiped(aside), what=str(image))
        except OSError:
            with self._names:
                if aside.exists() and not image.exists():
                    aside.rename(image)
            raise
