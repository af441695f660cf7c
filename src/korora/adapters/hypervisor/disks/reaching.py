"""The export that takes a disk, there or here, reached for whoever writes to it himself."""

from __future__ import annotations

from pathlib import Path

from korora.adapters.hypervisor.wide import connect_wide
from korora.adapters.image import nbd
from korora.adapters.image.writable import WritableExport
from korora.ports.moving_disks import CopyFailedError


def reached(name: str, socket: Path) -> WritableExport:
    """One connection, as a mirror has. CopyFailedError where nobody takes it. Blocking."""
    handle = nbd.library().NBD()
    handle.set_export_name(name)
    try:
        handle.connect_socket(connect_wide(socket).detach())
    except (OSError, nbd.library().Error) as error:
        raise CopyFailedError(name, f"the other host does not take it: {error}") from error
    return WritableExport([handle])
