"""What looks like a container is one only if its name says so as well."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from korora.agents.integrity.disks.recognition import looks_like, recognised
from korora.errors import UsageError
from korora.model.image import Format

VDI = bytes(64) + b"\x7f\x10\xda\xbe" + bytes(100)
HEADS = {
    Format.QCOW2: b"QFI\xfb" + bytes(100),
    Format.VMDK: b"KDMV" + bytes(100),
    Format.VDI: VDI,
    Format.VHDX: b"vhdxfile" + bytes(100),
    Format.VHD: b"conectix" + bytes(504),
    Format.RAW: bytes(512),
}
NAMES = {
    Format.QCOW2: "a.qcow2",
    Format.VMDK: "A.VMDK",
    Format.VDI: "a.vdi",
    Format.VHDX: "a.vhdx",
    Format.VHD: "a.vhd",
    Format.RAW: "a.img",
}


@pytest.mark.parametrize("seen", Format)
@pytest.mark.parametrize("named", Format)
def test_name_and_bytes_must_agree(seen: Format, named: Format) -> None:
    if seen is named:
        assert recognised(NAMES[named], HEADS[seen]) is seen
        return
    with pytest.raises(UsageError, match="looks like") as refused:
        recognised(NAMES[named], HEADS[seen])
    assert refused.value.kind == "format-unclear"
    assert f"--format {named}" in refused.value.remedy


@pytest.mark.parametrize("name", ["disk", "disk.bin", ".qcow2"])
def test_without_a_telling_name_only_a_raw_disk_is_recognised(name: str) -> None:
    assert recognised(name, HEADS[Format.RAW]) is Format.RAW
    for seen in set(Format) - {Format.RAW}:
        with pytest.raises(UsageError, match="a guest could have written that"):
            recognised(name, HEADS[seen])


def test_of_a_container_without_its_header_nobody_says_that_a_guest_wrote_it() -> None:
    with pytest.raises(UsageError, match="nothing that a qcow2 begins with is in it"):
        recognised("disk.qcow2", bytes(1024))


def test_a_vhd_of_fixed_size_is_known_by_its_footer() -> None:
    assert looks_like(bytes(1024), b"conectix" + bytes(504)) is Format.VHD
    assert looks_like(bytes(1024), bytes(8) + b"conectix" + bytes(496)) is Format.RAW


@pytest.mark.parametrize(
    "begin", [b"# Disk DescriptorFile", b"\xef\xbb\xbf# disk descriptorfile", b"\n # DISK DescriptorFile"]
)
def test_a_descriptor_is_a_vmdk(begin: bytes) -> None:
    assert looks_like(begin + b"\nversion=1\n") is Format.VMDK


@given(st.text(max_size=20), st.binary(max_size=1024), st.binary(max_size=512))
def test_noise_is_a_format_or_a_question(name: str, head: bytes, tail: bytes) -> None:
    try:
        assert recognised(name, head, tail) is looks_like(head, tail)
    except UsageError as refused:
        assert refused.kind == "format-unclear"
