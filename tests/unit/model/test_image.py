"""Names of one folder, and the record of an image: read back as written, and nothing else is read."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from korora.errors import UsageError
from korora.model import image_record
from korora.model.image import is_plain
from korora.model.image_record import DiskRecord, ImageRecord

ROOT = "blake3:" + "0" * 64
RECORD = ImageRecord(
    image="vm.ova", root=ROOT, disks=(DiskRecord(name="a.vmdk", format="vmdk", size=2**63 - 1, root=ROOT),)
)


@pytest.mark.parametrize("name", ["disk.vmdk", "a b", "..vmdk", "-o", "größe.img", "a\\b"])
def test_a_plain_name_is_of_the_same_folder(name: str) -> None:
    assert is_plain(name)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "x/", "./x", "/x", "a/b", "../x", "x\0", "//", "x/.", "n" * 256]
)
def test_what_could_lie_elsewhere_or_nowhere_is_no_plain_name(name: str) -> None:
    assert not is_plain(name)


def test_a_record_is_read_back_as_it_was_written() -> None:
    assert image_record.read(msgspec.json.encode(RECORD)) == RECORD


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"\xff",
        b'{"version":1}',
        b'{"a":' + b"[" * 100_000,
        msgspec.json.encode(RECORD).replace(b'"version":1', b'"version":2'),
        msgspec.json.encode(RECORD).replace(b"korora-image", b"korora-other"),
        msgspec.json.encode(RECORD).replace(str(2**63 - 1).encode(), b"-1"),
        msgspec.json.encode(RECORD).replace(str(2**63 - 1).encode(), str(2**63).encode()),
        msgspec.json.encode(RECORD).replace(ROOT.encode(), b"blake3:no root"),
    ],
)
def test_what_is_no_record_is_refused(text: bytes) -> None:
    with pytest.raises(UsageError) as refused:
        image_record.read(text)
    assert refused.value.kind == "bad-record"


@given(st.binary(max_size=200), st.integers(0, 300))
def test_noise_in_a_record_is_a_record_or_refused(noise: bytes, at: int) -> None:
    text = msgspec.json.encode(RECORD)
    try:
        assert isinstance(image_record.read(text[:at] + noise + text[at + len(noise) :]), ImageRecord)
    except UsageError as refused:
        assert refused.kind == "bad-record"
