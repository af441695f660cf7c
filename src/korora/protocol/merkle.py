"""The hash tree of an append-only log: roots, proofs that a leaf is in it, proofs that it only grew.

Promise: the hashes and proofs of RFC 6962, section 2.1, over SHA-256; appending a leaf costs O(log n), and
so does a proof, where the caller keeps the hashes of complete subtrees. Limit: a proof speaks about one
root; that all readers are shown the same root is for signed heads and whoever compares them.

A *node* is the hash of a complete subtree: `node(level, index)` covers the leaves from `index << level` to
before `(index + 1) << level`; level 0 is a leaf's own hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence

Node = tuple[int, int, bytes]  # level, index, hash
NodeAt = Callable[[int, int], bytes]

EMPTY_ROOT = hashlib.sha256(b"").digest()


def leaf_hash(leaf: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def completed_by(index: int, leaf: bytes, node: NodeAt) -> tuple[Node, ...]:
    """The nodes that appending `leaf` at `index` completes, its own first; `node` gives those to its left."""
    level, digest = 0, leaf_hash(leaf)
    nodes = [(level, index, digest)]
    while index & 1:
        digest = node_hash(node(level, index - 1), digest)
        level, index = level + 1, index >> 1
        nodes.append((level, index, digest))
    return tuple(nodes)


def nodes_of(leaves: Iterable[bytes]) -> NodeAt:
    """All nodes of a tree held in memory, as a look-up. Looking up one that is not complete is a KeyError."""
    nodes: dict[tuple[int, int], bytes] = {}

    def node(level: int, index: int) -> bytes:
        return nodes[level, index]

    for position, leaf in enumerate(leaves):
        nodes.update(((level, index), digest) for level, index, digest in completed_by(position, leaf, node))
    return node


def root(size: int, node: NodeAt) -> bytes:
    """The tree's root hash over its first `size` leaves: MTH(D[size])."""
    return _root_over(0, size, node) if size else EMPTY_ROOT


def root_of(leaves: Sequence[bytes]) -> bytes:
    return root(len(leaves), nodes_of(leaves))


def inclusion_proof(index: int, size: int, node: NodeAt) -> tuple[bytes, ...]:
    """PATH(index, D[size]): what lies beside the way from the leaf up. ValueError for no such leaf."""
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} is not among {size}")
    path: list[bytes] = []
    low, high = 0, size
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            path.append(_root_over(middle, high, node))
            high = middle
        else:
            path.append(_root_over(low, middle, node))
            low = middle
    return tuple(reversed(path))


def consistency_proof(old: int, new: int, node: NodeAt) -> tuple[bytes, ...]:
    """PROOF(old, D[new]): that the first `old` leaves are still there. ValueError unless 0 < old ≤ new."""
    if not 0 < old <= new:
        raise ValueError(f"a tree of {old} leaves cannot grow to one of {new}")
    path: list[bytes] = []
    low, high = 0, new
    while old != high:
        middle = low + _split(high - low)
        if old <= middle:
            path.append(_root_over(middle, high, node))
            high = middle
        else:
            path.append(_root_over(low, middle, node))
            low = middle
    if low:  # where the old tree is no left edge of the new one, its last part must be told
        path.append(_root_over(low, high, node))
    return tuple(reversed(path))


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether the proof leads from this leaf to this root (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    position, last, digest = index, size - 1, leaf_hash(leaf)
    for sibling in proof:
        if last == 0:
            return False
        if position & 1 or position == last:
            digest = node_hash(sibling, digest)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            digest = node_hash(digest, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and digest == root


def verify_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether the tree with `new_root` begins with the one with `old_root` (RFC 9162, 2.1.4.2)."""
    if not 0 < old <= new:
        return False
    if old == new:
        return not proof and old_root == new_root
    path = list(proof)
    if old & (old - 1) == 0:  # a complete old tree is a node of the new one: the proof leaves it out
        path.insert(0, old_root)
    if not path:
        return False
    position, last = _skip_complete(old - 1, new - 1)
    old_digest = new_digest = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if position & 1 or position == last:
            old_digest, new_digest = node_hash(sibling, old_digest), node_hash(sibling, new_digest)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            new_digest = node_hash(new_digest, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and old_digest == old_root and new_digest == new_root


def _skip_complete(position: int, last: int) -> tuple[int, int]:
    while position & 1:
        position, last = position >> 1, last >> 1
    return position, last


def _root_over(low: int, high: int, node: NodeAt) -> bytes:
    """The root over the leaves [low, high), where low is a multiple of the largest power of two inside."""
    size = high - low
    if size & (size - 1) == 0:
        level = size.bit_length() - 1
        return node(level, low >> level)
    middle = low + _split(size)
    return node_hash(_root_over(low, middle, node), _root_over(middle, high, node))


def _split(size: int) -> int:
    """The largest power of two smaller than `size`."""
    return 1 << (size - 1).bit_length() - 1
