"""Where two contents of a disk differ: by the leaves of chunks, then by hashes of blocks."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from korora.agents.dataorg import comparing
from korora.agents.dataorg.comparing import BLOCK_BYTES
from korora.protocol.content_tree import CHUNK_BYTES, chunks_of, leaf

SIZE = 3 * CHUNK_BYTES + 5 * BLOCK_BYTES + 512
BASE = random.Random(3).randbytes(SIZE)


def leaves(content: bytes | bytearray) -> bytes:
    spans = (comparing.span(chunk, len(content)) for chunk in range(chunks_of(len(content))))
    return b"".join(leaf(content[at : at + length]) for at, length in spans)


@given(st.lists(st.integers(0, SIZE - 1), max_size=20))
def test_what_is_named_makes_one_the_other_and_is_no_more_than_the_blocks(places: list[int]) -> None:
    changed = bytearray(BASE)
    for place in places:
        changed[place] ^= 1
    patched, named = bytearray(BASE), 0
    for chunk in comparing.differing(leaves(changed), leaves(BASE)):
        at, length = where = comparing.span(chunk, SIZE)
        ours = comparing.grains(changed[at : at + length])
        theirs = comparing.grains(BASE[at : at + length])
        for begin, count in comparing.blocks(where, ours, theirs):
            patched[begin : begin + count] = changed[begin : begin + count]
            named += count
    assert patched == changed
    assert named <= BLOCK_BYTES * len(set(places))


def test_a_chunk_without_any_hash_of_the_other_differs_as_a_whole() -> None:
    where = comparing.span(3, SIZE)
    ours = comparing.grains(BASE[where[0] :])
    assert list(comparing.blocks(where, ours, b"")) == [where]


def test_leaves_of_disks_of_two_sizes_are_not_compared() -> None:
    with pytest.raises(ValueError, match="one size"):
        comparing.differing(leaves(BASE), leaves(BASE[:CHUNK_BYTES]))


def test_a_grain_is_what_the_documents_say() -> None:
    assert comparing.grains(bytes(BLOCK_BYTES)).hex() == "d89d236384d5d89cd7c71b1aa376a132"
