"""What a TPM signed is read strictly: one structure, nothing missing, nothing left over."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from fakes.tpm_structures import PCRS, MadeByHand, SoftwareAk, ecc_public, name_of, private_key, sized
from korora.errors import IntegrityError
from korora.model.evidence import Quote
from korora.policy import attest
from korora.policy.appraisal import AK_ATTRIBUTES
from korora.policy.attest import QuoteInfo
from korora.policy.pcrs import pcr_digest, policy_pcr, selection_bytes, well_formed

AK = SoftwareAk()
QUOTE = AK.quote(PCRS, b"nonce")
READERS = {
    "public": (attest.parse_public, AK.public),
    "attestation": (attest.parse_attestation, QUOTE.attest),
    "signature": (attest.parse_signature, QUOTE.signature),
    "creation": (attest.parse_creation_data, MadeByHand().creation_data),
}


@pytest.mark.parametrize("name", READERS)
def test_a_structure_is_read_whole_or_not_at_all(name: str) -> None:
    reader, genuine = READERS[name]
    reader(genuine)
    for damaged in (*(genuine[:end] for end in range(len(genuine))), genuine + b"\0", bytes(5000)):
        with pytest.raises(IntegrityError) as caught:
            reader(damaged)
        assert caught.value.kind == "malformed-attestation"


@pytest.mark.parametrize("name", READERS)
@given(noise=st.binary(max_size=300))
def test_noise_is_refused_with_our_own_error(name: str, noise: bytes) -> None:
    reader, _ = READERS[name]
    try:
        reader(noise)
    except IntegrityError as error:
        assert error.kind == "malformed-attestation"


def test_a_public_area_gives_key_rights_and_name() -> None:
    read = attest.parse_public(AK.public)
    assert read.attributes == AK_ATTRIBUTES
    assert read.name == name_of(AK.public)
    assert isinstance(read.key, ec.EllipticCurvePublicKey)
    assert read.key.public_numbers() == private_key(1).public_key().public_numbers()


def test_a_point_off_its_curve_is_refused() -> None:
    genuine = ecc_public(private_key(1).public_key(), 0)
    with pytest.raises(IntegrityError):
        attest.parse_public(genuine[:-1] + bytes([genuine[-1] ^ 1]))


def test_a_quote_gives_what_was_quoted() -> None:
    read = attest.verify_attestation(QUOTE, attest.parse_public(AK.public))
    assert read.extra_data == b"nonce"
    assert read.attested == QuoteInfo(tuple(range(8)), pcr_digest(PCRS))
    assert (read.clock, read.reset_count, read.restart_count, read.safe) == (1000, 2, 3, True)


def test_a_signature_by_another_key_or_over_other_bytes_is_refused() -> None:
    ak = attest.parse_public(AK.public)
    other = SoftwareAk(private_key(7)).quote(PCRS, b"nonce")
    changed = QUOTE.attest[:-1] + bytes([QUOTE.attest[-1] ^ 1])
    for quote in (other, Quote(changed, QUOTE.signature), Quote(QUOTE.attest, other.signature)):
        with pytest.raises(IntegrityError) as caught:
            attest.verify_attestation(quote, ak)
        assert caught.value.kind == "quote-signature"


def test_what_is_signed_but_not_generated_by_the_tpm_is_refused() -> None:
    forged = AK.attest(0x8018, b"nonce", selection_bytes(PCRS) + sized(pcr_digest(PCRS)), magic=1)
    with pytest.raises(IntegrityError) as caught:
        attest.verify_attestation(forged, attest.parse_public(AK.public))
    assert caught.value.kind == "malformed-attestation"


def test_a_quote_over_another_bank_is_refused() -> None:
    other_bank = selection_bytes(PCRS).replace(b"\0\x0b\3", b"\0\x04\3")
    quote = AK.attest(0x8018, b"", other_bank + sized(bytes(32)))
    with pytest.raises(IntegrityError):
        attest.parse_attestation(quote.attest)


def test_the_specified_vectors_hold() -> None:
    """docs/protocol/attestation.md, "PCRs", test vectors."""
    zeros = {pcr: bytes(32).hex() for pcr in range(8)}
    assert selection_bytes(range(8)).hex() == "00000001000b03ff0000"
    assert selection_bytes([0, 9, 23]).hex() == "00000001000b03010280"
    assert pcr_digest(zeros).hex() == hashlib.sha256(bytes(256)).hexdigest()
    assert policy_pcr(zeros).hex() == "9a72c2e06a93c453a86efb47532e9c7a91dcab018e675919910c58d6a1a5aa78"


def test_pcr_values_have_one_spelling() -> None:
    assert well_formed(PCRS)
    for bad in ({}, {24: "00" * 32}, {-1: "00" * 32}, {0: "AA" * 32}, {0: "00" * 31}, {0: " " + "0" * 63}):
        assert not well_formed(bad)


def test_a_signature_number_longer_than_the_curve_is_refused() -> None:
    r = sized(bytes(33))
    with pytest.raises(IntegrityError):
        attest.parse_signature(b"\0\x18\0\x0b" + r + r)
    with pytest.raises(IntegrityError):
        attest.verify_attestation(
            replace(QUOTE, signature=b"\0\x18\0\x0b\0\0\0\0"), attest.parse_public(AK.public)
        )
