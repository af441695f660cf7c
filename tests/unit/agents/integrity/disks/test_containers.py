"""What a container says of itself: other files, odd states, formats that a guest could have written."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from korora.agents.integrity.disks.containers import check_vmdk_header, judged, vmdk_extents
from korora.agents.integrity.disks.package import Claim, claims, disk_format
from korora.agents.integrity.disks.package import judged as judged_package
from korora.agents.integrity.disks.recognition import looks_like, recognised
from korora.errors import IntegrityError, UsageError
from korora.model.image import Format

PLAIN = {"virtual-size": 1024, "actual-size": 512, "format": "qcow2"}


def kinds(said: dict[str, Any], *allowed: str) -> list[tuple[str, str]]:
    return [(one.severity, one.kind) for one in judged(PLAIN | said, Format.QCOW2, allowed).findings]


def test_a_plain_image_has_no_finding() -> None:
    facts = judged(PLAIN, Format.QCOW2)
    assert (facts.findings, facts.virtual_size, facts.backing, facts.encrypted) == ((), 1024, None, False)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"backing-filename": "/etc/shadow", "backing-filename-format": "raw"}, [("critical", "backing")]),
        ({"backing-filename": "b"}, [("critical", "backing"), ("critical", "backing-format")]),
        (
            {"backing-filename": "json:{}", "backing-filename-format": "raw"},
            [("critical", "backing-elsewhere")],
        ),
        (
            {"backing-filename": "nbd://x/y", "backing-filename-format": "raw"},
            [("critical", "backing-elsewhere")],
        ),
        ({"format-specific": {"data": {"data-file": "/dev/sda"}}}, [("critical", "data-file")]),
        ({"format-specific": {"data": {"corrupt": True}}}, [("critical", "corrupt")]),
        ({"encrypted": True}, [("warning", "encrypted")]),
        ({"snapshots": [{"name": "a"}, {"name": "b"}]}, [("info", "snapshots")]),
        ({"virtual-size": 2**62}, [("critical", "size")]),
        ({"dirty-flag": True}, [("warning", "dirty")]),
    ],
)
def test_what_a_person_should_know_is_a_finding(
    said: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    assert kinds(said) == expected


def test_a_file_that_was_allowed_by_its_name_is_no_finding() -> None:
    said = {"backing-filename": "base.img", "backing-filename-format": "raw"}
    assert kinds(said, "base.img") == []
    assert kinds(said, "./base.img") == [("critical", "backing")]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from(["virtual-size", "snapshots", "format-specific", "backing-filename"]), JSON
    )
)
def test_no_description_breaks_it(said: dict[str, Any]) -> None:
    try:
        judged(said, Format.QCOW2)
    except IntegrityError as error:
        assert error.kind == "bad-image"


def test_a_sparse_vmdk_whose_header_has_no_size_leaves_it_to_a_descriptor_and_is_an_escape() -> None:
    sized = b"KDMV" + struct.pack("<IIQ", 1, 3, 2048)
    check_vmdk_header(sized)
    check_vmdk_header(b"anything")
    with pytest.raises(IntegrityError) as caught:
        check_vmdk_header(b"KDMV" + struct.pack("<IIQ", 1, 3, 0))
    assert caught.value.kind == "image-escape"


def test_the_parts_of_a_split_disk_lie_beside_it() -> None:
    text = b'# Disk DescriptorFile\nRW 4192256 SPARSE "disk-s001.vmdk"\nRW 2048 ZERO\n'
    text += b'RW 63 FLAT "disk-f001.vmdk" 0\n'
    assert vmdk_extents(text).files == ("disk-s001.vmdk", "disk-f001.vmdk")


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/b", "..", "nbd:x", "json:{}"])
def test_a_part_elsewhere_is_an_escape(name: str) -> None:
    with pytest.raises(IntegrityError) as caught:
        vmdk_extents(f'RW 63 FLAT "{name}" 0\n'.encode())
    assert caught.value.kind == "image-escape"


@given(st.binary(max_size=400))
def test_no_descriptor_breaks_it_or_leads_elsewhere(text: bytes) -> None:
    try:
        files = vmdk_extents(b'RW 1 FLAT "' + text).files
    except IntegrityError:
        return
    assert all("/" not in name for name in files)


@pytest.mark.parametrize(
    ("head", "which"),
    [
        (b"QFI\xfb\x00\x00\x00\x03", Format.QCOW2),
        (b"KDMV", Format.VMDK),
        (b"\xef\xbb\xbf# Disk DescriptorFile\n", Format.VMDK),
        (bytes(64) + b"\x7f\x10\xda\xbe", Format.VDI),
        (b"vhdxfile", Format.VHDX),
        (b"conectix", Format.VHD),
        (b"anything", Format.RAW),
        (b"", Format.RAW),
    ],
)
def test_a_format_is_known_by_its_bytes(head: bytes, which: Format) -> None:
    assert looks_like(head) is which


def test_a_name_and_bytes_that_agree_are_believed() -> None:
    assert recognised("a.qcow2", b"QFI\xfb") is Format.QCOW2
    assert recognised("a.img", b"boot") is Format.RAW
    assert recognised("disk", b"boot") is Format.RAW
    assert recognised("a.vhd", b"boot", b"conectix".ljust(512, b"\0")) is Format.VHD


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("a.raw", b"QFI\xfb"),
        ("a.img", b"KDMV"),
        ("disk", b"QFI\xfb"),
        ("a.qcow2", b"boot"),
        ("a.qcow2", b"KDMV"),
    ],
)
def test_where_they_do_not_a_person_is_asked(name: str, head: bytes) -> None:
    with pytest.raises(UsageError) as caught:
        recognised(name, head)
    assert caught.value.kind == "format-unclear"
    assert "--format" in caught.value.remedy


def test_a_manifest_is_read_line_by_line() -> None:
    text = b"SHA256(a.ovf)= AB\nSHA1 (b.vmdk) = cd\n\nnonsense\nSHA256(a.ovf)= ef\n"
    stated, findings = claims(text)
    assert stated == (Claim("a.ovf", "sha256", "ab"), Claim("b.vmdk", "sha1", "cd"))
    assert [one.severity for one in findings] == ["warning", "critical"]


def test_a_package_is_judged_against_its_manifest() -> None:
    stated = (Claim("a", "sha256", "aa"), Claim("b", "sha1", "bb"), Claim("c", "sha256", "cc"))
    found = list(judged_package(stated, ["a", "b", "d", "x.mf"], {"a": "aa", "b": "00"}))
    assert [(one.kind, one.severity) for one in found] == [
        ("changed", "critical"),
        ("weak-digest", "info"),
        ("missing", "critical"),
        ("unnamed", "warning"),
    ]
    assert [one.kind for one in judged_package((), ["a"], {})] == ["no-manifest"]
    assert (disk_format("a.vmdk"), disk_format("a.ovf")) == (Format.VMDK, None)


@given(st.binary(max_size=300))
def test_no_manifest_breaks_it(text: bytes) -> None:
    stated, findings = claims(text)
    assert len(stated) + len(findings) <= text.count(b"\n") + text.count(b"\r") + 300
