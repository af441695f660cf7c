"""What changed, in words: every setting that changes is named, gravely enough, and a move's changes apart."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from defusedxml.ElementTree import fromstring, tostring

from fakes.vm_configurations import KORORA, LIBVIRT, OVF, SAMPLES, VIRTUALBOX, VMWARE, XEN
from korora.agents.integrity.configuration.comparing import changes, words
from korora.agents.integrity.configuration.digest import digest
from korora.agents.integrity.configuration.moving import Allowed
from korora.agents.integrity.configuration.recognition import read
from korora.model.vm_settings import ConfigurationFormat, SettingChange

XML = (ConfigurationFormat.LIBVIRT, ConfigurationFormat.VIRTUALBOX, ConfigurationFormat.OVF)


def between(
    before: str, after: str, *, moved: bool = False, allowed: tuple[Allowed, ...] = ()
) -> list[SettingChange]:
    return list(changes(read(before.encode()), read(after.encode()), moved=moved, allowed=allowed))


def told(text: str, old: str, new: str) -> list[tuple[str, str]]:
    """What changes when `old` becomes `new`: severity and words."""
    assert old in text
    return [(one.severity, words(one)) for one in between(text, text.replace(old, new))]


SAID: dict[str, tuple[str, str, str, list[tuple[str, str]]]] = {
    "an adapter that is bridged": (
        LIBVIRT, "<interface type='user'>", "<interface type='bridge'>",
        [("warning", "network adapter 1: NAT → bridged")],
    ),
    "a disk's path": (
        LIBVIRT, "/var/lib/images/web-1.qcow2", "/tmp/b",
        [("warning", "disk 1: path changed: /var/lib/images/web-1.qcow2 → /tmp/b")],
    ),
    "a disk's format": (
        LIBVIRT, "type='qcow2'", "type='raw'", [("critical", "disk 1: format changed: qcow2 → raw")],
    ),
    "a disk that can be written": (
        LIBVIRT, "bus='sata'/>\n      <readonly/>", "bus='sata'/>",
        [("warning", "setting removed domain/devices/disk[sda]/readonly: \"\" → (none)")],
    ),
    "a shared folder that can be written": (
        LIBVIRT, "<target dir='share'/>\n      <readonly/>", "<target dir='share'/>",
        [("critical", "shared folder 1: read-only changed: yes → no")],
    ),
    "Secure Boot": (LIBVIRT, "secure='yes'", "secure='no'", [("critical", "Secure Boot: on → off")]),
    "Secure Boot that is not said": (
        LIBVIRT, " secure='yes'", "", [("critical", "Secure Boot: on → (none)")],
    ),
    "the TPM": (
        LIBVIRT, "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>", "",
        [("critical", "TPM: on → off")],
    ),
    "a disk that is somewhere else": (
        VMWARE, "scsi0:0.", "scsi0:1.", [("warning", "disk 1: slot changed: scsi0:0 → scsi0:1")],
    ),
    "the kernel's command line": (
        LIBVIRT, "ro quiet", "init=/bin/sh",
        [("critical", "kernel command line: root=/dev/vda1 ro quiet → root=/dev/vda1 init=/bin/sh")],
    ),
    "the emulator's arguments": (
        LIBVIRT, "value='-no-hpet'/>", "value='-no-hpet'/><qemu:arg value='-s'/>",
        [("critical", "emulator arguments: -no-hpet → -no-hpet -s")],
    ),
    "the firmware's image": (
        LIBVIRT, "/usr/share/OVMF/OVMF_CODE_4M.ms.fd", "/tmp/x.fd",
        [("critical", "firmware image: /usr/share/OVMF/OVMF_CODE_4M.ms.fd → /tmp/x.fd")],
    ),
    "the UUID": (
        LIBVIRT, "6f1c2a34", "00000000",
        [("critical", "UUID: 6f1c2a34-9d0e-4b7a-8c55-0123456789ab → 00000000-9d0e-4b7a-8c55-0123456789ab")],
    ),
    "a password that is gone": (
        LIBVIRT, " passwd='hush'", "", [("warning", "remote display 1: password changed: set → none")],
    ),
    "a password that is another": (
        LIBVIRT, "passwd='hush'", "passwd='hash'",
        [("warning", "domain/devices/graphics/@passwd: (not shown) → (not shown)")],
    ),
    "a password that is gone from a display for all": (
        VMWARE, 'RemoteDisplay.vnc.ip = "127.0.0.1"\nRemoteDisplay.vnc.password = "hush"', "",
        [
            ("critical", "remote display 1: address changed: 127.0.0.1 → (none)"),
            ("critical", "remote display 1: password changed: set → none"),
        ],
    ),
    "an unknown setting": (
        LIBVIRT, "<smm state='on'/>", "<smm state='off'/>",
        [("warning", "domain/features/smm/@state: on → off")],
    ),
    "an unknown setting that comes": (
        LIBVIRT, "<apic/>", "<apic/><pae/>", [("warning", 'setting added domain/features/pae: (none) → ""')],
    ),
    "memory encryption that goes": (
        LIBVIRT.replace("<devices>", "<launchSecurity type='sev'/><devices>"),
        "<launchSecurity type='sev'/>", "",
        [("critical", "setting removed domain/launchSecurity/@type: sev → (none)")],
    ),
    "a device that is passed through": (
        XEN, "pci = [ '06:02.0' ]", "pci = [ '06:02.0', '07:00.0' ]",
        [("critical", "passed-through device 2 added: device pci 07:00.0")],
    ),
    "a disk of Xen that can be written": (
        XEN, "/iso/install.iso,,hdc,cdrom", "/iso/install.iso,,hdc,rw,cdrom",
        [("critical", "disk 2: read-only changed: yes → no")],
    ),
    "Xen's device model": (
        XEN, "on_crash", "device_model_override = '/tmp/qemu'\non_crash",
        [("critical", "setting added device_model_override: (none) → /tmp/qemu")],
    ),
    "a shared folder that comes": (
        VMWARE, 'annotation =',
        'sharedFolder1.present = "TRUE"\nsharedFolder1.hostPath = "/etc"\nannotation =',
        [("critical", "shared folder 2 added: path /etc, read-only yes")],
    ),
    "a TPM of VMware": (VMWARE, 'vtpm.present = "TRUE"', "", [("critical", "TPM: on → off")]),
    "VMware's isolation": (
        VMWARE, 'copy.disable = "TRUE"', 'copy.disable = "FALSE"',
        [("critical", "isolation.tools.copy.disable: TRUE → FALSE")],
    ),
    "an adapter of VirtualBox that is switched on": (
        VIRTUALBOX, 'slot="2" enabled="false"', 'slot="2" enabled="true"',
        [
            ("warning", "network adapter 3 added: MAC address 52:54:00:12:34:58, model virtio"),
            ("warning", "VirtualBox/Machine/Hardware/Network/Adapter[2]/@enabled: false → true"),
        ],
    ),
    "what goes past VirtualBox's settings": (
        VIRTUALBOX, "</ExtraData>", '<ExtraDataItem name="VBoxInternal/CPUM/x" value="1"/></ExtraData>',
        [("critical", "emulator arguments: (none) → VBoxInternal/CPUM/x=1")],
    ),
    "the network of an OVF's adapter": (
        OVF, "Connection>br0<", "Connection>dmz<",
        [("warning", "network adapter 2: network changed: br0 → dmz")],
    ),
    "Secure Boot of an OVF": (
        OVF, 'vmw:value="true"', 'vmw:value="false"', [("critical", "Secure Boot: on → off")],
    ),
    "a bridge of Korora's": (
        KORORA, 'bridge = "br0"', 'bridge = "br1"',
        [("warning", "network adapter 1: network changed: br0 → br1")],
    ),
    "memory of Korora's": (KORORA, '"2G"', '"3G"', [("warning", "memory: 2147483648 → 3221225472")]),
}  # fmt: skip


@pytest.mark.parametrize("change", SAID)
def test_a_change_is_told_in_words(change: str) -> None:
    text, old, new, expected = SAID[change]
    assert told(text, old, new) == expected


def xml_changes(text: str) -> Iterator[str]:
    """The document with one attribute or text changed, for each there is."""
    count = sum(
        len(node.attrib) + bool((node.text or "").strip()) for node in fromstring(text.encode()).iter()
    )
    for wanted in range(count):
        root, number = fromstring(text.encode()), 0
        for node in root.iter():
            for key in list(node.attrib):
                if number == wanted:
                    node.attrib[key] += "9"
                number += 1
            if (node.text or "").strip():
                if number == wanted:
                    node.text = f"{(node.text or '').strip()}9"
                number += 1
        yield tostring(root, encoding="unicode")


def line_changes(text: str) -> Iterator[str]:
    """Each value of each line."""
    for match in re.finditer(r"""(?<==)[^=,'"\[\]\n#;]+(?=[,'"\]\n;])|(?<=")[^"\n]+(?=")""", text):
        yield text[: match.end()] + "9" + text[match.end() :]


@pytest.mark.parametrize("format_", ConfigurationFormat)
def test_every_setting_that_changes_is_named_and_changes_the_digest(format_: ConfigurationFormat) -> None:
    text = SAMPLES[format_]
    before, number = read(text.encode()), 0
    for changed in xml_changes(text) if format_ in XML else line_changes(text):
        after = read(changed.encode(), format_)
        assert digest(after) != digest(before)
        if after.settings == before.settings:
            assert after.unparsed
            continue
        found = list(changes(before, after))
        assert found
        differing = {path for path, _ in before.settings.items() ^ after.settings.items()}
        named = {path for one in found for path in one.paths}
        other_roots = {one.root for one in before.components} ^ {one.root for one in after.components}
        assert all(path.startswith((*named, *other_roots)) for path in differing)
        number += 1
    assert number >= 15


def test_nothing_changed_in_the_same_file() -> None:
    for text in SAMPLES.values():
        assert between(text, text) == []


def test_a_removed_adapter_does_not_make_the_next_one_another() -> None:
    start, end = LIBVIRT.index("<interface type='user'>"), LIBVIRT.index("<interface type='bridge'>")
    found = between(LIBVIRT, LIBVIRT[:start] + LIBVIRT[end:])
    assert [words(one) for one in found] == [
        "network adapter 1 removed: NAT, MAC address 52:54:00:12:34:56, model virtio"
    ]


def test_adapters_that_change_places_are_told() -> None:
    start, middle = LIBVIRT.index("<interface type='user'>"), LIBVIRT.index("<interface type='bridge'>")
    end = LIBVIRT.index("<hostdev")
    swapped = LIBVIRT[:start] + LIBVIRT[middle:end] + LIBVIRT[start:middle] + LIBVIRT[end:]
    assert [words(one) for one in between(LIBVIRT, swapped)] == [
        "order of every network adapter: 1, 2 → 2, 1"
    ]


# -- after a move ------------------------------------------------------------------------------------------

MOVED = (
    ("id='7'", "id='12'"),
    ("/var/lib/images/web-1.qcow2", "/srv/vms/web-1.qcow2"),
    ("/usr/bin/qemu-system-x86_64", "/usr/libexec/qemu-kvm"),
    ("/var/lib/libvirt/qemu/nvram/", "/srv/nvram/"),
    ("vnet3", "vnet0"),
    ("virtio-disk0", "ua-1"),
    ("port='5901'", "port='5907'"),
)


def test_what_a_move_changes_is_expected_and_nothing_else() -> None:
    after = LIBVIRT
    for old, new in MOVED:
        assert old in after
        after = after.replace(old, new)
    found = between(LIBVIRT, after, moved=True)
    assert len(found) == len(MOVED)
    assert all(one.expected for one in found)
    assert not any(one.expected for one in between(LIBVIRT, after))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("6f1c2a34", "00000000"),
        ("type='qcow2'", "type='raw'"),
        ("secure='yes'", "secure='no'"),
        ("/boot/vmlinuz", "/boot/other"),
        ("br0", "br1"),
        ("52:54:00:12:34:56", "52:54:00:12:34:99"),
        ("/srv/share", "/srv/other"),
        ("value='-no-hpet'", "value='-s'"),
        ("OVMF_CODE_4M.ms.fd", "OVMF_CODE_4M.fd"),
        ("/iso/install.iso'/>", "/iso/install.iso'/><x/>"),
        ("listen='127.0.0.1'", "listen='0.0.0.0'"),
    ],
)
def test_what_no_move_changes_is_not_expected(old: str, new: str) -> None:
    assert old in LIBVIRT
    found = between(LIBVIRT, LIBVIRT.replace(old, new), moved=True)
    assert found
    assert not any(one.expected for one in found)


def test_addresses_and_bridges_may_change_if_that_is_said() -> None:
    after = LIBVIRT.replace("52:54:00:12:34:57", "52:54:00:00:00:01").replace("br0", "br1")
    found = between(LIBVIRT, after)
    assert len(found) == 2
    both = (Allowed.MAC, Allowed.BRIDGE)
    assert all(one.expected for one in between(LIBVIRT, after, allowed=both))
    assert [one.expected for one in between(LIBVIRT, after, allowed=(Allowed.MAC,))].count(True) == 1
    kind = LIBVIRT.replace("type='bridge'", "type='network'").replace("bridge='br0'", "network='br0'")
    assert not all(one.expected for one in between(LIBVIRT, kind, moved=True, allowed=both))


# -- between formats ---------------------------------------------------------------------------------------


def test_the_same_vm_in_two_formats_has_no_common_setting_that_differs() -> None:
    assert between(LIBVIRT, XEN) == []
    assert between(XEN, LIBVIRT) == []


def test_common_settings_are_compared_between_formats() -> None:
    after = XEN.replace("memory = 2048", "memory = 4096").replace("format=qcow2", "format=raw")
    after = after.replace("script=vif-nat,", "")
    assert [words(one) for one in between(LIBVIRT, after)] == [
        "memory: 2147483648 → 4294967296",
        "disk 1: format changed: qcow2 → raw",
        "network adapter 1: NAT → bridged",
    ]
    assert [words(one) for one in between(VMWARE, OVF.replace("byte * 2^20", "byte * 2^30"))] == [
        "memory: 2147483648 → 2199023255552",
        "disk 2: path changed: /iso/install.iso → install.iso",
        "disk 2: bus changed: sata → scsi",
    ]


def test_what_a_format_cannot_tell_is_not_said_to_be_gone() -> None:
    one_of_each = [words(one) for one in between(LIBVIRT, KORORA)]
    assert one_of_each == [
        "disk 2 removed: cdrom, path /iso/install.iso, format raw, bus sata, read-only yes",
        "network adapter 1 removed: NAT, MAC address 52:54:00:12:34:56, model virtio",
    ]


def test_no_difference_goes_without_a_change() -> None:
    start, end = LIBVIRT.index("<interface type='bridge'>"), LIBVIRT.index("<hostdev")
    elsewhere = LIBVIRT[:start] + LIBVIRT[end:]
    elsewhere = elsewhere.replace("</devices>", "</devices><devices>" + LIBVIRT[start:end] + "</devices>")
    found = between(LIBVIRT, elsewhere)
    assert [one.what for one in found] == ["the place of settings"]
    assert digest(read(elsewhere.encode())) != digest(read(LIBVIRT.encode()))
