"""The tree of a disk's content is just what its docstring and docs/IMAGES.md define, and nothing is slow."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from korora.model.identity import Digest
from korora.protocol.content_tree import (
    CHUNK_BYTES,
    ContentTree,
    chunks_of,
    leaf,
    leaf_of,
    node,
    package_root,
    pieces,
    zeros,
)

IMAGES = Path(__file__).parents[3] / "docs" / "IMAGES.md"
ABC = b"abc"
RAMP = bytes(range(256)) * 4096

VECTORS = {
    "no bytes": (b"", "cb6d65effbd4498f71106410a8dc1157e964561a7e869f220fcaf56972c9164c"),
    "512 zero bytes": (bytes(512), "520f37b00a159f15568d18fe9089511a53f95299319a684c356e8a6b8cf1d1d3"),
    "abc, then zeros up to 512 bytes": (
        ABC + bytes(509),
        "f9d820f6cfe9851ded0b6e8183343fbdce29b9d8128b94fdf9d87e5f772aecdc",
    ),
    "1 MiB of zeros": (
        bytes(CHUNK_BYTES),
        "11eb7ea88560b252620d6541ae10cfc0e4c6760481908989fcd79adf7810a0b9",
    ),
    "the bytes 0 to 255, 4096 times": (
        RAMP,
        "ef8645c7cc67f8acf849c6c13cbb1b5e50ef286f7150fca7a2317a7dab114c5a",
    ),
    "that, 2 MiB of zeros, and 512 bytes of 0xff": (
        RAMP + bytes(2 * CHUNK_BYTES) + b"\xff" * 512,
        "af42c62943d3be69e6c63fbe89e5e444b0b6b7dad6a1c66b862e4fb0b4290091",
    ),
}


def hashed(context: str, data: bytes) -> bytes:
    """H of the definition, by its own words."""
    return blake3(data, derive_key_context=f"Korora 2026 content tree: {context}").digest()


def top(leaves: list[bytes]) -> bytes:
    """RFC 6962, section 2.1: the left part is the largest power of two below n."""
    if len(leaves) < 2:
        return b"".join(leaves)
    left = 1
    while left * 2 < len(leaves):
        left *= 2
    return hashed("node", top(leaves[:left]) + top(leaves[left:]))


def defined(content: bytes) -> str:
    cut = [content[at : at + 2**20] for at in range(0, len(content), 2**20)]
    whole = len(content).to_bytes(8, "big") + top([defined_leaf(chunk) for chunk in cut])
    return "blake3:" + hashed("disk", whole).hex()


def defined_leaf(chunk: bytes) -> bytes:
    cut = [hashed("piece", chunk[at : at + 2**16]) for at in range(0, len(chunk), 2**16)]
    return cut[0] if len(cut) == 1 else hashed("chunk", b"".join(cut))


def measured(content: bytes) -> str:
    tree = ContentTree()
    for at in range(0, len(content), CHUNK_BYTES):
        tree.add(leaf(content[at : at + CHUNK_BYTES]))
    return tree.root(len(content))


@pytest.mark.parametrize("length", [1, 65535, 65536, 65537, 2**17, 2**20 - 1, 2**20])
def test_a_leaf_is_what_the_definition_says_and_follows_from_its_pieces(length: int) -> None:
    chunk = Random(length).randbytes(length)
    assert leaf(chunk) == leaf(memoryview(chunk)) == leaf_of(pieces(chunk)) == defined_leaf(chunk)


def test_a_short_chunk_of_pieces_hashes_is_not_the_chunk_with_those_pieces() -> None:
    assert leaf(pieces(RAMP)) != leaf(RAMP)


leaf_lists = st.lists(st.binary(min_size=32, max_size=32), max_size=70)


@pytest.mark.parametrize("name", VECTORS)
def test_a_vector_is_what_the_definition_the_code_and_the_document_say(name: str) -> None:
    content, expected = VECTORS[name]
    assert defined(content) == measured(content) == f"blake3:{expected}"
    assert re.search(rf"^\| {re.escape(name)} \| `{expected}` \|$", IMAGES.read_text(), re.MULTILINE)


@given(leaf_lists)
def test_the_shape_is_that_of_rfc_6962(leaves: list[bytes]) -> None:
    tree = ContentTree()
    for one in leaves:
        tree.add(one)
    size = len(leaves) * CHUNK_BYTES
    assert tree.root(size) == "blake3:" + hashed("disk", size.to_bytes(8, "big") + top(leaves)).hex()


@given(st.lists(st.one_of(st.binary(min_size=32, max_size=32), st.integers(0, 40)), max_size=20))
def test_zeros_added_at_once_are_zeros_added_one_by_one(steps: list[bytes | int]) -> None:
    quick, slow = ContentTree(), ContentTree()
    for step in steps:
        if isinstance(step, int):
            quick.add_zeros(step)
            for _ in range(step):
                slow.add(defined_leaf(bytes(2**20)) if step == 1 else zeros(0))
        else:
            quick.add(step)
            slow.add(step)
        assert (quick.count, quick.peaks) == (slow.count, slow.peaks)


@given(leaf_lists, st.integers(0, 70))
def test_a_tree_taken_up_from_its_state_ends_in_the_same_root(leaves: list[bytes], cut: int) -> None:
    whole, before = ContentTree(), ContentTree()
    for one in leaves:
        whole.add(one)
    for one in leaves[:cut]:
        before.add(one)
    after = ContentTree(before.count, before.peaks)
    for one in leaves[cut:]:
        after.add(one)
    assert after.root(len(leaves) * CHUNK_BYTES) == whole.root(len(leaves) * CHUNK_BYTES)


@given(st.integers(0, 2**64), st.lists(st.integers(0, 64), max_size=8))
def test_peaks_that_do_not_belong_to_the_count_are_refused(count: int, levels: list[int]) -> None:
    """The levels of a tree are the ones of its count in binary, from the highest on."""
    peaks = [(level, bytes(32)) for level in levels]
    if levels == sorted(set(levels), reverse=True) and sum(1 << level for level in levels) == count:
        assert ContentTree(count, peaks).count == count
        return
    with pytest.raises(ValueError, match="do not belong"):
        ContentTree(count, peaks)


@pytest.mark.parametrize("count", [-1, 2**64, 2**70])
def test_no_tree_has_so_many_leaves(count: int) -> None:
    with pytest.raises(ValueError, match="do not belong"):
        ContentTree(count)


def test_a_peak_is_32_bytes() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        ContentTree(1, [(0, b"short")])


def test_a_disk_of_exabytes_of_zeros_comes_to_an_end() -> None:
    size, tree = 2**63 - 512, ContentTree()
    tree.add(leaf(RAMP))
    tree.add_zeros(chunks_of(size) - 2)
    tree.add(leaf(bytes(CHUNK_BYTES - 512)))
    assert tree.root(size) != tree.root(size - 512)
    assert len(tree.peaks) <= 64


@given(st.integers(0, 6), st.integers(0, 2**20))
@settings(max_examples=30)
def test_a_root_is_given_only_when_all_chunks_were_added(chunks: int, rest: int) -> None:
    tree = ContentTree()
    tree.add_zeros(chunks + 1)
    size = chunks * CHUNK_BYTES + rest
    if chunks_of(size) == chunks + 1:
        assert tree.root(size)
        return
    with pytest.raises(ValueError, match="were added"):
        tree.root(size)


def test_the_size_is_part_of_the_root() -> None:
    assert measured(bytes(1024)) != measured(bytes(512))
    assert measured(bytes(3 << 20)) != measured(bytes(4 << 20))


def test_chunk_node_disk_and_package_are_kept_apart() -> None:
    data = bytes(range(64))
    assert len({leaf(data), node(data[:32], data[32:]), hashed("disk", data), hashed("package", data)}) == 4


roots = st.binary(min_size=32, max_size=32).map(lambda raw: Digest("blake3:" + raw.hex()))


@given(st.dictionaries(st.text(max_size=12), roots, max_size=5), st.randoms())
def test_a_packages_root_is_of_names_and_roots_in_any_order(disks: dict[str, Digest], random: object) -> None:
    parts = b""
    for name in sorted(disks):
        written = name.encode()
        parts += len(written).to_bytes(4, "big") + written + bytes.fromhex(disks[name][7:])
    shuffled = sorted(disks.items(), key=lambda _: random.random())  # type: ignore[attr-defined]
    assert package_root(shuffled) == "blake3:" + hashed("package", parts).hex()
