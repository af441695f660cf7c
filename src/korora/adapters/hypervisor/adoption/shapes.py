"""What the settings of portable hardware look like: every key that may be given, and the shape of its values.

Pure. No shape fits a path, and no key here makes QEMU 7.2 open anything: a setting whose value is a file
(`romfile`, `pcap`, `kernel`, `script`, …) has no entry. Keys that begin with `x-`, QEMU's own experiments,
have none either, but for a machine's two `x-oem` texts. From the property lists of QEMU itself:
`qemu-system-x86_64 -device NAME,help`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

Shapes = Mapping[str, re.Pattern[str]]

SWITCH: Final = re.compile("on|off|yes|no|true|false|auto")
NUMBER: Final = re.compile(r"-?(0x[0-9a-fA-F]{1,16}|[0-9]{1,20}(\.[0-9]{1,6})?[kKmMgGtTbB]?)")
SLOT: Final = re.compile(r"(0x)?[0-9a-fA-F]{1,4}(\.[0-7])?")  # a PCI slot, and maybe a function
NAME: Final = re.compile(r"[A-Za-z0-9_#][A-Za-z0-9_.:#-]{0,127}")  # of another part of the same machine
TEXT: Final = re.compile(r"[^/\x00-\x1f\x7f]{0,255}")  # shown to the guest, opened by nobody
LONG_TEXT: Final = re.compile(r"[^\x00-\x1f\x7f]{0,1024}")  # likewise, where a slash is only a letter
MAC: Final = re.compile(r"([0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}")
UUID: Final = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
NOTHING: Final = re.compile("")


def words(*choices: str) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, choices)))


def keys(shape: re.Pattern[str], names: str) -> dict[str, re.Pattern[str]]:
    return dict.fromkeys(names.split(), shape)


def check_shapes(settings: Iterable[tuple[str, object]], shapes: Shapes) -> None:
    """ValueError names the first setting that has no entry, another shape, or that is given twice."""
    seen = set()
    for key, value in settings:
        shape = shapes.get(key)
        if shape is None:
            raise ValueError(f"the setting {key} is not known to open no file of the host")
        if not shape.fullmatch(as_text(value)):
            raise ValueError(f"{key} has a value of another kind than is known to open no file of the host")
        if key in seen:
            raise ValueError(f"{key} is set twice")
        seen.add(key)


def as_text(value: object) -> str:
    """A JSON value as QEMU's options would spell it. ValueError for one that is made of others."""
    match value:
        case bool():
            return "on" if value else "off"
        case str() | int():
            return str(value)
        case _:
            raise ValueError("a value that is made of others")


_DISCARD: Final = words("ignore", "off", "unmap", "on")
_AIO: Final = words("threads", "native", "io_uring")
_ON_ERROR: Final = words("report", "ignore", "enospc", "stop", "auto")

DEVICE: Final[Shapes] = {
    **keys(
        SWITCH,
        "account-failed account-invalid aer any_layout ats attached autonegotiation backend_defaults"
        " big-endian-framebuffer blob config-wce csum ctrl_guest_offloads ctrl_mac_addr ctrl_rx ctrl_rx_extra"
        " ctrl_vlan ctrl_vq deflate-on-oom disable-acs disable-legacy disable-modern discard dpofua edid"
        " emergency-write event_idx extra_mac_registers failover force-pcie-endcap free-page-hint"
        " free-page-reporting global-vmstate gso guest_announce guest_csum guest_ecn guest_rsc_ext guest_tso4"
        " guest_tso6 guest_ufo guest_uso4 guest_uso6 hash host_ecn host_tso4 host_tso6 host_ufo host_uso"
        " hotplug indirect_desc init-vet ioeventfd iommu_platform migrate-extra migrate_tso_props mitigation"
        " mmio modern-pio-notify mq mrg_rxbuf msi msix msos-desc multifunction notify_on_empty packed"
        " page-per-vq page-poison param_change power_controller_present ppi qemu-4-0-config-size"
        " qemu-extended-regs queue_reset removable report-discard-granularity request-merging rss scsi"
        " seg-max-adjust seg_max_adjust share-rw shpc status streams superspeed-ports-first use-disabled-flag"
        " use-started virtio-pci-bus-master-bug-migration wakeup wheel-axis write-cache write-zeroes",
    ),
    **keys(
        NUMBER,
        "acpi-index aer_log_max baudbase bootindex bus-reserve channel chassis chassis_nr class"
        " cmd_per_lun cyls disable_vnet_hdr discard_granularity events guest-stats-polling-interval head"
        " heads host_mtu index intrs io-reserve io_timeout iobase ioport iosize irq lcyls lheads"
        " logical_block_size lsecs lun max-bytes max-discard-sectors max-write-zeroes-sectors max_hostmem"
        " max_io_size max_outputs max_ports max_sectors max_unmap_size mem-reserve min_io_size nr num-queues"
        " queues num_queues opt_io_size p2 p3 period physical_block_size port_index port_wwn"
        " pref32-reserve pref64-reserve queue-size readback refresh_rate rombar romsize rotation_rate"
        " rsc_interval rx_queue_size scsi-id scsi_version secs slot slots speed subsys subsys_ven"
        " tx_queue_size unit usb_version vectors vgamem_mb virtqueue_size wwn xmax xres ymax yres",
    ),
    **keys(NAME, "id bus drive netdev chardev tpmdev rng iothread port failover_pair_id"),
    **keys(TEXT, "serial product vendor model ver device_id name"),
    "addr": SLOT,
    "mac": MAC,
    "guid": re.compile(f"auto|{UUID.pattern}"),
    "romfile": NOTHING,  # as it is written to have none
    "tx": words("bh", "timer"),
    "duplex": words("half", "full"),
    "bios-chs-trans": words("none", "lba", "large", "rechs", "auto"),
    **keys(_ON_ERROR, "werror rerror"),
}
GLOBAL: Final[Shapes] = {
    **DEVICE,
    **keys(SWITCH, "secure noreboot enable_tco smm-compat smm-enabled memory-hotplug-support"),
    **keys(SWITCH, "acpi-pci-hotplug-with-bridge-support acpi-root-pci-hotplug"),
    **keys(NUMBER, "disable_s3 disable_s4 s4_val"),
    "lost_tick_policy": words("discard", "delay", "merge", "slew"),
}
MACHINE: Final[Shapes] = {
    **keys(
        SWITCH,
        "acpi default-bus-bypass-iommu dump-guest-core graphics hmat hpet i8042 mem-merge nvdimm pic pit sata"
        " smbus smm suppress-vmdesc usb vmport",
    ),
    **keys(NUMBER, "max-ram-below-4g max-fw-size"),
    **keys(NAME, "memory-backend pflash0 pflash1"),
    **keys(words("on", "off", "split"), "kernel-irqchip kernel_irqchip"),
    "smbios-entry-point-type": words("32", "64", "auto"),
    **keys(TEXT, "x-oem-id x-oem-table-id"),
}
OBJECTS: Final[Mapping[str, Shapes]] = {
    "rng-random": {"id": NAME, "filename": words("/dev/urandom", "/dev/random", "/dev/hwrng")},
    "rng-builtin": {"id": NAME},
    "iothread": {"id": NAME, **keys(NUMBER, "poll-max-ns poll-grow poll-shrink aio-max-batch")},
}
DRIVE: Final[Shapes] = {  # and its file
    **keys(NUMBER, "index bus unit"),
    "id": NAME,
    "if": words("none", "virtio", "ide", "scsi", "pflash"),
    "format": words("raw", "qcow2"),
    "media": words("disk", "cdrom"),
    "readonly": words("on", "off"),
    "cache": words("none", "writeback", "writethrough", "directsync", "unsafe"),
    "aio": _AIO,
    "discard": _DISCARD,
    "detect-zeroes": words("on", "off", "unmap"),
    **keys(_ON_ERROR, "werror rerror"),
    "serial": TEXT,
}
NODE: Final[Shapes] = {  # and its file, filename, cache and backing
    "driver": words("raw", "qcow2", "file", "host_device"),
    "node-name": NAME,
    **keys(SWITCH, "read-only auto-read-only locking"),
    "discard": _DISCARD,
    "aio": _AIO,
}
NODE_CACHE: Final[Shapes] = keys(SWITCH, "direct no-flush")
SMBIOS: Final[Shapes] = {
    **keys(NUMBER, "type speed processor-id processor-family max-speed current-speed"),
    "uefi": SWITCH,
    "uuid": UUID,
    **keys(
        LONG_TEXT,
        "vendor version date release manufacturer product serial sku family asset location value sock_pfx"
        " part loc_pfx bank",
    ),
}
PLAIN: Final[Mapping[str, Shapes]] = {  # a bare first word stands under the empty key
    "-smp": {"": NUMBER, **keys(NUMBER, "cpus sockets dies clusters cores threads maxcpus")},
    "-rtc": {
        "base": re.compile(r"utc|localtime|[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}:[0-9]{2})?"),
        "clock": words("host", "rt", "vm"),
        "driftfix": words("none", "slew"),
    },
    "-boot": {
        **keys(re.compile("[a-p]{1,16}"), "order once"),
        **keys(SWITCH, "menu strict"),
        **keys(NUMBER, "splash-time reboot-timeout"),
        "": re.compile("[a-p]{1,16}"),
    },
    "-vga": {"": words("none", "std", "cirrus", "vmware", "virtio")},
    "-uuid": {"": UUID},
    "-watchdog-action": {"": words("reset", "shutdown", "poweroff", "inject-nmi", "pause", "debug", "none")},
}
_FEATURE: Final = "[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
CPU_MODEL: Final = re.compile(_FEATURE)
CPU_FEATURE: Final = re.compile(
    rf"[+-]?{_FEATURE}"
    r"|(vendor|model-id|hv[_-]vendor[_-]id)=[^/,\x00-\x1f\x7f]{0,64}"
    rf"|{_FEATURE}=({SWITCH.pattern}|{NUMBER.pattern})"
)
"""Their names are too many to list: each is a switch or a number, or one of three texts."""

_ON_PCI: Final = ("", "-pci", "-pci-transitional", "-pci-non-transitional", "-device")
_VIRTIO: Final = "blk net serial rng scsi balloon gpu keyboard mouse tablet"
_OTHERS: Final = (
    "virtio-vga virtserialport virtconsole scsi-hd scsi-cd ide-hd ide-cd ahci ich9-ahci tpm-tis tpm-crb"
    " pcie-root-port pcie-pci-bridge pci-bridge e1000 e1000-82544gc e1000-82545em e1000e rtl8139"
    " qemu-xhci nec-usb-xhci usb-tablet usb-kbd usb-mouse VGA isa-serial isa-debugcon isa-debug-exit"
    " pvpanic pvpanic-pci i6300esb vmgenid vmcoreinfo"
)
DEVICES: Final = frozenset(_OTHERS.split()) | {
    f"virtio-{kind}{bus}" for kind in _VIRTIO.split() for bus in _ON_PCI
}
