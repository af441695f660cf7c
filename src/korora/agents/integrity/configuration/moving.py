"""What a move changes and nobody need worry about, told apart from tampering.

A UUID, what a device is, how a disk is read and every security setting never change by a move. The tables are
in docs/CONFIGURATION.md, and a test compares them.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from enum import StrEnum
from typing import Final

from korora.model.vm_settings import ConfigurationFormat, Field, Part

OTHERS: Final[dict[ConfigurationFormat, tuple[str, ...]]] = {
    ConfigurationFormat.LIBVIRT: (
        r"domain/@id",
        r"domain/devices/emulator",
        r"domain/os/nvram",
        r"domain/resource/partition",
        r"domain/seclabel(\[\d+\])?/(label|imagelabel)",
        r"domain/devices/.*/alias/@name",
        r"domain/devices/(disk\[[^]]*\]|hostdev(\[\d+\])?)/source/@index",
        r"domain/devices/disk\[[^]]*\]/(backingStore/)+(@index|source/@(file|dev|index))",
        r"domain/devices/interface(\[\d+\])?/source/@portid",
        r"domain/devices/channel(\[\d+\])?/target/@state",
        r"domain/devices/interface(\[\d+\])?/target/@dev",
        r"domain/devices/graphics(\[\d+\])?/@port",
        r"domain/devices/(serial|console|channel|parallel)(\[\d+\])?/(@tty|source/@path)",
    ),
    ConfigurationFormat.XEN: (r"device_model_override",),
    ConfigurationFormat.VMWARE: (
        r"uuid\.location",
        r"vc\.uuid",
        r"nvram",
        r"extendedconfigfile",
        r"sched\.swap\.derivedname",
        r"migrate\.hostlog",
        r"vmxstats\.filename",
        r"cleanshutdown",
        r"softpoweroff",
        r"numa\.autosize\..*",
        r"vmotion\..*",
        r"monitor\.phys_bits_used",
    ),
    ConfigurationFormat.VIRTUALBOX: (
        r"VirtualBox/@version",
        r"VirtualBox/Machine/MediaRegistry/.*/@location",
        r"VirtualBox/Machine/Hardware/AudioAdapter/@driver",
        r"VirtualBox/Machine/Hardware/GuestProperties/GuestProperty\[[^]]*\]/@timestamp",
        r"VirtualBox/Machine/@(lastStateChange|snapshotFolder|aborted|currentStateModified)",
        r"VirtualBox/Machine/ExtraData/ExtraDataItem\[GUI%2f[^]]*\]/@(name|value)",
        r"VirtualBox/Machine/Hardware/(BIOS/)?NVRAM/@path",
        r"VirtualBox/Machine/Hardware/GuestProperties/GuestProperty\[%2fVirtualBox%2f(GuestInfo|HostInfo)%2f.*",
    ),
    ConfigurationFormat.OVF: (
        r".*/vbox:Machine/@(lastStateChange|snapshotFolder|aborted|currentStateModified)",
    ),
    ConfigurationFormat.KORORA: (),
}


class Allowed(StrEnum):
    """What else may change, if whoever asks says so."""

    MAC = "mac"
    BRIDGE = "bridge"


_ALLOWED: Final = {Allowed.MAC: (Part.NIC, Field.MAC), Allowed.BRIDGE: (Part.NIC, Field.NETWORK)}


def is_expected_of(part: Part, field: Field, *, moved: bool, allowed: Collection[Allowed]) -> bool:
    """Of a fact about a device that was there, and is: the host path of a disk, and what is allowed."""
    if moved and (part, field) == (Part.DISK, Field.PATH):
        return True
    return any((part, field) == _ALLOWED[one] for one in allowed)


def is_expected_path(format: ConfigurationFormat, path: str, *, moved: bool) -> bool:  # noqa: A002
    """Of a setting without a word."""
    return moved and any(re.fullmatch(pattern, path) for pattern in OTHERS[format])
