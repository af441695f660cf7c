"""A session has one name, a quote fits one session, and the rule cannot be weakened."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from korora.errors import KororaError, PeerError, RefusedError
from korora.model.evidence import HostEvidence, Quote
from korora.protocol import handshake
from korora.protocol.messages import Evidence, Hello, Offer, decode, encode


def hello(role: str, half: bytes, offer: Offer = handshake.OFFER, version: int = 1) -> Hello:
    return Hello(version, role, "ab"[role == "destination"], half, offer, b"ek", b"ak", b"enrolment")


def greet(source: Hello, destination: Hello) -> handshake.Greeting:
    return handshake.greeting(source, encode(source), destination, encode(destination))


WEAKER = msgspec.structs.replace(handshake.OFFER, digests=("BLAKE3", "NONE"))
GREETED = greet(hello("source", b"s" * 32), hello("destination", b"d" * 32))


def test_the_session_is_named_by_both_halves_the_sources_first() -> None:
    assert GREETED.session == (b"s" * 32 + b"d" * 32).hex()


def test_the_quotes_of_the_two_roles_differ() -> None:
    binding = b"b" * 32
    assert handshake.qualifying_data("source", GREETED, binding) != handshake.qualifying_data(
        "destination", GREETED, binding
    )


def test_a_quote_fits_one_channel_and_one_pair_of_hellos() -> None:
    here = handshake.qualifying_data("source", GREETED, b"b" * 32)
    assert here != handshake.qualifying_data("source", GREETED, b"c" * 32)
    for other in (
        greet(hello("source", b"t" * 32), hello("destination", b"d" * 32)),
        greet(hello("source", b"s" * 32), hello("destination", b"e" * 32)),
        greet(
            hello("source", b"s" * 32),
            hello("destination", b"d" * 32, WEAKER),
        ),
    ):
        assert here != handshake.qualifying_data("source", other, b"b" * 32)


def test_the_layout_of_the_qualifying_data_is_fixed() -> None:
    """The vector of docs/PROTOCOL.md."""
    fixed = replace(GREETED, source_bytes=b"HELLO-S", destination_bytes=b"HELLO-D")
    assert (
        handshake.qualifying_data("source", fixed, bytes(range(32))).hex()
        == "13753d32164488ee0498c6f6cf7666e06872f52b1908defd2e3aaf46a67f4d1e"
    )
    assert (
        handshake.qualifying_data("destination", fixed, bytes(range(32))).hex()
        == "dfad6a5b106e1d2c59969167ddc43d616eca9e077e81de4292d1092321b8b91a"
    )


def test_an_echoed_half_is_refused() -> None:
    with pytest.raises(PeerError) as caught:
        greet(hello("source", b"s" * 32), hello("destination", b"s" * 32))
    assert caught.value.kind == "echoed-half"


def test_another_version_is_refused_with_both_numbers() -> None:
    with pytest.raises(RefusedError, match="version 2"):
        greet(hello("source", b"s" * 32, version=2), hello("destination", b"d" * 32))


def test_two_sources_do_not_greet_each_other() -> None:
    with pytest.raises(PeerError):
        greet(hello("source", b"s" * 32), hello("source", b"d" * 32))


def test_the_rule_is_the_sources_first_choice_that_the_destination_shares() -> None:
    small = msgspec.structs.replace(handshake.OFFER, chunk_bytes=(131072, 262144), max_streams=2)
    greeted = greet(hello("source", b"s" * 32), hello("destination", b"d" * 32, small))
    rule = handshake.choose_rule(greeted, tls_version="TLSv1.3", tls_group="X25519MLKEM768", streams=5)
    assert rule.chunk_bytes == 262144
    assert rule.streams == 2


def test_a_weaker_rule_than_both_offers_give_is_a_downgrade() -> None:
    rule = handshake.choose_rule(GREETED, tls_version="TLSv1.3", tls_group="X25519MLKEM768", streams=1)
    handshake.check_rule(rule, GREETED, tls_version="TLSv1.3", tls_group="X25519MLKEM768")
    for weaker in (
        replace(rule, aead="NULL"),
        replace(rule, tls_group="secp256r1"),
        replace(rule, digest="MD5"),
        replace(rule, chunk_bytes=1),
        replace(rule, streams=1000),
    ):
        with pytest.raises(RefusedError) as caught:
            handshake.check_rule(weaker, GREETED, tls_version="TLSv1.3", tls_group="X25519MLKEM768")
        assert caught.value.kind == "downgrade"


def test_hosts_that_share_nothing_do_not_agree() -> None:
    foreign = msgspec.structs.replace(handshake.OFFER, aeads=("ROT13",))
    greeted = greet(hello("source", b"s" * 32), hello("destination", b"d" * 32, foreign))
    with pytest.raises(RefusedError) as caught:
        handshake.choose_rule(greeted, tls_version="TLSv1.3", tls_group="x", streams=1)
    assert caught.value.kind == "no-shared-cryptography"


@given(st.binary(max_size=300))
def test_no_bytes_crash_the_parser(data: bytes) -> None:
    try:
        decode(data)
    except KororaError as error:
        assert error.kind == "malformed-message"


@given(st.integers(0, 400), st.integers(1, 255))
def test_a_changed_hello_is_refused_or_changes_the_quote(position: int, change: int) -> None:
    original = hello("source", b"s" * 32)
    body = bytearray(encode(original))
    body[position % len(body)] ^= change
    try:
        changed = decode(bytes(body))
    except PeerError:
        return
    if not isinstance(changed, Hello):
        return
    other = hello("destination", b"d" * 32)
    try:
        greeted = handshake.greeting(changed, bytes(body), other, encode(other))
    except KororaError:
        return
    binding = b"b" * 32
    assert handshake.qualifying_data("source", greeted, binding) != handshake.qualifying_data(
        "source", GREETED, binding
    )


def test_a_local_question_is_never_what_a_session_quotes() -> None:
    nonce = handshake.qualifying_data("source", GREETED, b"b" * 32)
    assert handshake.local_question(nonce) != nonce
    assert handshake.local_question(nonce) != handshake.local_question(bytes(32))


def test_a_message_has_one_spelling_down_to_its_nested_values() -> None:
    known = Evidence(HostEvidence(Quote(b"a", b"s"), {0: "00" * 32}, b"log"))
    assert decode(encode(known)) == known
    loose = msgspec.msgpack.decode(encode(known))
    loose["evidence"]["stowaway"] = 1
    with pytest.raises(PeerError, match="one spelling"):
        decode(msgspec.msgpack.encode(loose))
