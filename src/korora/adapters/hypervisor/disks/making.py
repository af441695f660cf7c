"""New images for disks that arrive."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from korora.errors import RefusedError, ToolError
from korora.model.vm import Disk


async def make_disk(disk: Disk, size: int) -> None:
    """As `Hypervisor.make_disk`. Root's alone (0600); no byte is allocated for what nobody wrote."""
    path = Path(disk.path)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except FileExistsError as error:
        raise RefusedError(
            f"there is a file at {path} already, where the disk {disk.name} should come",
            kind="disk-exists",
            remedy="see what it is, and move it away",
        ) from error
    except OSError as error:
        raise _not_made(disk, error.strerror or str(error)) from error
    try:
        over = disk.backing[:1]
        # Its size is said, so nothing beneath it is opened to make it.
        beneath = [word for one in over for word in ("-u", "-b", one.path, "-F", one.format)]
        process = await asyncio.create_subprocess_exec(
            *("qemu-img", "create", "-q", "-f", disk.format, *beneath, str(path), str(size)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await process.communicate()
        if process.returncode != 0:
            raise _not_made(disk, said.decode("utf-8", "replace").strip()[:300])
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _not_made(disk: Disk, reason: str) -> ToolError:
    return ToolError(
        f"no image for the disk {disk.name} could be made at {disk.path}: {reason}",
        kind="disk-not-made",
        remedy="see that there is room, and that this host may write there",
    )
