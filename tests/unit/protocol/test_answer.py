"""A person's answer and a decision's leaf: one spelling each, signed by whom they name, read strictly."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import given
from hypothesis import strategies as st

from korora.errors import IntegrityError
from korora.model.identity import HostName, OperatorName, VmName, sha256
from korora.model.plan import Mode
from korora.model.question import Matter
from korora.protocol import answer, decision
from korora.protocol.answer import Answer
from korora.protocol.decision import PolicyDecision
from korora.protocol.dsse import KeyPair
from korora.protocol.merkle import leaf_hash

TEXT = (Path(__file__).parents[3] / "docs" / "protocol" / "records.md").read_text()
BOB = KeyPair(ed25519.Ed25519PrivateKey.from_private_bytes(b"\1" * 32))
OTHER = KeyPair(ed25519.Ed25519PrivateKey.from_private_bytes(b"\2" * 32))
SAID = Answer(
    by="bob",
    answer="yes",
    reason="",
    operator="alice",
    procedure="migrate",
    vm="web",
    source="a",
    destination="b",
    mode=Mode.LIVE,
    nonce="00" * 32,
    issued_at=1_700_000_000,
    not_after=1_700_000_600,
)
DECIDED = PolicyDecision(
    vm="web",
    request="sha256:" + "00" * 32,
    session="ab" * 64,
    role="source",
    number=0,
    procedure="submit",
    user="operator alice",
    agent="identity-provider",
    takes="request",
    makes="record",
    value="sha256:" + "00" * 32,
    answer="yes",
    rule="submit",
    clause="",
    protects="",
    at=1_700_000_000,
)


def test_the_documented_vectors_come_out() -> None:
    matter = Matter(OperatorName("alice"), "migrate", VmName("web"), HostName("a"), HostName("b"), Mode.LIVE)
    assert SAID.matter == matter
    for vector in (
        str(matter.id),
        sha256(answer.signed(SAID, BOB)).removeprefix("sha256:"),
        leaf_hash(DECIDED.leaf()).hex(),
    ):
        assert f"`{vector}`" in TEXT, vector


def test_an_answer_is_opened_by_its_signers_key_alone() -> None:
    envelope = answer.signed(SAID, BOB)
    assert answer.peek(envelope) == answer.opened(envelope, BOB.public_key()) == SAID
    with pytest.raises(IntegrityError):
        answer.opened(envelope, OTHER.public_key())


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"answer": "perhaps"},
        {"more": 1},
        {"nonce": "00"},
        {"reason": "x" * 1025},
        {"policy": "x" * 8193},
        {"not_after": -1},
        {"mode": "fast"},
    ],
)
def test_an_answer_with_anything_odd_in_it_is_refused(change: dict[str, object]) -> None:
    from korora.protocol import dsse

    text = json.dumps({**json.loads(msgspec.json.encode(SAID)), **change}, separators=(",", ":"))
    envelope = dsse.envelope(answer.TYPE, text.encode(), [BOB])
    with pytest.raises(IntegrityError):
        answer.opened(envelope, BOB.public_key())


@given(st.binary(max_size=300))
def test_no_bytes_break_the_reader_of_answers_and_leaves(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        answer.peek(data)
    assert decision.read(data) is None


def test_a_decisions_leaf_is_read_back_and_no_other_is_taken_for_one() -> None:
    assert decision.read(DECIDED.leaf()) == DECIDED
    assert decision.read(DECIDED.leaf() + b" ") is None
    assert decision.read(DECIDED.leaf().replace(b'"policy"', b'"receipt"')) is None
