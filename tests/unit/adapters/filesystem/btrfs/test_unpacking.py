"""Compressed extents: what they hold, or OSError; never more than was stated."""

from __future__ import annotations

import random
import zlib

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from korora.adapters.filesystem.btrfs.unpacking import MAX_BYTES, unpacked

SECTOR = 4096
TEXT = b"".join(b"%d\n" % number for number in range(10_000))[:40_960]


def test_zlib_and_zstandard_give_what_was_packed() -> None:
    assert unpacked(zlib.compress(TEXT), 1, len(TEXT), SECTOR) == TEXT
    assert unpacked(zstd.compress(TEXT) + bytes(100), 3, len(TEXT), SECTOR) == TEXT


@pytest.mark.parametrize(("kind", "pack"), [(1, zlib.compress), (3, zstd.compress)])
def test_a_bomb_gives_what_was_stated_and_no_more(kind: int, pack: type[bytes]) -> None:
    assert unpacked(pack(bytes(100 << 20)), kind, SECTOR, SECTOR) == bytes(SECTOR)


def test_what_ends_before_the_last_sector_is_damaged() -> None:
    assert unpacked(zlib.compress(b"abc"), 1, SECTOR, SECTOR) == b"abc".ljust(SECTOR, b"\x00")
    with pytest.raises(OSError, match="breaks off"):
        unpacked(zlib.compress(b"abc"), 1, 2 * SECTOR, SECTOR)


@pytest.mark.parametrize(
    ("data", "kind", "size"),
    [(b"x", 0, 10), (b"x", 4, 10), (b"x", 1, MAX_BYTES + 1), (bytes(2 * MAX_BYTES), 1, 10)],
)
def test_what_cannot_be_is_refused(data: bytes, kind: int, size: int) -> None:
    with pytest.raises(OSError, match="compress"):
        unpacked(data, kind, size, SECTOR)


def test_a_distance_that_leads_before_the_segment_is_refused() -> None:
    with pytest.raises(OSError, match="damaged"):
        unpacked(b"\x0c\x00\x00\x00\x04\x00\x00\x00\x10nP\xb7", 2, 20324, SECTOR)


@given(
    data=st.binary(max_size=300), kind=st.integers(1, 3), size=st.integers(1, MAX_BYTES), head=st.booleans()
)
def test_noise_is_refused_or_gives_the_size_that_was_stated(
    data: bytes, kind: int, size: int, head: bool
) -> None:
    if head and kind == 2:
        segment = max(0, len(data) - 8)
        data = len(data).to_bytes(4, "little") + segment.to_bytes(4, "little") + data[8:]
    try:
        content = unpacked(data, kind, size, SECTOR)
    except OSError:
        return
    assert len(content) == size


def test_damaged_zstandard_is_refused_or_gives_the_size_that_was_stated() -> None:
    packed = zstd.compress(TEXT)
    chance = random.Random(0)
    for _ in range(300):
        bad = bytearray(packed)
        bad[chance.randrange(len(bad))] ^= 1 << chance.randrange(8)
        try:
            assert len(unpacked(bytes(bad), 3, len(TEXT), SECTOR)) == len(TEXT)
        except OSError as error:
            assert "extent" in str(error)
