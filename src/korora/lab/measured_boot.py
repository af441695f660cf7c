"""A synthetic measured boot: the event log of a host that started known software, and the PCRs it leads to.

The log is in the TCG's crypto-agile format with the SHA-256 bank only, laid out as UEFI firmware writes it
(TCG PC Client Platform Firmware Profile 1.05, 10.2). Pure: no TPM, no files.
Limit: the digests of "images" are digests of their names and versions; no such image exists.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from enum import IntEnum
from uuid import UUID

PCR_BYTES = 32
_SHA256 = 0x000B
_GLOBAL = UUID("8be4df61-93ca-11d2-aa0d-00e098032b8c")  # EFI_GLOBAL_VARIABLE
_SECURITY = UUID("d719b2cb-3d3a-4596-a3bc-dad00e67656f")  # EFI_IMAGE_SECURITY_DATABASE_GUID


class EventType(IntEnum):
    """The kinds used here (same source, table 14)."""

    NO_ACTION = 0x3
    SEPARATOR = 0x4
    S_CRTM_VERSION = 0x8
    IPL = 0xD
    EFI_VARIABLE_DRIVER_CONFIG = 0x80000001
    EFI_VARIABLE_BOOT = 0x80000002
    EFI_BOOT_SERVICES_APPLICATION = 0x80000003
    EFI_BOOT_SERVICES_DRIVER = 0x80000004
    EFI_ACTION = 0x80000007
    EFI_PLATFORM_FIRMWARE_BLOB = 0x80000008


@dataclass(frozen=True, slots=True)
class HostSoftware:
    """What a lab host claims to have booted. Another value is another measured state."""

    firmware: str = "Korora Lab Firmware 1.0"
    secure_boot: bool = True
    loaders: tuple[str, ...] = ("shimx64.efi 15.8", "grubx64.efi 2.06")
    kernel: str = "vmlinuz 6.1.0-cloud-amd64"
    initrd: str = "initrd.img 6.1.0-cloud-amd64"
    command_line: str = "root=LABEL=korora ro quiet"


@dataclass(frozen=True, slots=True)
class BootEvent:
    """One measurement: what is extended (32 bytes) and what the log says of it."""

    pcr: int
    kind: EventType
    digest: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class MeasuredBoot:
    """A boot as a list of measurements, in order."""

    events: tuple[BootEvent, ...] = field(default=())

    def log(self) -> bytes:
        """The event log as a kernel hands it out (binary_bios_measurements)."""
        return _specification_event() + b"".join(_logged(event) for event in self.events)

    def pcrs(self) -> dict[int, str]:
        """The SHA-256 PCRs after it, hex; those that nothing extended are not listed."""
        values: dict[int, bytes] = {}
        for event in self.events:
            before = values.get(event.pcr, bytes(PCR_BYTES))
            values[event.pcr] = hashlib.sha256(before + event.digest).digest()
        return {pcr: value.hex() for pcr, value in sorted(values.items())}


def measured_boot(software: HostSoftware) -> MeasuredBoot:
    """The boot of this software, event by event, as a PC with UEFI and GRUB would measure it."""
    return MeasuredBoot(
        (
            *_firmware(software),
            *_secure_boot(software),
            *_boot_order(),
            *_separators(),
            *_loaders(software),
            *_operating_system(software),
        )
    )


def _firmware(software: HostSoftware) -> tuple[BootEvent, ...]:
    version = software.firmware.encode("utf-16-le") + b"\0\0"
    volume = _digest(f"firmware volume: {software.firmware}")
    option_rom = _digest(f"option ROM of the network card: {software.firmware}")
    return (
        _of_data(0, EventType.S_CRTM_VERSION, version),
        BootEvent(0, EventType.EFI_PLATFORM_FIRMWARE_BLOB, volume, struct.pack("<QQ", 0xFFC00000, 0x400000)),
        BootEvent(2, EventType.EFI_BOOT_SERVICES_DRIVER, option_rom, _image_load(0x7F000000, 0x2A5C8)),
    )


def _secure_boot(software: HostSoftware) -> tuple[BootEvent, ...]:
    keys = b"key database of the lab" if software.secure_boot else b""
    variables = (
        (_GLOBAL, "SecureBoot", bytes([software.secure_boot])),
        (_GLOBAL, "PK", keys),
        (_GLOBAL, "KEK", keys),
        (_SECURITY, "db", keys),
        (_SECURITY, "dbx", b""),
    )
    return tuple(
        _of_data(7, EventType.EFI_VARIABLE_DRIVER_CONFIG, _variable(*variable)) for variable in variables
    )


def _boot_order() -> tuple[BootEvent, ...]:
    return (_of_data(1, EventType.EFI_VARIABLE_BOOT, _variable(_GLOBAL, "BootOrder", b"\0\0")),)


def _separators() -> tuple[BootEvent, ...]:
    """The firmware's work ends here, in each of its PCRs: what comes later cannot pass for its."""
    return tuple(_of_data(pcr, EventType.SEPARATOR, bytes(4)) for pcr in range(8))


def _loaders(software: HostSoftware) -> tuple[BootEvent, ...]:
    begin = _of_data(4, EventType.EFI_ACTION, b"Calling EFI Application from Boot Option")
    images = (*software.loaders, software.kernel)
    return (
        begin,
        *(
            BootEvent(
                4,
                EventType.EFI_BOOT_SERVICES_APPLICATION,
                _digest(f"image: {image}"),
                _image_load(0x7E000000 - (at << 24), 0xE0000),
            )
            for at, image in enumerate(images)
        ),
    )


def _operating_system(software: HostSoftware) -> tuple[BootEvent, ...]:
    commands = (f"grub_cmd: linux /{software.kernel}", f"kernel_cmdline: {software.command_line}")
    files = (software.kernel, software.initrd)
    return (
        *(
            BootEvent(8, EventType.IPL, _digest(text.partition(": ")[2]), text.encode() + b"\0")
            for text in commands
        ),
        *(BootEvent(9, EventType.IPL, _digest(f"file: {name}"), name.encode() + b"\0") for name in files),
        _of_data(5, EventType.EFI_ACTION, b"Exit Boot Services Invocation"),
        _of_data(5, EventType.EFI_ACTION, b"Exit Boot Services Returned with Success"),
    )


def _of_data(pcr: int, kind: EventType, data: bytes) -> BootEvent:
    """An event whose data itself is what is measured."""
    return BootEvent(pcr, kind, hashlib.sha256(data).digest(), data)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _variable(vendor: UUID, name: str, data: bytes) -> bytes:
    """UEFI_VARIABLE_DATA: vendor, lengths in characters and bytes, name, contents."""
    return vendor.bytes_le + struct.pack("<QQ", len(name), len(data)) + name.encode("utf-16-le") + data


def _image_load(location: int, length: int) -> bytes:
    """UEFI_IMAGE_LOAD_EVENT with an empty device path (its end node)."""
    path = b"\x7f\xff\x04\x00"
    return struct.pack("<QQQQ", location, length, 0, len(path)) + path


def _specification_event() -> bytes:
    """The first event: SHA-1 layout, TCG_EfiSpecIdEvent, one algorithm."""
    body = b"Spec ID Event03\0" + struct.pack("<IBBBB", 0, 0, 2, 0, 2)
    body += struct.pack("<IHH", 1, _SHA256, PCR_BYTES) + b"\0"
    return struct.pack("<II20sI", 0, EventType.NO_ACTION, b"", len(body)) + body


def _logged(event: BootEvent) -> bytes:
    """TCG_PCR_EVENT2 with one digest."""
    head = struct.pack("<IIIH", event.pcr, event.kind, 1, _SHA256)
    return head + event.digest + struct.pack("<I", len(event.data)) + event.data
