"""The files that take a guest's writes while its disks move, and the record that says that they hold them.

Promise: `outsourced.json` in the VM's folder is there, durably, before a guest writes past its disk, and for
as long as an overlay may hold what the disk does not. Whoever starts a VM or reads its disks without a QEMU
asks `fold_back_at_rest` first: after it the disks hold all that the guest had flushed. It may be repeated.
Limit: a host that ends without a word keeps what was flushed, as with any disk.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from korora.adapters.durable import sync_folder
from korora.adapters.hypervisor.command_line import image_graph
from korora.errors import ToolError
from korora.model.vm import Backing

RECORD: Final = "outsourced.json"
_LOOK: Final = "see that both files are there and can be written, then start the VM, or move it, again"


class Outsourced(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One disk. `used`: the overlay may hold writes; else it is about to be made, or to be removed.

    `cache` holds nothing that the original does not; `backing` lies beneath the original.
    """

    disk: str
    original: str
    format: str
    overlay: str
    cache: str = ""
    used: bool = False
    backing: tuple[Backing, ...] = ()


def outsourced(directory: Path) -> tuple[Outsourced, ...]:
    """Of the VM in this folder. ToolError when the record cannot be read: then nobody may use its disks."""
    try:
        return msgspec.json.decode((directory / RECORD).read_bytes(), type=tuple[Outsourced, ...])
    except FileNotFoundError:
        return ()
    except (OSError, msgspec.MsgspecError) as error:
        raise ToolError(
            f"{directory / RECORD} says which disks of the VM are incomplete, and cannot be read",
            kind="outsourced-record",
            remedy="while the VM runs, start the daemon anew or move the VM: QEMU knows what was in it. Else"
            " restore it; without it, look there and in the folder that --replacement named for each"
            f" korora-{directory.name}-DISK-….qcow2, `qemu-img commit` it into its disk, and remove it and"
            " this file",
        ) from error


def is_noted(directory: Path) -> bool:
    """Whether there is a record, of whatever content."""
    return (directory / RECORD).exists()


def files(directory: Path) -> tuple[str, ...]:
    """Where a guest's writes may lie outside of its disks. ToolError as `outsourced`."""
    entries = outsourced(directory)
    return tuple(path for entry in entries for path in (entry.overlay, entry.cache) if path)


def note(directory: Path, entries: Sequence[Outsourced]) -> None:
    """Durable once this returns; on an OSError it is as it was."""
    fresh = directory / f"{RECORD}.new"
    with fresh.open("wb") as file:
        file.write(msgspec.json.encode(tuple(entries)))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(directory / RECORD)
    sync_folder(directory)


def forget(directory: Path) -> None:
    """Once everything was written to the disks: the overlays are removed, then the record. Blocking."""
    entries = outsourced(directory)
    for entry in entries:
        if entry.used:
            _sync(Path(entry.original))  # the guest's flush went to the overlay alone
    if entries:
        note(directory, [msgspec.structs.replace(entry, used=False) for entry in entries])
    for entry in entries:
        for path in filter(None, (entry.overlay, entry.cache)):
            Path(path).unlink(missing_ok=True)
    (directory / RECORD).unlink(missing_ok=True)


async def make_overlay(entry: Outsourced, size: int) -> None:
    """An empty one, and its cache, for root alone, where nothing is yet. What a failure leaves is noted."""
    # 4 KiB of a cluster can be there alone: a small write reads nothing of the original.
    options = "extended_l2=on,cluster_size=128k"
    below = ["-u", "-b", entry.original, "-F", entry.format]
    await _made(entry, Path(entry.overlay), ["-o", options, *below], size)
    if entry.cache:
        await _made(entry, Path(entry.cache), [], size)


async def _made(entry: Outsourced, path: Path, words: Sequence[str], size: int) -> None:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise _no_overlay(entry, error.strerror or str(error)) from error
    code, said = await _qemu_img("create", "-q", "-f", "qcow2", *words, str(path), str(size))
    if code != 0:
        raise _no_overlay(entry, said)
    await asyncio.to_thread(_sync, path)


async def fold_back_at_rest(directory: Path) -> None:
    """With no QEMU that has them open. ToolError(kind="not-folded-back"): everything is still there."""
    for entry in outsourced(directory):
        if entry.used:
            await _fold(entry)
    await asyncio.to_thread(forget, directory)


async def _fold(entry: Outsourced) -> None:
    if not Path(entry.overlay).exists():
        raise _not_folded(entry, "it is not there")
    code, said = await _qemu_img("check", "-q", "-f", "qcow2", entry.overlay)
    if code not in {0, 3}:  # 3: clusters that nobody uses, as after any sudden end
        raise _not_folded(entry, said)
    code, said = await _qemu_img("commit", "-q", "-d", _chain(entry))
    if code != 0:
        raise _not_folded(entry, said)


def _chain(entry: Outsourced) -> str:
    """Said in full: what stands in the image's own header decides nothing."""
    original = image_graph(entry.original, entry.format, entry.backing) | {"discard": "unmap"}
    whole = image_graph(entry.overlay, "qcow2", ()) | {"backing": original}
    return "json:" + json.dumps(whole)


async def _qemu_img(*words: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *("qemu-img", *words),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    return process.returncode or 0, said.decode("utf-8", "replace").strip()[:300]


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
    sync_folder(path.parent)


def not_noted(directory: Path, error: OSError) -> ToolError:
    return ToolError(
        f"cannot write {directory / RECORD}: {error.strerror}",
        kind="state-directory",
        remedy="see that the daemon's state directory is writable and has room",
    )


def _no_overlay(entry: Outsourced, reason: str) -> ToolError:
    return ToolError(
        f"no file for the writes to the disk {entry.disk} could be made at {entry.overlay}: {reason}",
        kind="overlay-not-made",
        remedy="name another folder with --replacement, or move with --storage-mode mirror",
    )


def _not_folded(entry: Outsourced, reason: str) -> ToolError:
    return ToolError(
        f"what the guest wrote to {entry.overlay} is not in its disk {entry.original} yet: {reason}",
        kind="not-folded-back",
        remedy=_LOOK,
    )
