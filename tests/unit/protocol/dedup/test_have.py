"""The messages about a disk's parts: vectors, every bound, and parsers that meet any bytes."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from korora.errors import PeerError
from korora.protocol.dedup import have
from korora.protocol.dedup.have import Coming, Held, Put, Settled, answer_to, bits_of, decode, encode
from korora.protocol.dedup.names import ZEROS, Grain, name_of

PAGE = Path(__file__).parents[4] / "docs/protocol/deduplication.md"
ONE, TWO, THREE = (name_of(text) for text in (b"one", b"two", b"three"))
VECTORS: dict[str, have.AnySaid] = {
    "coming": Coming(7, Grain.UNIT, ONE + TWO + THREE),
    "held": Held(7, bits_of([True, False, True])),
    "put": Put(7, ((0, 5), (2, 9)), ((1, 6, 8),)),
    "settled": Settled(7, (8,)),
}


def refused(data: bytes) -> str:
    with pytest.raises(PeerError) as error:
        decode(data)
    assert error.value.kind == "malformed-message"
    return error.value.message


@pytest.mark.parametrize("name", VECTORS)
def test_a_vector_is_what_the_code_and_the_document_say(name: str) -> None:
    written = re.search(rf"^{name:8} ([0-9a-f\n ]+)$", PAGE.read_text(), re.MULTILINE)
    assert written is not None
    data = bytes.fromhex(written[1].replace("\n", " "))
    assert data == encode(VECTORS[name])
    assert decode(data) == VECTORS[name]


def test_the_bounds_are_those_of_the_document() -> None:
    text = PAGE.read_text().replace(",", "")
    for bound in (have.MAX_NAMES, have.MAX_PLACES, have.MAX_BATCHES):
        assert f"| {bound} " in text
    assert f"{have.MAX_MESSAGE_BYTES >> 20} MiB" in text


numbers = st.integers(0, (1 << 52) - 1)
names = st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=9, unique=True)
messages = st.one_of(
    st.builds(Coming, st.integers(0, 2**32 - 1), st.sampled_from(Grain), names.map(b"".join)),
    st.builds(Held, st.integers(0, 2**32 - 1), st.binary(min_size=1, max_size=9)),
    st.builds(Settled, st.just(0), st.sets(numbers, max_size=9).map(lambda some: tuple(sorted(some)))),
)


@given(messages)
def test_what_was_encoded_is_decoded(message: have.AnySaid) -> None:
    assert decode(encode(message)) == message


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_parser(data: bytes) -> None:
    try:
        message = decode(data)
    except PeerError as error:
        assert error.kind == "malformed-message"
    else:
        assert encode(message) == data


@given(st.sampled_from(sorted(VECTORS)), st.integers(0, 200), st.integers(0, 7))
def test_a_flipped_bit_is_another_message_or_none(name: str, place: int, bit: int) -> None:
    data = bytearray(encode(VECTORS[name]))
    data[place % len(data)] ^= 1 << bit
    try:
        assert decode(bytes(data)) != VECTORS[name]
    except PeerError as error:
        assert error.kind == "malformed-message"


@pytest.mark.parametrize("zero", sorted(ZEROS))
def test_zeros_are_not_asked_for(zero: bytes) -> None:
    assert "zeros" in refused(encode(Coming(0, Grain.CHUNK, ONE + zero)))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (encode(Coming(0, Grain.CHUNK, ONE + TWO + ONE)), "twice"),
        (encode(Coming(0, Grain.CHUNK, ONE + TWO[:31])), "cut short"),
        (encode(Coming(0, Grain.CHUNK, b"")), "length"),
        (encode(Coming(-1, Grain.CHUNK, ONE)), ">= 0"),
        (encode(Coming(1 << 32, Grain.CHUNK, ONE)), "<"),
        (encode(Coming(0, 8192, ONE)), "enum"),  # type: ignore[arg-type]
        (encode(Coming(0, Grain.CHUNK, bytes(32 * (have.MAX_NAMES + 1)))), "length"),
        (encode(Held(0, b"")), "length"),
        (encode(Held(0, bytes(have.MAX_NAMES // 8 + 1))), "length"),
        (encode(Put(0, ((0, 5), (1, 5)), ())), "twice"),
        (encode(Put(0, ((0, 5),), ((1, 4, 5),))), "twice"),
        (encode(Put(0, (), ((1, 5, 5),))), "later"),
        (encode(Put(0, ((have.MAX_NAMES, 5),), ())), "<"),
        (encode(Put(0, ((0, 1 << 52),), ())), "<="),
        (encode(Put(0, tuple((0, place) for place in range(have.MAX_PLACES)), ((0, 1, 1 << 20),))), "many"),
        (encode(Settled(0, (5, 4))), "order"),
        (encode(Settled(0, (5, 5))), "order"),
        (msgspec.msgpack.encode({"t": "held", "batch": 0, "bits": b"\0", "more": 1}), "more"),
        (msgspec.msgpack.encode({"t": "other", "batch": 0}), "other"),
        (bytes(have.MAX_MESSAGE_BYTES + 1), "more than"),
        (b"", "truncated"),
        (b"\x91" * 100_000, "malformed|recursion|truncated|type|object"),
    ],
)
def test_nonsense_is_refused(data: bytes, why: str) -> None:
    assert re.search(why, refused(data), re.IGNORECASE)


def test_the_longest_messages_fit() -> None:
    most = b"".join(number.to_bytes(32, "big") for number in range(1, have.MAX_NAMES + 1))
    assert decode(encode(Coming(0, Grain.UNIT, most)))
    far = range((1 << 52) - have.MAX_PLACES, 1 << 52)
    assert decode(encode(Put(0, (), tuple((have.MAX_NAMES - 1, place - 1, place) for place in far))))
    assert decode(encode(Settled(0, tuple(far))))


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_an_answer_says_for_each_name_whether_it_is_held(bits: list[bool]) -> None:
    coming = Coming(3, Grain.UNIT, b"".join(bytes([number]) * 32 for number in range(len(bits))))
    assert answer_to(coming, Held(3, bits_of(bits))) == bits


@pytest.mark.parametrize("held", [Held(8, b"\xe0"), Held(7, b"\xe0\x00"), Held(7, b"\xf0"), Held(7, b"\xe1")])
def test_what_is_no_answer_to_the_question_is_refused(held: Held) -> None:
    coming = Coming(7, Grain.UNIT, ONE + TWO + THREE)
    assert answer_to(coming, Held(7, b"\xe0")) == [True, True, True]
    with pytest.raises(PeerError, match=r"no answer|more is held"):
        answer_to(coming, held)


@pytest.mark.parametrize(
    ("put", "why"),
    [
        (Put(8, (), ()), "due"),
        (Put(7, ((1, 0),), ()), "not held"),
        (Put(7, ((3, 0),), ()), "not held"),
        (Put(7, ((0, 10),), ()), "beyond"),
        (Put(7, (), ((1, 0, 10),)), "beyond"),
        (Put(7, (), ((3, 0, 1),)), "not named"),
    ],
)
def test_only_what_is_held_is_put_and_only_on_the_disk(put: Put, why: str) -> None:
    coming = Coming(7, Grain.UNIT, ONE + TWO + THREE)
    held = [True, False, True]
    have.check_put(Put(7, ((0, 9), (2, 1)), ((1, 3, 4),)), coming, held, 10)
    with pytest.raises(PeerError, match=why):
        have.check_put(put, coming, held, 10)


def test_only_what_was_to_be_put_can_be_lacking() -> None:
    put = Put(7, ((0, 9),), ((1, 3, 4),))
    have.check_settled(Settled(7, (4, 9)), put)
    for settled in (Settled(7, (3,)), Settled(8, ())):
        with pytest.raises(PeerError):
            have.check_settled(settled, put)
