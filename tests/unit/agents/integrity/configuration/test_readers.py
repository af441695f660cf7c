"""What each reader finds: the VM's parts in the formats' own words, and what it cannot read, by its place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.vm_configurations import KORORA, LIBVIRT, OVF, SAMPLES, UUID, VIRTUALBOX, VMWARE, XEN
from korora.agents.integrity.configuration.digest import digest
from korora.agents.integrity.configuration.readers.xl_grammar import Assignment, Atom, Broken, statements
from korora.agents.integrity.configuration.recognition import read
from korora.model.vm_settings import MAX_TEXT_BYTES, ConfigurationFormat, Field, Part, VmConfiguration


def of(text: str, declared: ConfigurationFormat | None = None) -> VmConfiguration:
    return read(text.encode(), declared)


def fact(text: str, field: Field, part: Part = Part.VM, number: int = 0) -> str | None:
    return list(of(text).of(part))[number].get(field)


@pytest.mark.parametrize("format_", ConfigurationFormat)
def test_the_sample_is_read_whole(format_: ConfigurationFormat) -> None:
    found = of(SAMPLES[format_])
    assert (found.format, found.unparsed, found.findings) == (format_, (), ())
    vm = next(found.of(Part.VM))
    silent = {ConfigurationFormat.XEN, ConfigurationFormat.VIRTUALBOX}
    expected = {
        Field.NAME: "web-1",
        Field.MEMORY: str(2 << 30),
        Field.CPUS: "2",
        Field.FIRMWARE: "uefi",
        Field.TPM: "on",
        Field.UUID: None if format_ is ConfigurationFormat.OVF else UUID,
        Field.SECURE_BOOT: None if format_ in silent else "on",
    }
    assert {field: vm.get(field) for field in expected} == expected
    if format_ is not ConfigurationFormat.KORORA:
        assert [disk.get(Field.READ_ONLY) for disk in found.of(Part.DISK)] == ["no", "yes"]
        macs = [nic.get(Field.MAC) for nic in found.of(Part.NIC)]
        assert macs == ["52:54:00:12:34:56", "52:54:00:12:34:57"]


NOT_READ = {
    "libvirt: memory": (LIBVIRT, "GiB'>2</memory>", "GiB'>lots</memory>", "domain/memory", "lots GiB"),
    "libvirt: a unit": (
        LIBVIRT, "unit='GiB'>2</memory>", "unit='pages'>2</memory>", "domain/memory", "2 pages",
    ),
    "libvirt: UUID": (LIBVIRT, UUID, "none", "domain/uuid", "none"),
    "libvirt: CPUs": (LIBVIRT, "static'>2<", "static'>-1<", "domain/vcpu", "-1"),
    "libvirt: MAC": (
        LIBVIRT, "52:54:00:12:34:56", "52:54", "domain/devices/interface/mac/@address", "52:54",
    ),
    "libvirt: Secure Boot": (LIBVIRT, "secure='yes'", "secure='maybe'", "domain/os/loader/@secure", "maybe"),
    "xen: a line": (XEN, "memory = 2048", "memory == 2048", "line 5", "memory == 2048"),
    "xen: an expression": (XEN, "memory = 2048", "memory = 2*1024", "line 5", "memory = 2*1024"),
    "xen: a call": (XEN, "vcpus = 2", "vcpus = len('ab')", "line 6", "vcpus = len('ab')"),
    "xen: a number": (XEN, "vcpus = 2", "vcpus = 'two'", "line 6", "two"),
    "xen: a disk": (XEN, "/iso/install.iso,,hdc,cdrom", "/iso/install.iso,iso,hdc", "line 11", None),
    "xen: firmware": (XEN, '"ovmf"', '"other"', "line 7", "other"),
    "vmware: a line": (VMWARE, 'numvcpus = "2"', 'numvcpus "2"', "line 9", 'numvcpus "2"'),
    "vmware: memory": (VMWARE, 'memsize = "2048"', 'memsize = "2G"', "line 8", "2G"),
    "vmware: a switch": (VMWARE, 'vtpm.present = "TRUE"', 'vtpm.present = "maybe"', "line 12", "maybe"),
    "vmware: twice": (
        VMWARE, 'numvcpus = "2"', 'numvcpus = "2"\nnumvcpus = "4"', "line 10", 'numvcpus = "4"',
    ),
    "vmware: an encoding": (VMWARE, '"UTF-8"', '"EBCDIC"', ".encoding", "ebcdic"),
    "vmware: encrypted": (VMWARE, "annotation", 'encryption.data = "x"\nannotation', "line 39", ""),
    "virtualbox: memory": (
        VIRTUALBOX, 'RAMSize="2048"', 'RAMSize="x"', "VirtualBox/Machine/Hardware/Memory/@RAMSize", "x",
    ),
    "virtualbox: firmware": (
        VIRTUALBOX, 'type="EFI"', 'type="COREBOOT"', "VirtualBox/Machine/Hardware/Firmware/@type", "COREBOOT",
    ),
    "virtualbox: memory twice": (
        VIRTUALBOX, "<Memory ", '<Memory RAMSize="1"/><Memory ', "VirtualBox/Machine/Hardware/Memory[2]", "",
    ),
    "ovf: a unit": (OVF, "byte * 2^20", "sheep", None, "sheep"),
    "korora: a key": (KORORA, "cpus = 2", "cpus = 2000", "cpus", "2000"),
    "korora: an unknown key": (KORORA, "cpus = 2", "cpus = 2\nvirus = 1", "the whole file", None),
    "korora: no TOML": (KORORA, "cpus = 2", "cpus = ", "the whole file", None),
}  # fmt: skip


@pytest.mark.parametrize("setting", NOT_READ)
def test_a_setting_that_cannot_be_read_is_told_and_the_rest_is_read(setting: str) -> None:
    text, old, new, place, said = NOT_READ[setting]
    assert old in text
    found = of(text.replace(old, new, 1))
    assert len(found.unparsed) >= 1
    if place is not None:
        assert found.unparsed[0].place == place
    if said is not None:
        assert found.unparsed[0].text == said
    assert found.unparsed[0].why
    assert digest(found) is None
    if "TOML" not in setting:
        assert len(found.settings) >= 10


def test_xml_that_breaks_off_is_read_up_to_there() -> None:
    found = of(LIBVIRT[: LIBVIRT.index("<features>")])
    assert found.settings["domain/os/kernel"] == "/boot/vmlinuz"
    assert next(found.of(Part.VM)).get(Field.SECURE_BOOT) == "on"
    assert "line" in found.unparsed[0].text
    assert digest(found) is None


def test_what_is_kept_of_an_unread_setting_is_bounded() -> None:
    found = of(XEN + "é" * 100_000 + " = 1\n")
    assert len(found.unparsed[-1].text.encode()) <= MAX_TEXT_BYTES
    found = of(XEN + "!\n" * 100_000)
    assert len(found.unparsed) == 1_001
    assert "more" in found.unparsed[-1].why


# -- names that come twice ---------------------------------------------------------------------------------


def test_of_a_name_that_comes_twice_xl_takes_the_last() -> None:
    found = of(XEN + "vcpus = 4\n")
    assert next(found.of(Part.VM)).get(Field.CPUS) == "4"
    assert [(one.severity, one.kind) for one in found.findings] == [("warning", "twice")]
    assert found.settings["vcpus#before"] == "2"
    assert digest(found) not in {None, digest(of(XEN)), digest(of(XEN.replace("vcpus = 2", "vcpus = 4")))}


def test_of_an_element_that_comes_twice_libvirt_takes_the_first() -> None:
    found = of(LIBVIRT.replace("</name>", "</name><name>other</name>"))
    assert next(found.of(Part.VM)).get(Field.NAME) == "web-1"
    assert found.settings["domain/name[2]"] == "other"
    assert [one.kind for one in found.findings] == ["twice"]


def test_two_devices_with_one_key_are_both_there_and_told() -> None:
    start, end = LIBVIRT.index("<disk"), LIBVIRT.index("</disk>") + len("</disk>")
    found = of(LIBVIRT[:end] + LIBVIRT[start:end].replace("web-1.qcow2", "evil.qcow2") + LIBVIRT[end:])
    paths = [disk.get(Field.PATH) for disk in found.of(Part.DISK)]
    assert paths[:2] == ["/var/lib/images/web-1.qcow2", "/var/lib/images/evil.qcow2"]
    assert [one.kind for one in found.findings] == ["twice"]


def test_a_key_that_comes_twice_with_one_value_is_only_told() -> None:
    found = of(VMWARE + 'NUMVCPUS = "2"\n')
    assert [one.kind for one in found.findings] == ["twice"]
    assert digest(found) is not None


# -- keys cannot look like other settings ------------------------------------------------------------------


@given(st.text(st.sampled_from("vda]/[@#%=."), min_size=1, max_size=12))
def test_a_key_cannot_look_like_another_path(key: str) -> None:
    from xml.sax.saxutils import quoteattr

    text = f"<domain><devices><disk><target dev={quoteattr(key)}/></disk></devices></domain>"
    settings = of(text).settings
    assert list(settings.values()) == [key]
    path = next(iter(settings))
    assert (path.count("/"), path.count("@"), path.count("["), path.count("#")) == (4, 1, 1, 0)


def test_elements_of_another_name_space_are_not_the_formats_own() -> None:
    plain = of(OVF).settings
    other = of(OVF.replace("<Name>web-1</Name>", '<x:Name xmlns:x="urn:x">web-1</x:Name>')).settings
    none = of(OVF.replace("<Name>web-1</Name>", '<Name xmlns="">web-1</Name>')).settings
    assert plain != other != none != plain


# -- xl's language -----------------------------------------------------------------------------------------


def only(text: str) -> Assignment:
    (found,) = statements(text)
    assert isinstance(found, Assignment)
    return found


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=1", Atom("1", number=True)),
        ("a = 0x1f # x", Atom("0x1f", number=True)),
        ("a = 'b\"c'", Atom('b"c')),
        (r'a = "\"\x41\101\n"', Atom('"AA\n')),
        ("a = []", []),
        ("a = [ 'b', \n # c\n 'd',\n ]", [Atom("b"), Atom("d")]),
        ("a = [[1,2],['b']]", [[Atom("1", number=True), Atom("2", number=True)], [Atom("b")]]),
        ("\n\n;;a=1;", Atom("1", number=True)),
    ],
)
def test_xls_values_are_read(text: str, value: object) -> None:
    assert only(text).value == value


@pytest.mark.parametrize(
    "text",
    [
        "A = 1", "a", "a =", "a = b", "a = 1 2", "a = [1", "a = [1 2]", "a = -1", "a = (1)", "a = 'b",
        "1 = 1", "a.b = 1", "import os", "a = [,]", r"a = '\q'", r"a = '\x4'", "a = {}", "a = None",
        "a = '1' + '2'",
        "a = " + "[" * 9 + "]" * 9,
    ],
)  # fmt: skip
def test_what_is_not_in_xls_language_is_broken(text: str) -> None:
    found = list(statements(text))
    assert any(isinstance(one, Broken) for one in found)
    assert not any(isinstance(one, Assignment) for one in found)


def test_a_line_that_begins_with_what_is_no_word_is_passed() -> None:
    found = list(statements("\n!\n+\na = 1\n"))
    assert [(type(one), one.line) for one in found] == [(Broken, 2), (Broken, 3), (Assignment, 4)]


def test_after_a_broken_line_the_next_is_read() -> None:
    found = list(statements("a = (\nb = 1\nc d\ne = 'x'\n"))
    assert [(type(one), one.line) for one in found] == [
        (Broken, 1), (Assignment, 2), (Broken, 3), (Assignment, 4),
    ]  # fmt: skip


@given(st.text(st.sampled_from("ab=[]'\",;\\x41\n #+"), max_size=60))
def test_every_line_is_read_or_told(text: str) -> None:
    for one in statements(text):
        assert 1 <= one.line <= text.count("\n") + 1


# -- facts that formats say in their own ways --------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "kind", "network"),
    [
        ("bridge=br1", "bridged", "br1"),
        ("script=vif-nat", "NAT", None),
        ("script=vif-route,mac=", "routed", None),
    ],
)
def test_an_adapter_of_xen_is_what_its_script_makes_it(spec: str, kind: str, network: str | None) -> None:
    text = f"name='a'\nvcpus=1\nvif=['{spec}']\n"
    assert fact(text, Field.KIND, Part.NIC) == kind
    assert fact(text, Field.NETWORK, Part.NIC) == network


def test_a_disk_of_xen_may_have_commas_in_its_last_word() -> None:
    text = "name='a'\nvcpus=1\ndisk=['vdev=xvda, target=/a,b=c, d']\n"
    assert fact(text, Field.PATH, Part.DISK) == "/a,b=c, d"


def test_a_disk_of_libvirt_on_the_network_has_a_path_too() -> None:
    text = LIBVIRT.replace(
        "<source file='/var/lib/images/web-1.qcow2'/>", "<source protocol='rbd' name='p/i'/>"
    )
    assert fact(text, Field.PATH, Part.DISK) == "rbd p/i"


def test_a_device_of_vmware_that_is_not_present_is_no_device() -> None:
    text = VMWARE.replace('ethernet1.present = "TRUE"', 'ethernet1.present = "FALSE"')
    assert len(list(of(text).of(Part.NIC))) == 1
    assert "ethernet1.connectiontype" in of(text).settings


def test_vmwares_text_is_read_in_the_encoding_it_names() -> None:
    text = VMWARE.replace("a |22shop|22", "caffè")
    utf8 = digest(read(text.encode()))
    latin = text.replace("UTF-8", "windows-1252").encode("cp1252")
    assert digest(read(latin)) == utf8 != digest(read(VMWARE.encode()))
    assert read(latin.replace(b"windows-1252", b"UTF-8")).unparsed[0].place == "the whole file"


def test_a_disk_of_virtualbox_has_the_path_of_its_medium() -> None:
    assert fact(VIRTUALBOX, Field.PATH, Part.DISK) == "web-1.vdi"
    assert fact(VIRTUALBOX, Field.FORMAT, Part.DISK) == "vdi"
    assert fact(VIRTUALBOX, Field.PATH, Part.DISK, 1) == "/iso/install.iso"


def test_a_machine_that_virtualbox_encrypted_cannot_be_read() -> None:
    text = '<VirtualBox xmlns="http://www.virtualbox.org/"><MachineEncrypted>AAAA</MachineEncrypted></VirtualBox>'
    assert digest(of(text)) is None


def test_of_several_systems_in_an_ovf_none_has_words() -> None:
    start, end = OVF.index("<VirtualSystem "), OVF.index("</Envelope>")
    both = OVF[:start] + "<VirtualSystemCollection>" + OVF[start:end]
    both += (
        OVF[start:end].replace('ovf:id="web-1"', 'ovf:id="web-2"') + "</VirtualSystemCollection></Envelope>"
    )
    found = of(both)
    assert found.components == ()
    assert [one.kind for one in found.findings] == ["systems"]
    assert digest(found) is not None


def test_defaults_of_kororas_definition_are_written_out() -> None:
    found = of('name = "a"\nmemory = "512M"\n')
    assert found.settings["machine"] == "q35"
    assert fact('name = "a"\nmemory = "512M"\n', Field.SECURE_BOOT) == "off"
