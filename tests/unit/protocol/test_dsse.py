"""Envelopes: who signed what, and nothing else passes."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope as ReferenceEnvelope

from korora.errors import IntegrityError
from korora.protocol.dsse import KeyPair, countersign, envelope, key_id, opened, pre_authentication

KIND = "application/vnd.korora.test+json"
EDWARDS = KeyPair(ed25519.Ed25519PrivateKey.from_private_bytes(b"\1" * 32))
NIST = KeyPair(ec.derive_private_key(7, ec.SECP256R1()))
STRANGER = KeyPair(ed25519.Ed25519PrivateKey.from_private_bytes(b"\2" * 32))
BOTH = {EDWARDS.key_id: EDWARDS.public_key(), NIST.key_id: NIST.public_key()}
SIGNED = envelope(KIND, b'{"a":1}', [EDWARDS, NIST])


def test_the_bytes_signed_are_those_of_the_dsse_specification() -> None:
    assert pre_authentication("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_another_implementation_reads_our_envelope_and_signs_the_same_bytes() -> None:
    theirs = ReferenceEnvelope.from_dict(json.loads(SIGNED))
    assert theirs.payload == b'{"a":1}'
    assert theirs.pae() == pre_authentication(KIND, b'{"a":1}')
    assert set(theirs.signatures) == set(BOTH)


def test_a_key_id_is_the_digest_of_the_public_key_information() -> None:
    # openssl pkey -inform DER -pubout -outform DER | sha256sum, for the Ed25519 private key 01…01
    assert key_id(EDWARDS.public_key()) == (
        "sha256:fd110d301d2f077de1414b8f99f441b1403fab207b2052fbd2c065e4ee8e7dc2"
    )


@given(st.binary(max_size=300), st.text(max_size=40))
def test_what_was_signed_comes_back(payload: bytes, kind: str) -> None:
    assert opened(envelope(kind, payload, [EDWARDS, NIST]), kind, BOTH, threshold=2) == payload


def test_one_signature_is_enough_unless_more_are_asked_for() -> None:
    alone = envelope(KIND, b"x", [NIST])
    assert opened(alone, KIND, BOTH) == b"x"
    with pytest.raises(IntegrityError, match="1 of the expected keys"):
        opened(alone, KIND, BOTH, threshold=2)


def test_a_countersigned_envelope_carries_both_signatures_once() -> None:
    twice = countersign(countersign(envelope(KIND, b"x", [EDWARDS]), NIST), NIST)
    assert opened(twice, KIND, BOTH, threshold=2) == b"x"
    assert len(json.loads(twice)["signatures"]) == 2


def test_no_byte_of_an_envelope_can_change_unnoticed() -> None:
    for place in range(len(SIGNED)):
        for flip in (0x01, 0x20):
            changed = bytearray(SIGNED)
            changed[place] ^= flip
            with pytest.raises(IntegrityError):
                opened(bytes(changed), KIND, BOTH, threshold=2)


@given(st.binary(max_size=400))
def test_noise_is_refused_as_an_integrity_error(noise: bytes) -> None:
    with pytest.raises(IntegrityError):
        opened(noise, KIND, BOTH)


@pytest.mark.parametrize(
    "text",
    [
        SIGNED + b" ",
        b" " + SIGNED,
        SIGNED.replace(b'","payloadType', b'", "payloadType'),
        SIGNED[:-1] + b',"more":1}',
        b'{"payload":"QR==","payloadType":"t","signatures":[]}',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_another_spelling_is_refused(text: bytes) -> None:
    with pytest.raises(IntegrityError) as caught:
        opened(text, KIND, BOTH)
    assert caught.value.kind == "signature"


def test_a_statement_of_another_type_is_refused() -> None:
    with pytest.raises(IntegrityError, match="not a 'other'"):
        opened(SIGNED, "other", BOTH)


def test_a_strangers_signature_counts_for_nothing() -> None:
    with pytest.raises(IntegrityError):
        opened(envelope(KIND, b"x", [STRANGER]), KIND, BOTH)
    assert opened(envelope(KIND, b"x", [STRANGER, NIST]), KIND, BOTH) == b"x"


def test_one_key_under_two_names_is_one_signer() -> None:
    doubled = json.loads(envelope(KIND, b"x", [EDWARDS]))
    doubled["signatures"].append({**doubled["signatures"][0], "keyid": "alias"})
    text = json.dumps(doubled, separators=(",", ":")).encode()
    with pytest.raises(IntegrityError, match="1 of the expected keys"):
        opened(text, KIND, {**BOTH, "alias": EDWARDS.public_key()}, threshold=2)


def test_two_signatures_of_one_key_are_refused() -> None:
    doubled = json.loads(envelope(KIND, b"x", [EDWARDS]))
    doubled["signatures"] *= 2
    with pytest.raises(IntegrityError):
        opened(json.dumps(doubled, separators=(",", ":")).encode(), KIND, BOTH)


def test_an_oversized_envelope_is_refused_before_it_is_read() -> None:
    with pytest.raises(IntegrityError, match="limit of 10"):
        opened(SIGNED, KIND, BOTH, limit=10)


def test_only_ed25519_and_p256_sign_here() -> None:
    with pytest.raises(ValueError, match="P-256"):
        KeyPair(ec.generate_private_key(ec.SECP384R1()))


def test_a_key_pair_never_prints_its_private_half() -> None:
    assert repr(EDWARDS) == f"KeyPair(key_id='{EDWARDS.key_id}')"


def test_a_threshold_of_zero_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="anybody"):
        opened(SIGNED, KIND, BOTH, threshold=0)
