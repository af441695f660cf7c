"""What a host kept of the disks of a VM that left it (W2), as it is written down, told and shown."""

from __future__ import annotations

from typing import Annotated

import msgspec

from korora.model.vm import Backing

Bytes = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class KeptDisk(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`size`: that the guest saw; `used`: of the storage now. `root`: of its content tree when it left, ""
    if that is not known any more; nobody relies on it. `at`: Unix seconds. `uuid`: of the VM, for another one
    of the same name is told nothing of it. `backing`: what it lies over, from the nearest on; that stayed
    where it was. `until`: when it is wiped, told alone and not written down; 0: not by its age.
    """

    vm: str
    uuid: str
    name: str
    format: str
    size: Bytes
    root: str
    to: str
    at: Annotated[int, msgspec.Meta(ge=0)]
    backing: tuple[Backing, ...] = ()
    used: Bytes = 0
    until: Annotated[int, msgspec.Meta(ge=0)] = 0
