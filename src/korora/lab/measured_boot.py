"""A synthetic measured boot: the event log of a host that started known software, and the PCRs it leads to.

What is measured, in which order and into which PCR follows UEFI firmware, shim and GRUB
(TCG PC Client Platform Firmware Profile 1.05, 3.3 and 10). Pure: no TPM, no files.
Limit: the digests of "images" are digests of their names and versions; no such image exists.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from uuid import UUID

from korora.model.evidence import PcrValues
from korora.policy.event_log import Event, EventLog, EventType, encoded, replay
from korora.policy.pcrs import PLATFORM_PCRS
from korora.policy.reference_values import ReferenceValues, learned

_GLOBAL = UUID("8be4df61-93ca-11d2-aa0d-00e098032b8c")  # EFI_GLOBAL_VARIABLE
_SECURITY = UUID("d719b2cb-3d3a-4596-a3bc-dad00e67656f")  # EFI_IMAGE_SECURITY_DATABASE_GUID


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
class MeasuredBoot:
    """A boot as a list of measurements, in order."""

    events: tuple[Event, ...]

    def log(self) -> bytes:
        """The event log as a kernel hands it out (binary_bios_measurements)."""
        return encoded(self.events)

    def measurements(self) -> list[tuple[int, bytes]]:
        """What a TPM has to be extended with: PCR and digest, in order."""
        return [(event.pcr, event.sha256) for event in self.events if event.sha256]

    def pcrs(self) -> PcrValues:
        """The SHA-256 PCRs after it; those that nothing extended are not listed."""
        return replay(EventLog(self.events), sorted({event.pcr for event in self.events}))

    def reference(self) -> ReferenceValues:
        """Reference values that trust exactly this boot's platform PCRs."""
        platform = {pcr: value for pcr, value in self.pcrs().items() if pcr in PLATFORM_PCRS}
        return ReferenceValues((learned("lab host", platform, EventLog(self.events)),))


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


def _firmware(software: HostSoftware) -> tuple[Event, ...]:
    version = software.firmware.encode("utf-16-le") + b"\0\0"
    volume = _digest(f"firmware volume: {software.firmware}")
    option_rom = _digest(f"option ROM of the network card: {software.firmware}")
    return (
        _of_data(0, EventType.EV_S_CRTM_VERSION, version),
        Event(0, EventType.EV_EFI_PLATFORM_FIRMWARE_BLOB, volume, struct.pack("<QQ", 0xFFC00000, 0x400000)),
        Event(2, EventType.EV_EFI_BOOT_SERVICES_DRIVER, option_rom, _image_load(0x7F000000, 0x2A5C8)),
    )


def _secure_boot(software: HostSoftware) -> tuple[Event, ...]:
    keys = b"key database of the lab" if software.secure_boot else b""
    variables = (
        (_GLOBAL, "SecureBoot", bytes([software.secure_boot])),
        (_GLOBAL, "PK", keys),
        (_GLOBAL, "KEK", keys),
        (_SECURITY, "db", keys),
        (_SECURITY, "dbx", b""),
    )
    return tuple(
        _of_data(7, EventType.EV_EFI_VARIABLE_DRIVER_CONFIG, _variable(*variable)) for variable in variables
    )


def _boot_order() -> tuple[Event, ...]:
    return (_of_data(1, EventType.EV_EFI_VARIABLE_BOOT, _variable(_GLOBAL, "BootOrder", b"\0\0")),)


def _separators() -> tuple[Event, ...]:
    """The firmware's work ends here, in each of its PCRs: what comes later cannot pass for its."""
    return tuple(_of_data(pcr, EventType.EV_SEPARATOR, bytes(4)) for pcr in range(8))


def _loaders(software: HostSoftware) -> tuple[Event, ...]:
    begin = _of_data(4, EventType.EV_EFI_ACTION, b"Calling EFI Application from Boot Option")
    images = (*software.loaders, software.kernel)
    return (
        begin,
        *(
            Event(
                4,
                EventType.EV_EFI_BOOT_SERVICES_APPLICATION,
                _digest(f"image: {image}"),
                _image_load(0x7E000000 - (at << 24), 0xE0000),
            )
            for at, image in enumerate(images)
        ),
    )


def _operating_system(software: HostSoftware) -> tuple[Event, ...]:
    commands = (f"grub_cmd: linux /{software.kernel}", f"kernel_cmdline: {software.command_line}")
    files = (software.kernel, software.initrd)
    return (
        *(
            Event(8, EventType.EV_IPL, _digest(text.partition(": ")[2]), text.encode() + b"\0")
            for text in commands
        ),
        *(Event(9, EventType.EV_IPL, _digest(f"file: {name}"), name.encode() + b"\0") for name in files),
        _of_data(5, EventType.EV_EFI_ACTION, b"Exit Boot Services Invocation"),
        _of_data(5, EventType.EV_EFI_ACTION, b"Exit Boot Services Returned with Success"),
    )


def _of_data(pcr: int, kind: EventType, data: bytes) -> Event:
    """An event whose data itself is what is measured."""
    return Event(pcr, kind, hashlib.sha256(data).digest(), data)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _variable(vendor: UUID, name: str, data: bytes) -> bytes:
    """UEFI_VARIABLE_DATA: vendor, lengths in characters and bytes, name, contents."""
    return vendor.bytes_le + struct.pack("<QQ", len(name), len(data)) + name.encode("utf-16-le") + data


def _image_load(location: int, length: int) -> bytes:
    """UEFI_IMAGE_LOAD_EVENT with an empty device path (its end node)."""
    path = b"\x7f\xff\x04\x00"
    return struct.pack("<QQQQ", location, length, 0, len(path)) + path
