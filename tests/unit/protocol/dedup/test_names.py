"""Names of parts are leaves of the content tree, and zeros have none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from korora.protocol import content_tree
from korora.protocol.dedup import names
from korora.protocol.dedup.names import UNIT_BYTES, ZEROS, Grain, is_zero, name_of, split, units

FILLED = bytes(range(1, 256)) * 17


@given(st.binary(max_size=3 * UNIT_BYTES))
def test_a_name_is_the_leaf(content: bytes) -> None:
    assert name_of(content) == name_of(memoryview(content)) == content_tree.leaf(content)


@pytest.mark.parametrize("length", [1, 511, UNIT_BYTES, UNIT_BYTES + 1, 1 << 20])
def test_zeros_are_known_by_looking(length: int) -> None:
    assert is_zero(bytes(length))
    assert is_zero(memoryview(bytearray(length)))
    assert not is_zero(bytes(length - 1) + b"\1")
    assert not is_zero(b"\1" + bytes(length - 1))


def test_the_names_of_zeros_are_those_of_both_grains() -> None:
    assert frozenset({name_of(bytes(grain)) for grain in Grain}) == ZEROS


@given(st.lists(st.sampled_from([bytes(UNIT_BYTES), FILLED[:UNIT_BYTES], FILLED[1 : UNIT_BYTES + 1]])))
def test_a_chunk_is_cut_into_units_with_names_where_they_are_not_zero(cut: list[bytes]) -> None:
    expected = [
        (number * UNIT_BYTES, name_of(unit) if unit.strip(b"\0") else None) for number, unit in enumerate(cut)
    ]
    assert list(units(b"".join(cut))) == expected


def test_a_last_unit_is_as_long_as_it_is() -> None:
    assert list(units(FILLED[:UNIT_BYTES] + b"end")) == [
        (0, name_of(FILLED[:UNIT_BYTES])),
        (UNIT_BYTES, name_of(b"end")),
    ]
    assert list(units(bytes(UNIT_BYTES + 3))) == [(0, None), (UNIT_BYTES, None)]


def test_names_that_stand_one_after_the_other_are_split() -> None:
    assert split(b"a" * 32 + b"b" * 32) == [b"a" * 32, b"b" * 32]
    assert split(b"") == []
    assert names.NAME_BYTES == 32
