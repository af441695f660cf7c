"""One digest for a configuration: order and spelling do not count, every setting does."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from xml.etree.ElementTree import Element

import pytest
from blake3 import blake3
from defusedxml.ElementTree import fromstring, tostring
from hypothesis import given
from hypothesis import strategies as st

from fakes.vm_configurations import KORORA, LIBVIRT, OVF, SAMPLES, VIRTUALBOX, VMWARE, XEN
from korora.agents.integrity.configuration.digest import digest
from korora.agents.integrity.configuration.recognition import read
from korora.model.vm_settings import ConfigurationFormat, Unparsed, VmConfiguration

PAGE = Path(__file__).parents[5] / "docs" / "CONFIGURATION.md"


def of(text: str) -> str:
    found = digest(read(text.encode()))
    assert found is not None
    return found


@given(st.dictionaries(st.text(), st.text()), st.sampled_from(ConfigurationFormat))
def test_it_is_what_its_definition_says(settings: dict[str, str], format_: ConfigurationFormat) -> None:
    told = {"format": format_.value, "settings": settings}
    said = json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    expected = blake3(said, derive_key_context="Korora 2026 configuration: VM").hexdigest()
    assert digest(VmConfiguration(format_, settings, ())) == f"blake3:{expected}"


def test_the_vectors_of_the_documentation_hold() -> None:
    rows = re.findall(r"^\| (.+?) \| `(\{.+\})` \| `([0-9a-f]{64})` \|$", PAGE.read_text(), re.MULTILINE)
    assert len(rows) == 4
    for lines, canonical, expected in rows:
        text = "\n".join(re.findall("`([^`]+)`", lines)) + "\n"
        configuration = read(text.encode())
        told = {"format": configuration.format, "settings": dict(configuration.settings)}
        assert json.loads(canonical) == told
        assert of(text) == f"blake3:{expected}"


def test_what_could_not_be_read_makes_it_unknown() -> None:
    unread = (Unparsed("line 1", "x", "is nothing"),)
    assert digest(VmConfiguration(ConfigurationFormat.XEN, {"a": "b"}, (), unread)) is None


RESPELT: dict[str, tuple[str, str, str]] = {
    "libvirt: a unit": (LIBVIRT, "<memory unit='GiB'>2<", "<memory unit='k'>2097152<"),
    "libvirt: the usual unit": (LIBVIRT, "<memory unit='GiB'>2<", "<memory>2097152<"),
    "libvirt: quotes": (LIBVIRT, "type='pflash'", 'type="pflash"'),
    "libvirt: order of attributes": (LIBVIRT, "dev='vda' bus='virtio'", "bus='virtio'   dev='vda'"),
    "libvirt: a comment": (LIBVIRT, "<devices>", "<devices><!-- a <disk/> -->"),
    "libvirt: white space": (LIBVIRT, "<name>web-1</name>", "<name>\n web-1\t</name>"),
    "libvirt: a prefix": (
        LIBVIRT.replace("xmlns:qemu", "xmlns:q"),
        "qemu:commandline><qemu:arg value='-no-hpet'/></qemu:",
        "q:commandline><q:arg value='-no-hpet'/></q:",
    ),
    "libvirt: a number": (LIBVIRT, "static'>2<", "static'>02<"),
    "libvirt: a MAC address": (LIBVIRT, "52:54:00:12:34:56", "52-54-00-12-34-56"),
    "libvirt: CDATA": (LIBVIRT, "root=/dev/vda1 ro quiet", "<![CDATA[root=/dev/vda1 ro quiet]]>"),
    "libvirt: an empty element": (LIBVIRT, "<readonly/>", "<readonly></readonly>"),
    "xen: a number": (XEN, "memory = 2048", "memory=0x800"),
    "xen: a number as a string": (XEN, "memory = 2048", "memory='2048'"),
    "xen: quotes": (XEN, "'/boot/initrd.img'", '"/boot/initrd.img"'),
    "xen: an escape": (XEN, "'/boot/initrd.img'", r"'/boot/\x69nitrd.img'"),
    "xen: one line for two": (XEN, "vnc = 1; vnclisten", "vnc = 1 # on\nvnclisten"),
    "xen: words of a disk by place": (
        XEN,
        "format=qcow2, vdev=xvda, access=rw, target=/var/lib/images/web-1.qcow2",
        "/var/lib/images/web-1.qcow2,qcow2,xvda,w",
    ),
    "xen: an old prefix": (XEN, "/iso/install.iso,,hdc,cdrom", "file:/iso/install.iso,hdc:cdrom,r"),
    "xen: added to": (XEN, '"root=/dev/vda1 ro quiet"', '"root=/dev/vda1 "\ncmdline += "ro quiet"'),
    "xen: order of an adapter's words": (
        XEN,
        "bridge=br0,mac=52:54:00:12:34:57",
        "mac=52:54:00:12:34:57, bridge=br0",
    ),
    "vmware: capitals": (VMWARE, 'displayName = "web-1"', 'DISPLAYNAME="web-1"'),
    "vmware: TRUE": (VMWARE, 'vtpm.present = "TRUE"', 'vtpm.present = "true"'),
    "vmware: without quotes": (VMWARE, 'numvcpus = "2"', "numvcpus = 2"),
    "vmware: a comment": (VMWARE, "memsize", "# memsize\n\nmemsize"),
    "vmware: an escape": (VMWARE, "web-1.vmdk", "web|2D1.vmdk"),
    "vmware: a number": (VMWARE, 'memsize = "2048"', 'memsize = "02048"'),
    "vmware: the encoding": (VMWARE, '.encoding = "UTF-8"\n', '.encoding = "windows-1252"\n'),
    "virtualbox: a MAC address": (VIRTUALBOX, "525400123456", "52:54:00:12:34:56"),
    "virtualbox: a UUID's braces": (
        VIRTUALBOX,
        'uuid="{6f1c2a34-9d0e-4b7a-8c55-0123456789ab}"',
        'uuid="6F1C2A349D0E4B7A8C550123456789AB"',
    ),
    "ovf: a unit": (
        OVF,
        "byte * 2^20</rasd:AllocationUnits><rasd:InstanceID>2</rasd:InstanceID>",
        "MegaBytes</rasd:AllocationUnits><rasd:InstanceID>2</rasd:InstanceID>",
    ),
    "korora: a size": (KORORA, '"2G"', "2147483648"),
    "korora: a default": (KORORA, "cpus = 2", 'cpus = 2\nmachine = "q35"'),
}


@pytest.mark.parametrize("spelling", RESPELT)
def test_a_spelling_does_not_count(spelling: str) -> None:
    text, old, new = RESPELT[spelling]
    assert old in text
    assert new not in text
    assert of(text.replace(old, new)) == of(
        text if "prefix" not in spelling or "xen" in spelling else LIBVIRT
    )


def _lines(text: str, shuffle: Callable[[list[str]], None]) -> str:
    """Every line is a setting of its own."""
    lines = text.splitlines()
    shuffle(lines)
    return "\n".join(lines)


def _statements(text: str, shuffle: Callable[[list[str]], None]) -> str:
    """A list's lines stay together."""
    pieces = re.findall(
        r"^[a-z].*?(?:\[[^]]*\])?.*?$|^#.*$", text.replace(",\n", ",").replace("[\n", "["), re.MULTILINE
    )
    shuffle(pieces)
    return "\n".join(pieces)


def _elements(text: str, shuffle: Callable[[list[str]], None]) -> str:
    """Elements of different names change places at every level; those of one name keep theirs."""

    def mix(node: Element) -> None:
        names = list(dict.fromkeys(child.tag for child in node))
        shuffle(names)
        node[:] = [child for name in names for child in node if child.tag == name]
        keys = list(node.attrib)
        shuffle(keys)
        values = dict(node.attrib)
        node.attrib.clear()
        node.attrib.update({key: values[key] for key in keys})
        for child in node:
            mix(child)

    root = fromstring(text.encode())
    mix(root)
    return str(tostring(root, encoding="unicode"))


SHUFFLES = {
    ConfigurationFormat.LIBVIRT: _elements,
    ConfigurationFormat.VIRTUALBOX: _elements,
    ConfigurationFormat.OVF: _elements,
    ConfigurationFormat.VMWARE: _lines,
    ConfigurationFormat.XEN: _statements,
}


@given(st.sampled_from(sorted(SHUFFLES)), st.integers())
def test_the_order_does_not_count(format_: ConfigurationFormat, seed: int) -> None:
    text = SAMPLES[format_]
    shuffled = SHUFFLES[format_](text, random.Random(seed).shuffle)
    assert of(shuffled) == of(text)


@given(st.randoms())
def test_elements_with_a_key_may_stand_in_any_order(random_: random.Random) -> None:
    items = [f"<Adapter slot='{slot}' enabled='false'/>" for slot in range(5)]
    space = "xmlns='http://www.virtualbox.org/'"
    frame = (
        "<VirtualBox {}><Machine name='a'><Hardware><Network>{}</Network></Hardware></Machine></VirtualBox>"
    )
    ordered = of(frame.format(space, "".join(items)))
    random_.shuffle(items)
    assert of(frame.format(space, "".join(items))) == ordered


def test_the_order_of_adapters_without_a_key_counts() -> None:
    first, second = "52:54:00:12:34:56", "52:54:00:12:34:57"
    swapped = LIBVIRT.replace(first, "FIRST").replace(second, first).replace("FIRST", second)
    assert of(swapped) != of(LIBVIRT)
