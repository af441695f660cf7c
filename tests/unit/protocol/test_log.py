"""The hosts' logs: heads, places, growth."""

from __future__ import annotations

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from korora.errors import IntegrityError
from korora.model.identity import sha256
from korora.protocol import log
from korora.protocol.dsse import KeyPair
from korora.protocol.log import LogEntry, TreeHead
from korora.protocol.merkle import EMPTY_ROOT, consistency_proof, nodes_of, root

KEY = KeyPair(ec.derive_private_key(21, ec.SECP256R1()))
OTHER = KeyPair(ec.derive_private_key(22, ec.SECP256R1()))
LEAVES = [
    LogEntry(kind="receipt", vm="web", session="ab" * 64, digest=sha256(bytes([number]))).leaf()
    for number in range(9)
]
NODE = nodes_of(LEAVES)
HEAD = log.signed_head("north", 9, NODE, at=5, key=KEY)


def head(size: int, log_name: str = "north") -> TreeHead:
    top = root(size, NODE) if size else EMPTY_ROOT
    return TreeHead(log=log_name, size=size, root=top, at=5)


def test_a_head_is_read_with_its_hosts_key_and_name() -> None:
    assert log.opened_head(HEAD, "north", KEY.public_key()) == head(9)
    with pytest.raises(IntegrityError, match="of north's log"):
        log.opened_head(HEAD, "south", KEY.public_key())
    with pytest.raises(IntegrityError):
        log.opened_head(HEAD, "north", OTHER.public_key())


def test_every_entry_is_proved_at_its_place_and_at_no_other() -> None:
    for index, leaf in enumerate(LEAVES):
        shown = log.proof("north", index, 9, NODE, HEAD)
        assert log.verify_proof(shown, leaf, KEY.public_key()).size == 9
        for wrong in (
            msgspec.structs.replace(shown, index=(index + 1) % 9),
            msgspec.structs.replace(shown, path=shown.path[1:]),
            msgspec.structs.replace(shown, host="south"),
        ):
            with pytest.raises(IntegrityError):
                log.verify_proof(wrong, leaf, KEY.public_key())


def test_a_log_that_only_grew_is_told_from_one_that_was_rewritten() -> None:
    log.verify_growth(head(4), head(9), consistency_proof(4, 9, NODE))
    log.verify_growth(head(0), head(9), ())
    rewritten = nodes_of([b"another history", *LEAVES[1:]])
    forged = TreeHead(log="north", size=9, root=root(9, rewritten), at=5)
    with pytest.raises(IntegrityError) as caught:
        log.verify_growth(head(4), forged, consistency_proof(4, 9, rewritten))
    assert caught.value.kind == "log-rewritten"
    with pytest.raises(IntegrityError):
        log.verify_growth(head(9), head(4), ())
    with pytest.raises(IntegrityError):
        log.verify_growth(head(4), head(9, "south"), consistency_proof(4, 9, NODE))


@given(st.integers(0, 8), st.binary(max_size=4))
def test_all_leaves_must_give_the_signed_root(place: int, other: bytes) -> None:
    log.verify_leaves(LEAVES, head(9))
    for wrong in (LEAVES[:-1], [*LEAVES, b""], [*LEAVES[:place], other, *LEAVES[place + 1 :]]):
        with pytest.raises(IntegrityError, match="do not give the signed root"):
            log.verify_leaves(wrong, head(9))
