"""Files as real hosts export them: one digest in every spelling, each change as grave as it is."""

from __future__ import annotations

import re

import pytest

from fakes.exported_configurations import LIBVIRT, OVF, OVF_2, VBOX, VMX, XL, XL_IN_OTHER_WORDS
from korora.agents.integrity.configuration.comparing import changes
from korora.agents.integrity.configuration.digest import digest
from korora.agents.integrity.configuration.recognition import read
from korora.model.vm_settings import ConfigurationFormat, VmConfiguration

BOM = b"\xef\xbb\xbf"


def root(data: bytes) -> str:
    found = read(data)
    assert found.unparsed == ()
    assert not any(finding.severity == "critical" for finding in found.findings)
    return str(digest(found))


def told(before: str, *edits: tuple[str, str], moved: bool = False) -> set[tuple[str, str]]:
    """(severity, what) of each change; "expected" where a move explains it."""
    after = before
    for old, new in edits:
        assert old in after, old
        after = after.replace(old, new)
    return {
        ("expected" if change.expected else change.severity, change.what)
        for change in changes(parsed(before), parsed(after), moved=moved)
    }


def parsed(text: str) -> VmConfiguration:
    return read(text.encode(encoding_of(text)))


def encoding_of(text: str) -> str:
    return "cp1252" if "windows-1252" in text else "utf-8"


@pytest.mark.parametrize("text", [VMX, LIBVIRT, XL, VBOX, OVF, OVF_2])
def test_lines_of_windows_and_a_byte_order_mark_change_nothing(text: str) -> None:
    whole = root(text.encode(encoding_of(text)))
    assert root(text.replace("\n", "\r\n").encode(encoding_of(text))) == whole
    in_utf8 = text.replace("windows-1252", "utf-8")
    assert root(BOM + in_utf8.encode()) == whole
    assert root(BOM + in_utf8.replace("\n", "\r\n").encode()) == whole


@pytest.mark.parametrize("text", [LIBVIRT, VBOX, OVF, OVF_2])
def test_xml_in_utf_16_and_with_other_quotes_is_the_same(text: str) -> None:
    said = re.sub(r"^<\?xml[^>]*\?>\s*", "", text)
    assert root(said.encode("utf-16")) == root(text.encode(encoding_of(text)))
    other = {"'": '"', '"': "'"}
    quoted = re.sub(
        r"""=(["'])([^"'<]*)\1""", lambda said: f"={other[said[1]]}{said[2]}{other[said[1]]}", text
    )
    assert quoted != text
    assert root(quoted.encode(encoding_of(text))) == root(text.encode(encoding_of(text)))


def test_other_prefixes_for_the_same_name_spaces_are_the_same() -> None:
    for text, prefix in ((LIBVIRT, "qemu"), (OVF, "vmw"), (OVF, "rasd"), (OVF_2, "epasd"), (OVF_2, "vbox")):
        other = text.replace(f"{prefix}:", "q:").replace(f"xmlns:{prefix}=", "xmlns:q=")
        assert root(other.encode(encoding_of(text))) == root(text.encode(encoding_of(text)))


def test_a_vmx_in_another_order_case_and_encoding_is_the_same() -> None:
    first, encoding, *lines = VMX.splitlines()
    turned = [re.sub(r"^\S+", lambda key: key[0].swapcase(), line) for line in reversed(lines)]
    turned = [line.replace('"TRUE"', '"true"') for line in turned]
    assert "windows-1252" in encoding
    assert root("\n".join([first, *turned]).encode()) == root(VMX.encode("cp1252"))


def test_a_key_of_a_vmx_that_comes_again_is_warned_of_and_unknown_if_it_says_something_else() -> None:
    again = read(VMX.encode("cp1252") + b'MEMSIZE = "4096"\r\n')
    assert [finding.kind for finding in again.findings] == ["twice"]
    assert again.unparsed == ()
    other = read(VMX.encode("cp1252") + b'MemSize = "8192"\r\n')
    assert [one.text for one in other.unparsed] == ['memsize = "8192"']


def test_an_xl_file_with_the_old_disks_and_with_keys_is_the_same_but_for_who_serves_the_disk() -> None:
    (change,) = changes(read(XL.encode()), read(XL_IN_OTHER_WORDS.encode()))
    assert (change.what, change.after, change.severity) == ("disk[xvda]/backendtype", "phy", "warning")


def test_what_only_python_understands_in_an_xl_file_is_unknown_and_the_rest_is_read() -> None:
    for line in ("memory = 4096 * 2", "vcpus = int(4)", "name = 'a' + 'b'", "x = {'a': 1}", "y = (1, 2)"):
        found = read((XL + line + "\n").encode(), ConfigurationFormat.XEN)
        assert found.unparsed, line
        assert found.settings["name"] in {"web", "a"}


def test_a_frame_buffer_of_xen_is_a_display_and_its_password_is_not_shown() -> None:
    found = told(XL, ("vnclisten=127.0.0.1,vncpasswd=secret,", "vnclisten=0.0.0.0,"))
    assert {severity for severity, _ in found} == {"critical"}
    for change in changes(read(XL.encode()), read(XL.replace("passwd=secret", "passwd=other").encode())):
        assert "secret" not in f"{change.before}{change.after}"
        assert "other" not in f"{change.before}{change.after}"


def test_tampering_with_a_libvirt_domain_is_as_grave_as_it_is() -> None:
    graves = (
        (("ivshmem-plain", "vfio-pci"), "critical"),
        (("type='qcow2' discard", "type='raw' discard"), "critical"),
        (("<format type='qcow2'/>", "<format type='raw'/>"), "critical"),
        (("secure='yes'", "secure='no'"), "critical"),
        (("enabled='yes' name='secure-boot'", "enabled='no' name='secure-boot'"), "critical"),
        (("listen='127.0.0.1'", "listen='0.0.0.0'"), "critical"),
        (("bus='0x3b'", "bus='0x3c'"), "critical"),
        (("<boot dev='hd'/>", "<boot dev='network'/>"), "warning"),
        (("debian.org/debian/12", "debian.org/debian/13"), "info"),
        (("<nova:memory>4096", "<nova:memory>1"), "info"),
    )  # fmt: skip
    for edit, grave in graves:
        assert grave in {severity for severity, _ in told(LIBVIRT, edit)}, edit


def test_a_libvirt_domain_that_runs_elsewhere_now_has_changed_as_expected_only() -> None:
    edits = (
        ("<domain type='kvm'", "<domain type='kvm' id='7'"), ("vnet3", "vnet9"), ("/dev/pts/3", "/dev/pts/9"),
        ("port='5903'", "port='5911'"), ("domain-3-web", "domain-7-web"), ("libvirt-4dea", "libvirt-9999"),
        ("portid='d1'", "portid='d2'"), ("/var/lib/libvirt/images", "/srv/images"),
        ("/srv/base", "/data/base"), ("state='connected'", "state='disconnected'"),
    )  # fmt: skip
    found = told(LIBVIRT, *edits, moved=True)
    assert {severity for severity, _ in found} == {"expected"}
    assert len(found) >= len(edits)


def test_a_virtualbox_machine_on_another_host_has_changed_as_expected_only() -> None:
    edits = (
        ("10,10,800", "20,20,800"), ("2024-02-01", "2025-02-01"), ('"win.vdi"', '"D:/win.vdi"'),
        ("1.19-windows", "1.19-linux"), ("DirectSound", "ALSA"),
        ('"7.0" timestamp="2"', '"7.0" timestamp="9"'),
    )  # fmt: skip
    assert {severity for severity, _ in told(VBOX, *edits, moved=True)} == {"expected"}
    grave = told(VBOX, ('Clipboard mode="Disabled"', 'Clipboard mode="Bidirectional"'), moved=True)
    assert {severity for severity, _ in grave} == {"critical"}


def test_storage_and_adapters_of_ovf_2_have_words() -> None:
    found = parsed(OVF_2)
    assert sorted(str(one.part) for one in found.components) == sorted(
        str(one.part) for one in parsed(OVF).components
    )
    nets = told(OVF_2, ("NAT", "Guest Net"))
    assert any("network adapter 1" in what for _, what in nets)
    disks = told(OVF_2, ("deb-disk1", "deb-disk2"))
    assert any("disk 1" in what for _, what in disks)


def test_what_virtualbox_reads_of_an_ovf_beside_the_standard_is_as_grave_as_in_its_own_file() -> None:
    inner = '<ExtraData><ExtraDataItem name="VBoxInternal/x" value="1"/></ExtraData>'
    shared = '<SharedFolders><SharedFolder name="c" hostPath="/"/></SharedFolders>'
    for more in (inner, shared):
        found = told(OVF_2, ('<Memory RAMSize="1024"/>', f'<Memory RAMSize="1024"/>{more}'))
        assert {severity for severity, _ in found} == {"critical"}
    assert told(OVF_2, ("2022-01-01", "2023-01-01"), moved=True) == {
        ("expected", "Envelope/VirtualSystem[deb]/vbox:Machine/@lastStateChange")
    }
