"""The digest of a disk is of every byte, however its zeros are told; differences are where bytes differ."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.image import MemoryImage
from korora.agents.integrity.disks.content import Progress, differences, digest, runs
from korora.errors import ToolError
from korora.model.identity import Digest
from korora.model.image import Extent
from korora.protocol.content_tree import CHUNK_BYTES, ContentTree, chunks_of, leaf

HALF = CHUNK_BYTES // 2


def quiet(_: Progress) -> None:
    pass


def plain(content: bytes) -> Digest:
    tree = ContentTree()
    for at in range(0, len(content), CHUNK_BYTES):
        tree.add(leaf(content[at : at + CHUNK_BYTES]))
    return tree.root(len(content))


def disk(pattern: str, tail: int = 0) -> bytes:
    """A half chunk of content (x) or of zeros (0) for each letter."""
    return (
        b"".join(bytes(HALF) if letter == "0" else letter.encode() * HALF for letter in pattern) + b"t" * tail
    )


PATTERNS = st.text(alphabet="0xy", max_size=9)


@given(PATTERNS, st.integers(0, 700), st.lists(st.integers(0, 10), max_size=6))
@settings(deadline=None, max_examples=40)
def test_the_digest_does_not_depend_on_how_zeros_are_told(pattern: str, tail: int, cuts: list[int]) -> None:
    content = disk(pattern, tail)
    image = MemoryImage(content, tuple(cut * HALF + cut for cut in cuts))
    assert digest(image, quiet) == plain(content)


def test_chunks_of_zeros_are_not_read() -> None:
    image = MemoryImage(disk("xx0000yy"), (2 * HALF, 6 * HALF))
    digest(image, quiet)
    assert image.read == [(0, CHUNK_BYTES), (3 * CHUNK_BYTES, CHUNK_BYTES)]


@given(st.lists(st.tuples(st.integers(1, 3 * CHUNK_BYTES), st.booleans()), min_size=1, max_size=12))
def test_runs_cover_each_chunk_once_and_zeros_only_where_all_is_zero(parts: list[tuple[int, bool]]) -> None:
    extents, at = [], 0
    for length, zero in parts:
        extents.append(Extent(at, length, zero))
        at += length
    found = list(runs(extents, at))
    covered = [number for run in found for number in range(run.first, run.first + run.count)]
    assert covered == list(range(chunks_of(at)))
    for run in found:
        begin, end = run.first * CHUNK_BYTES, min(at, (run.first + run.count) * CHUNK_BYTES)
        if run.zero:
            assert all(one.zero for one in extents if one.offset < end and one.end > begin)
        else:
            assert run.count == 1


def test_it_goes_on_from_wherever_it_was_broken_off() -> None:
    content = disk("xx00yyx0000yxyx", 5)
    told: list[Progress] = []
    whole = digest(MemoryImage(content), told.append)
    for progress in told:
        image = MemoryImage(content)
        assert digest(image, quiet, ContentTree(progress.count, progress.peaks)) == whole
        assert all(offset >= progress.count * CHUNK_BYTES for offset, _ in image.read)
    assert (told[-1].done, told[-1].size) == (len(content), len(content))


def test_what_cannot_be_read_leaves_no_digest() -> None:
    with pytest.raises(ToolError) as caught:
        digest(MemoryImage(disk("xxxx"), bad=CHUNK_BYTES), quiet)
    assert caught.value.kind == "unreadable"


@given(PATTERNS, PATTERNS, st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_differences_are_just_the_chunks_whose_bytes_differ(one: str, other: str, seed: int) -> None:
    chance = random.Random(seed)
    left, right = disk(one), disk(other, chance.choice([0, 7]))
    cuts = tuple(chance.randrange(10) * HALF for _ in range(4))
    found = list(differences(MemoryImage(left, cuts), MemoryImage(right), quiet))
    chunks = {
        at // CHUNK_BYTES
        for part in found
        for at in range(part.offset, part.offset + part.length, CHUNK_BYTES)
    }
    expected = {
        number
        for number in range(chunks_of(max(len(left), len(right))))
        if left[number * CHUNK_BYTES : (number + 1) * CHUNK_BYTES]
        != right[number * CHUNK_BYTES : (number + 1) * CHUNK_BYTES]
    }
    assert chunks == expected
    assert all(a.offset + a.length < b.offset for a, b in itertools.pairwise(found))
