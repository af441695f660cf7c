"""The log's hash tree, against published vectors and against the definition read literally."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from korora.protocol.merkle import (
    EMPTY_ROOT,
    completed_by,
    consistency_proof,
    inclusion_proof,
    nodes_of,
    root,
    root_of,
    verify_consistency,
    verify_inclusion,
)

# The test tree of the Certificate Transparency project (RFC 6962's authors), with its roots by size.
LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
SIZES = range(1, 34)
MANY = [bytes([number]) for number in range(SIZES.stop)]


@pytest.mark.parametrize("size", range(len(ROOTS)))
def test_roots_are_those_of_the_published_vectors(size: int) -> None:
    assert root_of(LEAVES[:size]).hex() == ROOTS[size]


def test_the_published_inclusion_and_consistency_proofs_come_out() -> None:
    node = nodes_of(LEAVES)
    assert [part.hex() for part in inclusion_proof(5, 8, node)] == [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]
    assert [part.hex() for part in consistency_proof(6, 8, node)] == [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]


def _defined_root(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962, 2.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\1" + _defined_root(leaves[:k]) + _defined_root(leaves[k:])).digest()


@given(st.lists(st.binary(max_size=8), max_size=40))
def test_the_root_is_what_the_definition_says(leaves: list[bytes]) -> None:
    assert root_of(leaves) == _defined_root(leaves)


def test_every_leaf_of_every_size_is_proved_and_no_other() -> None:
    node = nodes_of(MANY)
    for size in SIZES:
        top = root(size, node)
        for index in range(size):
            proof = inclusion_proof(index, size, node)
            assert verify_inclusion(MANY[index], index, size, proof, top)
            assert not verify_inclusion(b"other", index, size, proof, top)
            assert not verify_inclusion(MANY[index], index, size, (*proof, top), top)
            assert not verify_inclusion(MANY[index], index, size, proof[:-1], top) or not proof
            for wrong in (index - 1, index + 1):
                assert not verify_inclusion(MANY[index], wrong, size, proof, top)


def test_every_growth_is_proved_and_no_other() -> None:
    node = nodes_of(MANY)
    for new in SIZES:
        for old in range(1, new + 1):
            proof = consistency_proof(old, new, node)
            first, second = root(old, node), root(new, node)
            assert verify_consistency(old, new, first, second, proof)
            assert not verify_consistency(old, new, EMPTY_ROOT, second, proof)
            assert not verify_consistency(old, new, first, EMPTY_ROOT, proof)
            assert not verify_consistency(old, new, first, second, (*proof, first))
            if proof:
                assert not verify_consistency(old, new, first, second, proof[:-1])
                flipped = (bytes([proof[0][0] ^ 1]) + proof[0][1:], *proof[1:])
                assert not verify_consistency(old, new, first, second, flipped)


@given(st.integers(-2, 70), st.integers(-2, 70), st.lists(st.binary(min_size=32, max_size=32), max_size=8))
def test_made_up_proofs_prove_nothing(one: int, other: int, proof: list[bytes]) -> None:
    assert not verify_inclusion(b"leaf", one, other, proof, EMPTY_ROOT)
    assert not verify_consistency(one, other, EMPTY_ROOT, b"\1" * 32, proof)


def test_an_append_touches_a_logarithm_of_the_tree() -> None:
    asked: list[tuple[int, int]] = []

    def node(level: int, index: int) -> bytes:
        asked.append((level, index))
        return b"\0" * 32

    completed_by(2**20 - 1, b"leaf", node)
    assert len(asked) == 20
    asked.clear()
    inclusion_proof(12345, 2**20 + 77, node)
    assert len(asked) < 50


@pytest.mark.parametrize(("index", "size"), [(-1, 3), (3, 3), (0, 0)])
def test_a_proof_for_a_leaf_that_is_not_there_is_refused(index: int, size: int) -> None:
    with pytest.raises(ValueError, match="not among"):
        inclusion_proof(index, size, nodes_of(MANY))


@pytest.mark.parametrize(("old", "new"), [(0, 3), (4, 3), (-1, 3)])
def test_a_tree_does_not_shrink(old: int, new: int) -> None:
    with pytest.raises(ValueError, match="cannot grow"):
        consistency_proof(old, new, nodes_of(MANY))
