"""An image that names another file, in whatever way, is not to be read until that very file was allowed."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from korora.agents.integrity.disks.containers import check_vmdk_header, judged, vmdk_extents
from korora.errors import IntegrityError
from korora.model.image import Format, is_plain

PLAIN: dict[str, Any] = {"virtual-size": 1024, "actual-size": 512, "format": "qcow2"}


def kinds(said: dict[str, Any], *allowed: str) -> list[tuple[str, str]]:
    return [(one.severity, one.kind) for one in judged(PLAIN | said, Format.QCOW2, allowed).findings]


def special(**data: Any) -> dict[str, Any]:
    return {"format-specific": {"type": "qcow2", "data": data}}


def test_a_plain_image_has_no_finding() -> None:
    assert kinds({}) == []


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"backing-filename": "/etc/shadow", "backing-filename-format": "raw"}, ("critical", "backing")),
        ({"backing-filename": "b", "backing-filename-format": "raw"}, ("critical", "backing")),
        (
            {"backing-filename": "nbd://h/x", "backing-filename-format": "raw"},
            ("critical", "backing-elsewhere"),
        ),
        (
            {"backing-filename": "json:{}", "backing-filename-format": "raw"},
            ("critical", "backing-elsewhere"),
        ),
        ({"backing-filename": "File:x", "backing-filename-format": "raw"}, ("critical", "backing-elsewhere")),
        ({"backing-filename": "b"}, ("critical", "backing-format")),
        ({"backing-filename": "b", "backing-filename-format": "qed"}, ("critical", "backing-format")),
        (special(**{"data-file": "/dev/sda"}), ("critical", "data-file")),
        (special(**{"data-file": "json:{}"}), ("critical", "data-file-elsewhere")),
        (special(corrupt=True), ("critical", "corrupt")),
        ({"dirty-flag": True}, ("warning", "dirty")),
        ({"encrypted": True}, ("warning", "encrypted")),
        ({"snapshots": [{"name": "a"}, {"name": "b"}]}, ("info", "snapshots")),
        ({"virtual-size": 2**50 + 1}, ("critical", "size")),
        ({"virtual-size": 2**62}, ("critical", "size")),
    ],
)
def test_what_a_person_should_know_is_a_finding(said: dict[str, Any], expected: tuple[str, str]) -> None:
    assert expected in kinds(said)


def test_a_file_that_was_allowed_is_no_finding_and_another_still_is() -> None:
    said = {"backing-filename": "b", "backing-filename-format": "raw"} | special(**{"data-file": "d"})
    assert kinds(said, "b", "d") == []
    assert kinds(said, "b") == [("critical", "data-file")]
    assert kinds(said, "./b", "D") == [("critical", "backing"), ("critical", "data-file")]


@pytest.mark.parametrize("name", ["json:{}", "nbd:h:1", "ssh://h/x"])
def test_a_name_that_is_no_plain_file_cannot_be_allowed(name: str) -> None:
    assert ("critical", "backing-elsewhere") in kinds(
        {"backing-filename": name, "backing-filename-format": "raw"}, name
    )


def test_encryption_and_snapshots_are_facts() -> None:
    facts = judged(PLAIN | {"encrypted": True, "snapshots": [{"name": "before"}]}, Format.QCOW2)
    assert (facts.encrypted, facts.snapshots, facts.critical) == (True, ("before",), ())


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = [
    "virtual-size", "actual-size", "backing-filename", "backing-filename-format", "snapshots", "encrypted",
    "format-specific", "dirty-flag",
]  # fmt: skip


@given(st.dictionaries(st.sampled_from(KEYS), json_like, max_size=4))
def test_a_description_of_another_shape_is_refused_or_judged(said: dict[str, Any]) -> None:
    try:
        facts = judged(PLAIN | said, Format.QCOW2)
    except IntegrityError as refused:
        assert refused.kind == "bad-image"
        return
    assert isinstance(facts.virtual_size, int)
    assert facts.backing is None or facts.critical


# -- VMDK --------------------------------------------------------------------------------------------------


def descriptor(*lines: str) -> bytes:
    return "\n".join(["# Disk DescriptorFile", "version=1", *lines, ""]).encode()


def test_parts_are_named_in_their_order_once() -> None:
    text = descriptor(
        'RW 4 SPARSE "b.vmdk"', 'rdonly 4 FLAT "a b.vmdk" 0', 'RW 4 SPARSE "b.vmdk"', "RW 4 ZERO"
    )
    assert vmdk_extents(text).files == ("b.vmdk", "a b.vmdk")


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../x", "a/b", "x/", "./x", ".", "..", "nbd:x", "json:{}", "file:x", "a\0b", ".image"],
)
def test_a_part_that_does_not_lie_beside_it_is_an_escape(name: str) -> None:
    with pytest.raises(IntegrityError) as refused:
        vmdk_extents(descriptor(f'RW 4 FLAT "{name}" 0'))
    assert refused.value.kind == "image-escape"


@pytest.mark.parametrize(
    "entry",
    [
        'RW\n4\nFLAT\n"/etc/passwd" 0',
        '\tRW  4  FLAT  "/etc/passwd',
        'RW 4 FLAT"/etc/passwd"',
        'RW +4 FLAT "/etc/passwd"',
        'RW -4 FLAT "/etc/passwd"',
        'RW 4 seSparse9 "/etc/passwd"',
        'RW\x0b4\x0cFLAT\r"/etc/passwd"',
    ],
)
def test_an_entry_is_understood_however_qemu_would_read_it(entry: str) -> None:
    with pytest.raises(IntegrityError, match="/etc/passwd"):
        vmdk_extents(descriptor(entry))


def test_too_many_parts_are_refused() -> None:
    with pytest.raises(IntegrityError, match="more than"):
        vmdk_extents(descriptor(*(f'RW 1 FLAT "p{number}"' for number in range(10_001))))


@given(
    st.lists(
        st.sampled_from(["RW", " ", "\n", "1", "FLAT", '"', "/x", "..", "a", "\r", "\0", "\udcff"]),
        max_size=40,
    )
)
def test_parts_of_noise_are_plain_names(words: list[str]) -> None:
    try:
        found = vmdk_extents("".join(words).encode("utf-8", "surrogateescape")).files
    except IntegrityError as refused:
        assert refused.kind == "image-escape"
        return
    assert all(is_plain(name) for name in found)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_descriptor_with_plain_names_or_refused(text: bytes) -> None:
    try:
        assert all(is_plain(name) for name in vmdk_extents(text).files)
    except IntegrityError as refused:
        assert refused.kind == "image-escape"


def test_a_sparse_image_that_leaves_its_size_to_a_descriptor_inside_is_an_escape() -> None:
    check_vmdk_header(struct.pack("<4sIIQ", b"KDMV", 1, 3, 2048))
    with pytest.raises(IntegrityError) as refused:
        check_vmdk_header(struct.pack("<4sIIQ", b"KDMV", 1, 3, 0) + bytes(492))
    assert refused.value.kind == "image-escape"


@given(st.binary(max_size=40))
def test_any_head_is_passed_or_an_escape(head: bytes) -> None:
    for begin in (head, b"KDMV" + head):
        try:
            check_vmdk_header(begin)
        except IntegrityError as refused:
            assert begin[12:20] == bytes(8)
            assert refused.kind == "image-escape"
