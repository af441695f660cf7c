"""A digest is of every byte that a guest sees, or there is none; differences are those of the bytes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.image import MemoryImage, extents_of
from korora.agents.integrity.disks.content import Difference, Progress, differences, digest, runs
from korora.errors import ToolError
from korora.model.image import Extent
from korora.protocol.content_tree import CHUNK_BYTES, ContentTree, chunks_of, leaf

TERA = 1 << 40
lengths = st.one_of(
    st.integers(1, 3 * CHUNK_BYTES), st.sampled_from([CHUNK_BYTES, 512, 7 * CHUNK_BYTES]), st.integers(1, 5)
)
layouts = st.lists(st.tuples(lengths, st.booleans()), max_size=12)


@given(layouts)
def test_runs_cover_every_chunk_once_and_are_zero_only_where_all_is(layout: list[tuple[int, bool]]) -> None:
    said = extents_of(layout)
    size = said[-1].end if said else 0
    planned = list(runs(said, size))
    assert [run.first for run in planned] == [0, *(run.first + run.count for run in planned)][: len(planned)]
    assert sum(run.count for run in planned) == chunks_of(size)
    zero = {run.first + step for run in planned if run.zero for step in range(run.count)}
    whole = {
        at
        for at in range(size // CHUNK_BYTES)
        if all(one.zero for one in said if one.offset < (at + 1) * CHUNK_BYTES and at * CHUNK_BYTES < one.end)
    }
    assert zero == whole


@given(layouts, st.integers(0, 30))
def test_runs_from_a_chunk_on_are_the_rest_of_all_runs(layout: list[tuple[int, bool]], first: int) -> None:
    said = extents_of(layout)
    size = said[-1].end if said else 0
    rest = [one for one in said if one.end > first * CHUNK_BYTES]
    flat = {run.first + step: run.zero for run in runs(said, size) for step in range(run.count)}
    later = {run.first + step: run.zero for run in runs(rest, size, first) for step in range(run.count)}
    assert later == {at: zero for at, zero in flat.items() if at >= first}


def test_a_chunk_of_which_nothing_is_said_is_read() -> None:
    assert [run.zero for run in runs([], 2 * CHUNK_BYTES)] == [False, False]
    gap = [Extent(0, CHUNK_BYTES, zero=True), Extent(2 * CHUNK_BYTES, CHUNK_BYTES, zero=True)]
    assert [(run.first, run.zero) for run in runs(gap, 3 * CHUNK_BYTES)] == [(0, True), (1, False), (2, True)]


def test_zeros_of_exabytes_are_few_runs_and_progress_is_told_within() -> None:
    said = [Extent(at * TERA, TERA, zero=True) for at in range(64)]
    planned = list(runs(said, 64 * TERA))
    assert len(planned) == 64
    assert sum(run.count for run in planned) == chunks_of(64 * TERA)


# -- digest ------------------------------------------------------------------------------------------------

PARTS = st.lists(
    st.sampled_from(["zeros", "a", "b", "hidden zeros"]).flatmap(
        lambda kind: st.tuples(
            st.just(kind), st.sampled_from([512, CHUNK_BYTES, CHUNK_BYTES + 512, 3 * CHUNK_BYTES])
        )
    ),
    max_size=5,
)


def image_of(parts: list[tuple[str, int]]) -> MemoryImage:
    """`hidden zeros` are there as bytes, and no extent says that they are zeros."""
    content = b"".join((b"\0" if "zeros" in kind else kind.encode()) * length for kind, length in parts)
    return MemoryImage(content, extents_of((length, kind == "zeros") for kind, length in parts))


def defined(content: bytes) -> str:
    def top(leaves: list[bytes]) -> bytes:
        if len(leaves) < 2:
            return b"".join(leaves)
        left = 1 << ((len(leaves) - 1).bit_length() - 1)
        return hashed("node", top(leaves[:left]) + top(leaves[left:]))

    def hashed(context: str, data: bytes) -> bytes:
        return blake3(data, derive_key_context=f"Korora 2026 content tree: {context}").digest()

    def leaf_of(chunk: bytes) -> bytes:
        cut = [hashed("piece", chunk[at : at + 2**16]) for at in range(0, len(chunk), 2**16)]
        return cut[0] if len(cut) == 1 else hashed("chunk", b"".join(cut))

    leaves = [leaf_of(content[at : at + 2**20]) for at in range(0, len(content), 2**20)]
    return "blake3:" + hashed("disk", len(content).to_bytes(8, "big") + top(leaves)).hex()


def silent(_: Progress) -> None:
    pass


@given(PARTS)
@settings(max_examples=25, deadline=None)
def test_the_digest_is_that_of_the_definition_whatever_the_extents_say(parts: list[tuple[str, int]]) -> None:
    image = image_of(parts)
    assert digest(image, silent) == defined(image.content) == digest(MemoryImage(image.content), silent)


@given(PARTS)
@settings(max_examples=15, deadline=None)
def test_a_digest_taken_up_after_any_progress_ends_in_the_same_root(parts: list[tuple[str, int]]) -> None:
    image, told = image_of(parts), list[Progress]()
    root = digest(image, told.append)
    assert [one.done for one in told[-1:]] == [image.size] * bool(told)
    for at in told:
        assert digest(image, silent, ContentTree(at.count, at.peaks)) == root


def test_progress_only_grows() -> None:
    told: list[Progress] = []
    digest(image_of([("a", 3 * CHUNK_BYTES), ("zeros", 3 * CHUNK_BYTES), ("b", 512)]), told.append)
    assert all(one.done < other.done for one, other in pairwise(told))
    assert {one.size for one in told} == {6 * CHUNK_BYTES + 512}


def test_a_part_that_cannot_be_read_leaves_no_digest() -> None:
    content = bytes(3 * CHUNK_BYTES)
    with pytest.raises(ToolError) as failed:
        digest(MemoryImage(content, broken={CHUNK_BYTES + 7}), silent)
    assert failed.value.kind == "unreadable"


# -- differences -------------------------------------------------------------------------------------------


def brute(one: bytes, other: bytes) -> list[Difference]:
    found: list[Difference] = []
    size = max(len(one), len(other))
    for at in range(0, size, CHUNK_BYTES):
        end = min(at + CHUNK_BYTES, size)
        if one[at:end] == other[at:end]:
            continue
        if found and found[-1].offset + found[-1].length == at:
            found[-1] = Difference(found[-1].offset, end - found[-1].offset)
        else:
            found.append(Difference(at, end - at))
    return found


@given(PARTS, PARTS)
@settings(max_examples=40, deadline=None)
def test_differences_are_those_of_the_bytes(one: list[tuple[str, int]], other: list[tuple[str, int]]) -> None:
    left, right = image_of(one), image_of(other)
    assert list(differences(left, right, silent)) == brute(left.content, right.content)
    assert list(differences(left, left, silent)) == []


def test_one_changed_byte_names_its_chunk() -> None:
    content = bytearray(leaf(b"x") * (5 * CHUNK_BYTES // 32))
    before = MemoryImage(bytes(content))
    content[3 * CHUNK_BYTES + 9] ^= 1
    found = list(differences(before, MemoryImage(bytes(content)), silent))
    assert found == [Difference(3 * CHUNK_BYTES, CHUNK_BYTES)]


def test_zeros_said_and_zeros_read_are_the_same() -> None:
    said = MemoryImage(bytes(4 * CHUNK_BYTES), [Extent(0, 4 * CHUNK_BYTES, zero=True)])
    assert list(differences(said, MemoryImage(bytes(4 * CHUNK_BYTES)), silent)) == []
