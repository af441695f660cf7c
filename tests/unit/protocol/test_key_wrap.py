"""A key is wrapped only for a wrapping key that is right in everything, and opens only where it was meant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.tpm_structures import OWNER_HIERARCHY, PCRS, MadeByHand, SoftwareAk, name_of, private_key
from korora.errors import IntegrityError, RefusedError
from korora.model.evidence import PcrValues, Quote
from korora.model.identity import Secret
from korora.model.tpm import WrappedKey, WrappingKey
from korora.policy.attest import Attribute
from korora.protocol import key_wrap
from korora.protocol.key_wrap import ATTRIBUTES

SECRET = Secret(bytes.fromhex("5ec12e7" + "0" * 57))
CONTEXT = b"context of this move"
GOOD = MadeByHand()


def wrap(
    made: WrappingKey, *, ak: bytes = GOOD.ak.public, nonce: bytes = GOOD.nonce, pcrs: PcrValues = PCRS
) -> WrappedKey:
    return key_wrap.wrap(
        SECRET, made, ak_public=ak, nonce=nonce, pcrs=pcrs, context=CONTEXT, ephemeral=private_key(3)
    )


def open_with_private_key(
    made: MadeByHand, wrapped: WrappedKey, *, nonce: bytes = GOOD.nonce, context: bytes = CONTEXT
) -> Secret:
    """What the destination's TPM does, done in software."""
    x, y = (int.from_bytes(part) for part in (wrapped.ephemeral[:32], wrapped.ephemeral[32:]))
    point = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    shared = Secret(made.private.exchange(ec.ECDH(), point))
    return key_wrap.opened(shared, wrapped, key_name=name_of(made.public), nonce=nonce, context=context)


def kind_of_refusal(made: WrappingKey, *, ak: bytes = GOOD.ak.public) -> str:
    with pytest.raises(IntegrityError) as caught:
        wrap(made, ak=ak)
    assert caught.value.remedy
    return caught.value.kind


def test_what_was_wrapped_opens_again() -> None:
    assert open_with_private_key(GOOD, wrap(GOOD.key)) == SECRET


def test_the_specified_vector_holds() -> None:
    """docs/protocol/attestation.md, "Key wrap", test vector."""
    wrapped = wrap(GOOD.key)
    assert name_of(GOOD.public).hex() == VECTOR["key name"]
    assert wrapped.ephemeral.hex() == VECTOR["ephemeral"]
    shared = Secret(private_key(3).exchange(ec.ECDH(), private_key(2).public_key()))
    assert shared.reveal().hex() == VECTOR["shared"]
    derived = key_wrap.wrapping_secret(
        shared, ephemeral=wrapped.ephemeral, key_name=name_of(GOOD.public), nonce=GOOD.nonce
    )
    assert derived.reveal().hex() == VECTOR["derived"]
    assert wrapped.ciphertext.hex() == VECTOR["ciphertext"]


def test_the_document_shows_the_vector() -> None:
    text = (Path(__file__).parents[3] / "docs/protocol/attestation.md").read_text()
    shown = "".join(text.split())
    for value in (*VECTOR.values(), GOOD.public.hex(), GOOD.creation_data.hex()):
        assert value in shown


@pytest.mark.parametrize(
    "made",
    [
        replace(GOOD, kind=0x8018),
        replace(GOOD, certified_nonce=bytes(32)),
        replace(GOOD, certified_nonce=b""),
        replace(GOOD, outside_info=bytes(32)),
        replace(GOOD, certified_name=name_of(replace(GOOD, private=private_key(9)).public)),
        replace(GOOD, certified_hash=bytes(32)),
        *(replace(GOOD, attributes=ATTRIBUTES ^ attribute) for attribute in Attribute),
        replace(GOOD, scheme=b"\0\x19\0\x0b"),
        replace(GOOD, symmetric=b"\0\x06\0\x80\0\x43"),
        replace(GOOD, policy_pcrs={**PCRS, 7: bytes(32).hex()}),
        replace(GOOD, policy_pcrs={pcr: PCRS[pcr] for pcr in range(7)}),
        replace(GOOD, creation_pcrs={**PCRS, 0: bytes(32).hex()}),
        replace(GOOD, creation_pcrs={pcr: PCRS[pcr] for pcr in range(1, 8)}),
        replace(GOOD, hierarchy=OWNER_HIERARCHY),
    ],
)
def test_a_wrapping_key_that_is_wrong_in_one_thing_is_refused(made: MadeByHand) -> None:
    assert kind_of_refusal(made.key) in {"wrapping-key", "malformed-attestation"}


def test_a_statement_that_the_tpm_did_not_generate_is_refused() -> None:
    assert kind_of_refusal(replace(GOOD, magic=0xFF544348).key) == "malformed-attestation"


def test_a_wrapping_key_certified_by_another_ak_is_refused() -> None:
    other = SoftwareAk(private_key(8))
    assert kind_of_refusal(GOOD.key, ak=other.public) == "quote-signature"


def test_a_wrapping_key_of_an_older_migration_is_refused() -> None:
    with pytest.raises(IntegrityError, match="another migration"):
        wrap(GOOD.key, nonce=bytes(32))
    with pytest.raises(IntegrityError, match="another migration"):
        wrap(replace(GOOD, nonce=b"short").key, nonce=b"short")


def test_a_wrapping_key_made_under_other_pcrs_than_attested_is_refused() -> None:
    with pytest.raises(IntegrityError, match="attested"):
        wrap(GOOD.key, pcrs={**PCRS, 3: bytes(32).hex()})


def test_a_wrapped_key_opens_only_with_its_key_nonce_and_context() -> None:
    wrapped = wrap(GOOD.key)
    attempts: list[Callable[[], Secret]] = [
        lambda: open_with_private_key(replace(GOOD, private=private_key(4)), wrapped),
        lambda: open_with_private_key(GOOD, wrapped, nonce=bytes(32)),
        lambda: open_with_private_key(GOOD, wrapped, context=b"another move"),
        lambda: open_with_private_key(GOOD, replace(wrapped, ciphertext=b"")),
        lambda: open_with_private_key(GOOD, replace(wrapped, ephemeral=wrap_point(5))),
        lambda: open_with_private_key(replace(GOOD, policy_pcrs={0: bytes(32).hex()}), wrapped),
    ]
    for attempt in attempts:
        with pytest.raises(RefusedError) as caught:
            attempt()
        assert caught.value.kind == "wrapped-key"


def test_a_key_of_impossible_length_is_a_mistake_of_the_caller() -> None:
    for length in (0, 65):
        with pytest.raises(ValueError, match="64"):
            key_wrap.wrap(
                Secret(bytes(length)),
                GOOD.key,
                ak_public=GOOD.ak.public,
                nonce=GOOD.nonce,
                pcrs=PCRS,
                context=CONTEXT,
                ephemeral=private_key(3),
            )


@given(st.binary(max_size=400), st.binary(max_size=400), st.binary(max_size=200), st.binary(max_size=100))
@settings(max_examples=150, deadline=None)
def test_noise_is_refused_with_our_own_error(public: bytes, data: bytes, attest: bytes, sig: bytes) -> None:
    kind_of_refusal(WrappingKey(public, data, Quote(attest, sig)))


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_no_changed_bit_goes_unnoticed(data: st.DataObject) -> None:
    parts = [GOOD.key.public, GOOD.key.creation_data, GOOD.key.certification.attest]
    which = data.draw(st.integers(0, 2))
    at, bit = data.draw(st.integers(0, len(parts[which]) - 1)), data.draw(st.integers(0, 7))
    parts[which] = parts[which][:at] + bytes([parts[which][at] ^ (1 << bit)]) + parts[which][at + 1 :]
    changed = WrappingKey(parts[0], parts[1], Quote(parts[2], GOOD.key.certification.signature))
    kind_of_refusal(changed)


def wrap_point(number: int) -> bytes:
    return key_wrap.point_bytes(private_key(number).public_key())


VECTOR = {
    "key name": "000b4e0b389d27224de34ef77100e96a540fcb684602f3032ab0f8a4bc852be75bbb",
    "ephemeral": (
        "5ecbe4d1a6330a44c8f7ef951d4bf165e6c6b721efada985fb41661bc6e7fd6c"
        "8734640c4998ff7e374b06ce1a64a2ecd82ab036384fb83d9a79b127a27d5032"
    ),
    "shared": "b01a172a76a4602c92d3242cb897dde3024c740debb215b4c6b0aae93c2291a9",
    "derived": "f54b726bcc9b24595c2786bc56eb5e9c8af92b33c72d9a9d5c63adfa92abf083",
    "ciphertext": (
        "eca82623d4a69e18a8de751f5e73b5a652e7b99b3e6481d7990199ee35edfc6dec374a6e06fa222a088942e5d89309c8"
    ),
}
