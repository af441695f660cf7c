"""A record comes back as it was, and a damaged one is refused as such."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from korora.agents.dataorg.popularity import Popularity
from korora.agents.dataorg.record import RECORD_MAX_BYTES, decoded, encoded
from korora.errors import IntegrityError

MIB = 1 << 20


def learnt(count: int = 5) -> Popularity:
    made = Popularity(64 * MIB, half_life_s=60)
    offsets = np.arange(count) * 3 * MIB
    made.add(123.5, 2.0, np.column_stack((offsets, np.full(count, 4096))), np.array([[MIB, 512]], np.int64))
    return made


def resealed(body: bytes) -> bytes:
    return body + blake3(body).digest()


def test_a_record_comes_back_as_it_was() -> None:
    before = learnt()
    after = decoded(encoded(before))
    assert (after.size, after.half_life_s, after.at, after.observed_s) == (64 * MIB, 60, 123.5, 2.0)
    for one, other in zip(before.counts(), after.counts(), strict=True):
        assert one.tolist() == other.tolist()
    assert after.hot(reads_per_s=0).tolist() == before.hot(reads_per_s=0).tolist()


def test_a_record_of_nothing_comes_back() -> None:
    assert len(decoded(encoded(Popularity(0)))) == 0


def test_it_takes_12_bytes_a_chunk() -> None:
    assert len(encoded(learnt(9))) - len(encoded(learnt(8))) == 12
    assert RECORD_MAX_BYTES < 6.1 * MIB


@given(st.data())
def test_one_wrong_bit_is_seen_wherever_it_is(data: st.DataObject) -> None:
    whole = bytearray(encoded(learnt()))
    bit = data.draw(st.integers(0, len(whole) * 8 - 1))
    whole[bit // 8] ^= 1 << bit % 8
    with pytest.raises(IntegrityError) as refused:
        decoded(bytes(whole))
    assert refused.value.kind == "damaged-heat"


@given(st.data())
def test_a_record_that_was_cut_short_is_refused(data: st.DataObject) -> None:
    whole = encoded(learnt())
    with pytest.raises(IntegrityError):
        decoded(whole[: data.draw(st.integers(0, len(whole) - 1))])


@given(st.binary(max_size=300))
def test_anything_else_is_refused(junk: bytes) -> None:
    with pytest.raises(IntegrityError):
        decoded(junk)


def test_another_version_is_refused_by_its_number() -> None:
    body = bytearray(encoded(learnt())[:-32])
    body[7] = 9
    with pytest.raises(IntegrityError, match="version 9"):
        decoded(resealed(bytes(body)))


HEAD = struct.Struct("<7sBQdddI")


@pytest.mark.parametrize(
    ("head", "chunks", "reads"),
    [
        ((4 * MIB, 60.0, 1.0, 1.0), (0, 4), (1.0, 1.0)),
        ((4 * MIB, 60.0, 1.0, 1.0), (2, 1), (1.0, 1.0)),
        ((4 * MIB, 60.0, 1.0, 1.0), (1, 1), (1.0, 1.0)),
        ((4 * MIB, 60.0, 1.0, 1.0), (0, 1), (-1.0, 1.0)),
        ((4 * MIB, 60.0, 1.0, 1.0), (0, 1), (float("nan"), 1.0)),
        ((4 * MIB, 0.0, 1.0, 1.0), (0, 1), (1.0, 1.0)),
        ((4 * MIB, 60.0, float("inf"), 1.0), (0, 1), (1.0, 1.0)),
        ((4 * MIB, 60.0, 1.0, -1.0), (0, 1), (1.0, 1.0)),
    ],
)
def test_what_no_disk_could_have_is_refused_though_its_digest_fits(
    head: tuple[int, float, float, float], chunks: tuple[int, int], reads: tuple[float, float]
) -> None:
    body = HEAD.pack(b"KORHEAT", 1, *head, 2) + struct.pack("<2I2f2f", *chunks, *reads, 0.0, 0.0)
    with pytest.raises(IntegrityError) as refused:
        decoded(resealed(body))
    assert refused.value.kind == "damaged-heat"
