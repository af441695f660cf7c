"""How grave a change is: a table by the word of the setting, and one by the path of those without a word.

The tables are in docs/CONFIGURATION.md, and a test compares them.
"""

from __future__ import annotations

import re
from typing import Final

from korora.model.vm_settings import Component, ConfigurationFormat, Field, Part, Severity

OF_VM: Final[dict[Field, Severity]] = {
    Field.NAME: "warning",
    Field.UUID: "critical",
    Field.MEMORY: "warning",
    Field.CPUS: "warning",
    Field.CPU_MODEL: "warning",
    Field.MACHINE: "warning",
    Field.FIRMWARE: "critical",
    Field.FIRMWARE_IMAGE: "critical",
    Field.BOOT_ORDER: "warning",
    Field.KERNEL: "critical",
    Field.INITRD: "critical",
    Field.COMMAND_LINE: "critical",
    Field.ARGUMENTS: "critical",
}
"""Secure Boot and the TPM: critical when they go, a warning when they come."""

ADDED: Final[dict[Part, Severity]] = {
    Part.DISK: "warning",
    Part.NIC: "warning",
    Part.PASSED: "critical",
    Part.SHARE: "critical",
}
"""A remote display that is added is critical when it is open: see `is_open`; else a warning."""

REMOVED: Final[dict[Part, Severity]] = {
    Part.DISK: "warning",
    Part.NIC: "warning",
    Part.PASSED: "warning",
    Part.SHARE: "info",
    Part.DISPLAY: "info",
}

OF_DEVICE: Final[dict[tuple[Part, Field], Severity]] = {
    (Part.DISK, Field.PATH): "warning",
    (Part.DISK, Field.FORMAT): "critical",
    (Part.DISK, Field.BUS): "warning",
    (Part.DISK, Field.KIND): "warning",
    (Part.NIC, Field.KIND): "warning",
    (Part.NIC, Field.NETWORK): "warning",
    (Part.NIC, Field.MAC): "warning",
    (Part.NIC, Field.MODEL): "info",
    (Part.PASSED, Field.DEVICE): "critical",
    (Part.SHARE, Field.PATH): "critical",
    (Part.SHARE, Field.DEVICE): "warning",
    (Part.DISPLAY, Field.KIND): "warning",
}
"""Read-only: critical when it goes, info when it comes. A display's address and password: by `is_open`."""

OTHERS: Final[tuple[tuple[ConfigurationFormat, str, Severity], ...]] = (
    (ConfigurationFormat.LIBVIRT, r"domain/launchSecurity.*", "critical"),
    (ConfigurationFormat.LIBVIRT, r"domain/(qemu:|xen:|\{).*", "critical"),
    (ConfigurationFormat.LIBVIRT, r"domain/devices/(disk\[[^]]*\]|tpm(\[\d+\])?)/.*encryption.*", "critical"),
    (ConfigurationFormat.LIBVIRT, r"domain/devices/disk\[[^]]*\]/(backingStore/)+format/@type", "critical"),
    (ConfigurationFormat.LIBVIRT, r"domain/os/(loader/@(secure|readonly)|firmware/feature.*)", "critical"),
    (ConfigurationFormat.LIBVIRT, r"domain/seclabel(\[\d+\])?/@.*", "critical"),
    (ConfigurationFormat.LIBVIRT, r"domain/(title|description|metadata/.*)", "info"),
    (ConfigurationFormat.XEN, r"(device_model_|firmware|xsm|seclabel|init_seclabel).*", "critical"),
    (ConfigurationFormat.VMWARE, r"(encryption\.|encryptedvm\.|isolation\.|monitor_control\.).*", "critical"),
    (ConfigurationFormat.VMWARE, r"annotation|guestinfo\.detailed\.data", "info"),
    (ConfigurationFormat.VIRTUALBOX, r".*/ExtraDataItem\[VBoxInternal.*", "critical"),
    (ConfigurationFormat.VIRTUALBOX, r".*/(Clipboard|DragAndDrop|Encryption)/.*", "critical"),
    (ConfigurationFormat.VIRTUALBOX, r".*/(Description|ExtraDataItem\[GUI%2f[^]]*\]/@value)", "info"),
    (ConfigurationFormat.OVF, r".*/(ExtraDataItem\[VBoxInternal.*|SharedFolder(\[.*|/.*))", "critical"),
    (ConfigurationFormat.OVF, r".*/vbox:Machine/.*/(Clipboard|DragAndDrop|Encryption)/.*", "critical"),
    (
        ConfigurationFormat.OVF,
        r".*/(Info|Description|(rasd|sasd|epasd):(Caption|Description|ElementName))",
        "info",
    ),
)
"""The first that fits. What none fits is a warning."""

_LOCAL: Final = re.compile(r"(127\.\d{1,3}\.\d{1,3}\.\d{1,3}|::1|localhost|no network)")


def of_vm(field: Field, before: str | None, after: str | None) -> Severity:
    if field in {Field.SECURE_BOOT, Field.TPM}:
        return "critical" if before == "on" and after != "on" else "warning"
    return OF_VM.get(field, "warning")


def of_device(before: Component, after: Component, field: Field) -> Severity:
    """Of one fact about a device that was there, and is."""
    if field is Field.READ_ONLY:
        return "critical" if before.get(field) == "yes" else "info"
    if before.part is Part.DISPLAY and field in {Field.ADDRESS, Field.PASSWORD}:
        return "critical" if is_open(after) else "warning"
    return OF_DEVICE.get((before.part, field), "warning")


def of_added(device: Component) -> Severity:
    if device.part is Part.DISPLAY:
        return "critical" if is_open(device) else "warning"
    return ADDED.get(device.part, "warning")


def of_removed(device: Component) -> Severity:
    return REMOVED.get(device.part, "warning")


def of_other(format: ConfigurationFormat, path: str) -> Severity:  # noqa: A002
    """Of a setting without a word."""
    for of, pattern, severity in OTHERS:
        if of is format and re.fullmatch(pattern, path):
            return severity
    return "warning"


def is_open(display: Component) -> bool:
    """Whether it asks for no password and is not known to listen on this host alone."""
    addresses = (display.get(Field.ADDRESS) or "").split(", ")
    return display.get(Field.PASSWORD) != "set" and not all(_LOCAL.fullmatch(one) for one in addresses)
