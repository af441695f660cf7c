"""The hash tree of a disk: its shape is RFC 6962's, zeros cost nothing, and it can be put aside anywhere."""

from __future__ import annotations

from pathlib import Path

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
    package_root,
    zeros,
)

DOCUMENTATION = Path(__file__).parents[3] / "docs" / "IMAGES.md"


def digest(context: str, data: bytes) -> bytes:
    return blake3(data, derive_key_context=f"Korora 2026 content tree: {context}").digest()


def plain_top(leaves: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, word for word."""
    if len(leaves) < 2:
        return leaves[0] if leaves else b""
    left = 1
    while 2 * left < len(leaves):
        left *= 2
    return digest("node", plain_top(leaves[:left]) + plain_top(leaves[left:]))


def plain_root(size: int, leaves: list[bytes]) -> str:
    return "blake3:" + digest("disk", size.to_bytes(8, "big") + plain_top(leaves)).hex()


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=70))
def test_the_root_is_that_of_the_definition(leaves: list[bytes]) -> None:
    tree = ContentTree()
    for one in leaves:
        tree.add(one)
    size = len(leaves) * CHUNK_BYTES
    assert tree.root(size) == plain_root(size, leaves)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 40)), max_size=12))
def test_a_run_of_zeros_is_the_same_as_each_of_its_chunks(parts: list[tuple[bool, int]]) -> None:
    quick, slow = ContentTree(), ContentTree()
    for zero, count in parts:
        if zero:
            quick.add_zeros(count)
        for number in range(count):
            digest_ = zeros(0) if zero else leaf(bytes([number]))
            slow.add(digest_)
            if not zero:
                quick.add(digest_)
    assert (quick.count, quick.peaks) == (slow.count, slow.peaks)


@given(st.integers(0, 200), st.integers(0, 200))
@settings(max_examples=50)
def test_what_was_put_aside_is_taken_up_to_the_same_root(before: int, after: int) -> None:
    whole = ContentTree()
    for number in range(before + after):
        whole.add(leaf(bytes([number % 256])))
    first = ContentTree()
    for number in range(before):
        first.add(leaf(bytes([number % 256])))
    second = ContentTree(first.count, first.peaks)
    for number in range(before, before + after):
        second.add(leaf(bytes([number % 256])))
    size = (before + after) * CHUNK_BYTES
    assert second.root(size) == whole.root(size)


def test_a_disk_of_exabytes_of_zeros_is_no_work() -> None:
    size = 2**63 - 512
    tree = ContentTree()
    tree.add_zeros(size // CHUNK_BYTES)
    tree.add(leaf(bytes(size % CHUNK_BYTES)))
    assert tree.root(size).startswith("blake3:")


@pytest.mark.parametrize(
    ("count", "peaks"), [(1, []), (0, [(0, b"x")]), (3, [(0, b"x"), (1, b"y")]), (2, [(0, b"x")])]
)
def test_peaks_of_another_tree_are_refused(count: int, peaks: list[tuple[int, bytes]]) -> None:
    with pytest.raises(ValueError, match="peaks"):
        ContentTree(count, peaks)


def test_a_disk_whose_chunks_were_not_all_added_has_no_root() -> None:
    tree = ContentTree()
    tree.add(leaf(b"x"))
    for size in (0, CHUNK_BYTES + 1, 5 * CHUNK_BYTES):
        with pytest.raises(ValueError, match="chunks"):
            tree.root(size)
    assert [chunks_of(size) for size in (0, 1, CHUNK_BYTES, CHUNK_BYTES + 1)] == [0, 1, 1, 2]


def test_the_size_counts_where_the_chunks_are_alike() -> None:
    one, other = ContentTree(), ContentTree()
    one.add(leaf(b"x"))
    other.add(leaf(b"x"))
    assert one.root(1) != other.root(2)


def test_a_package_is_the_same_in_any_order_and_other_with_another_name() -> None:
    disks = [("a", Digest("blake3:" + "11" * 32)), ("b", Digest("blake3:" + "22" * 32))]
    parts = b"".join(b"\0\0\0\x01" + name.encode() + bytes.fromhex(root[7:]) for name, root in disks)
    assert package_root(disks) == "blake3:" + digest("package", parts).hex()
    assert package_root(disks) == package_root(disks[::-1])
    assert package_root(disks) != package_root([("c", disks[0][1]), disks[1]])


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"", "nothing"),
        (b"korora", "six bytes"),
        (bytes(3 * CHUNK_BYTES), "zeros"),
        (b"x" * (CHUNK_BYTES + 1), "two chunks"),
    ],
)
def test_the_vectors_of_the_documentation_hold(content: bytes, name: str) -> None:
    leaves = [leaf(content[at : at + CHUNK_BYTES]) for at in range(0, len(content), CHUNK_BYTES)]
    tree = ContentTree()
    for one in leaves:
        tree.add(one)
    assert tree.root(len(content)) == plain_root(len(content), leaves)
    assert tree.root(len(content)) in DOCUMENTATION.read_text(), name
