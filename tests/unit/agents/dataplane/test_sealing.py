"""Sealed frames open once, in order, for their own direction, or not at all."""

from __future__ import annotations

import pytest
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from korora.agents.dataplane.sealing import Opener, Sealer
from korora.errors import IntegrityError
from korora.model.identity import Secret
from korora.protocol.frames import FRAMES_PER_KEY, Direction, Kind, StreamKeys, nonce

CHUNK = 4096
KEYS = StreamKeys(
    stream=2, ticket=bytes(range(32)), forward=Secret(b"\x11" * 32), backward=Secret(b"\x22" * 32)
)


def sealer(keys: StreamKeys = KEYS, direction: Direction = Direction.FORWARD) -> Sealer:
    return Sealer(keys, direction, CHUNK)


def opener(keys: StreamKeys = KEYS, direction: Direction = Direction.FORWARD) -> Opener:
    return Opener(keys, direction, CHUNK)


def data(at: Sealer, payload: bytes) -> bytes:
    at.space[: len(payload)] = payload
    return bytes(at.data(len(payload)))


def opened(at: Opener, frame: bytes) -> tuple[Kind, bytes]:
    at.header_space[:] = frame[:16]
    body = at.expect()
    body[:] = frame[16:].ljust(len(body), b"\0")[: len(body)]  # as long as the header says
    kind, payload = at.open()
    return kind, bytes(payload)


def test_what_is_sealed_opens_in_order_with_equal_roots() -> None:
    here, there = sealer(), opener()
    frames = [data(here, b"one"), data(here, b"x" * CHUNK), bytes(here.alive()), data(here, b"three")]
    assert [opened(there, frame) for frame in frames] == [
        (Kind.DATA, b"one"),
        (Kind.DATA, b"x" * CHUNK),
        (Kind.ALIVE, b""),
        (Kind.DATA, b"three"),
    ]
    assert opened(there, bytes(here.end()))[0] is Kind.END
    assert there.evidence() == here.evidence()
    assert (here.evidence().frames, here.evidence().bytes) == (3, CHUNK + 8)


def test_neither_payload_nor_its_digest_shows_on_the_wire() -> None:
    payload = b"a page that somebody could guess"
    frame = data(sealer(), payload)
    assert payload not in frame
    assert blake3(payload).digest() not in frame


def test_the_same_payload_twice_gives_different_frames() -> None:
    here = sealer()
    assert data(here, b"same")[16:] != data(here, b"same")[16:]


@pytest.mark.parametrize("other", ["direction", "key", "sequence"])
def test_a_frame_that_belongs_elsewhere_does_not_open(other: str) -> None:
    frame = data(sealer(), b"payload")
    if other == "direction":
        there = opener(direction=Direction.RETURN)
    elif other == "key":
        there = opener(StreamKeys(2, KEYS.ticket, Secret(b"\x12" * 32), KEYS.backward))
    else:
        there = opener()
        opened(there, frame)
    with pytest.raises(IntegrityError):
        opened(there, frame)


@settings(max_examples=300)
@given(place=st.integers(0, 16 + 32 + 50 + 16 - 1), bit=st.integers(0, 7))
def test_no_bit_of_a_frame_may_change(place: int, bit: int) -> None:
    frame = bytearray(data(sealer(), b"p" * 50))
    frame[place] ^= 1 << bit
    with pytest.raises(IntegrityError):
        opened(opener(), bytes(frame))


def test_a_chunk_whose_sender_hashed_something_else_is_refused() -> None:
    """Authenticated, yet wrong: as after a memory fault between hashing and sealing."""
    here, there = sealer(), opener()
    header = (1).to_bytes(4, "big") + (4).to_bytes(4, "big") + bytes(8)
    body = AESGCM(KEYS.forward.reveal()).encrypt(bytes(12), blake3(b"good").digest() + b"evil", header)
    with pytest.raises(IntegrityError) as refused:
        opened(there, header + body)
    assert refused.value.kind == "chunk-differs"
    assert here.sequence == 0


@pytest.mark.parametrize(("root_ok", "totals_ok"), [(False, True), (True, False)])
def test_an_end_that_tells_another_story_is_refused(root_ok: bool, totals_ok: bool) -> None:
    root = bytes.fromhex(opener().evidence().root.removeprefix("blake3:")) if root_ok else bytes(32)
    totals = bytes(16) if totals_ok else bytes(15) + b"\1"
    header = (3).to_bytes(4, "big") + (16).to_bytes(4, "big") + bytes(8)
    body = AESGCM(KEYS.forward.reveal()).encrypt(bytes(12), root + totals, header)
    with pytest.raises(IntegrityError) as refused:
        opened(opener(), header + body)
    assert refused.value.kind == "root-differs"


def test_frames_open_on_both_sides_of_a_key_change() -> None:
    here, there = sealer(), opener()
    for number in range(FRAMES_PER_KEY + 2):
        assert opened(there, data(here, b"%d" % number)) == (Kind.DATA, b"%d" % number)
    assert there.evidence() == here.evidence()


def test_the_first_key_opens_nothing_after_the_change() -> None:
    here = sealer()
    for _ in range(FRAMES_PER_KEY):
        here.alive()
    frame = bytes(here.alive())
    with pytest.raises(InvalidTag):
        AESGCM(KEYS.forward.reveal()).decrypt(nonce(FRAMES_PER_KEY), frame[16:], frame[:16])


# docs/protocol/frames.md, "Test vectors": these bytes are the specification's.
VECTOR_DATA = (
    "00000001000000060000000000000000"
    "624daa4fa16a46403e89fcc8fea488ea79185094e7a14cb4c84fb65d3f4b8f82cb92a3051272"
    "370c20b4a270ff47ef4e25ae27d3cb14"
)
VECTOR_ALIVE = (
    "00000002000000000000000000000001"
    "6784fed25a5589c8a99f881eda7744857a317649389ff752367a2176a5ae4efa"
    "339a6ba2256af65856fb75461046de45"
)
VECTOR_END = (
    "00000003000000100000000000000002"
    "e899656bbb6751a44e3346acf75a24bdd19da3d3e38863aea53f930ec10af6c65fde47370548c414d1155843740630818"
    "cdb5aa1cb19d9ce70e6ca1aac8f9763"
)
VECTOR_ROOT = "ae0ff61a5276b6d8d0a6735b45703e555e7fc12b4c22530a6c7ab611cd64e569"


def test_the_vectors_of_the_specification() -> None:
    here = sealer()
    assert data(here, b"korora").hex() == VECTOR_DATA
    assert bytes(here.alive()).hex() == VECTOR_ALIVE
    assert bytes(here.end()).hex() == VECTOR_END
    assert here.evidence().root == "blake3:" + VECTOR_ROOT


def test_the_vectors_follow_from_the_primitives_alone() -> None:
    """The same bytes, computed as the specification's text says, without the code under test."""
    cipher = AESGCM(b"\x11" * 32)
    digest = blake3(b"korora").digest()
    named = bytes(range(32)) + b"\0\0\0\2" + b"forward"
    root = blake3(named + b"\0\0\0\6" + digest, derive_key_context="korora/1 data stream root").digest()
    totals = (1).to_bytes(8, "big") + (6).to_bytes(8, "big")
    for sequence, (vector, sealed) in enumerate(
        [(VECTOR_DATA, digest + b"korora"), (VECTOR_ALIVE, root), (VECTOR_END, root + totals)]
    ):
        header, body = bytes.fromhex(vector)[:16], bytes.fromhex(vector)[16:]
        assert cipher.encrypt(sequence.to_bytes(12, "big"), sealed, header) == body
    assert root.hex() == VECTOR_ROOT


@pytest.mark.parametrize("chunk", [0, 4095, (1 << 20) + 1])
def test_a_chunk_outside_the_limits_is_refused(chunk: int) -> None:
    with pytest.raises(ValueError):
        Sealer(KEYS, Direction.FORWARD, chunk)
    with pytest.raises(ValueError):
        Opener(KEYS, Direction.FORWARD, chunk)
