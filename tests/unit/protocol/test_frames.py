"""The data plane's wire format: fixed vectors, and parsers that meet any bytes."""

from __future__ import annotations

import hashlib
import hmac
import struct

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from korora.errors import IntegrityError, PeerError
from korora.model.identity import Secret, SessionId
from korora.protocol import frames
from korora.protocol.frames import Direction, Header, Kind, Purpose, StreamKeys

SESSION = SessionId("00" * 32 + "ff" * 32)
CHUNK = 65536


def a_stand_in_for_the_exporter(label: str, context: bytes, length: int) -> Secret:
    """HMAC over what the exporter binds: enough to see that label and context are the specified ones."""
    return Secret(
        hmac.new(b"exporter secret", label.encode() + b"|" + context, hashlib.sha256).digest()[:length]
    )


def keys_of(stream: int = 1) -> StreamKeys:
    return frames.stream_keys(a_stand_in_for_the_exporter, SESSION, stream)


def header_bytes(kind: int = Kind.DATA, length: int = 5, sequence: int = 0) -> bytes:
    return struct.pack(">IIQ", kind, length, sequence)


# Preamble


def test_a_preamble_brings_its_ticket_back() -> None:
    assert frames.parse_preamble(frames.preamble(b"t" * 32)) == b"t" * 32


def test_a_preamble_cannot_be_taken_for_tls() -> None:
    assert frames.preamble(bytes(32))[0] != 0x16


@given(st.binary(max_size=80))
def test_any_other_bytes_are_no_preamble(data: bytes) -> None:
    if len(data) == 40 and data.startswith(frames.PREAMBLE_MAGIC):
        return
    with pytest.raises(PeerError) as refused:
        frames.parse_preamble(data)
    assert refused.value.kind == "bad-preamble"


@given(place=st.integers(0, 7), bit=st.integers(0, 7))
def test_every_bit_of_the_magic_is_checked(place: int, bit: int) -> None:
    data = bytearray(frames.preamble(bytes(32)))
    data[place] ^= 1 << bit
    with pytest.raises(PeerError):
        frames.parse_preamble(bytes(data))


# Header


@given(
    kind=st.integers(0, 2**32 - 1) | st.integers(0, 4),
    length=st.integers(0, 2**32 - 1) | st.integers(0, CHUNK + 1),
    found=st.integers(0, 2**64 - 1) | st.integers(6, 8),
)
def test_a_header_is_either_exactly_allowed_or_refused(kind: int, length: int, found: int) -> None:
    allowed = found == 7 and (
        (kind == Kind.DATA and 1 <= length <= CHUNK)
        or (kind == Kind.ALIVE and length == 0)
        or (kind == Kind.END and length == 16)
    )
    data = header_bytes(kind, length, found)
    if allowed:
        assert frames.parse_header(data, sequence=7, chunk_bytes=CHUNK) == Header(Kind(kind), length)
        return
    with pytest.raises(IntegrityError) as refused:
        frames.parse_header(data, sequence=7, chunk_bytes=CHUNK)
    assert refused.value.kind in {"frame-malformed", "frame-out-of-order"}


@given(st.binary(max_size=64))
def test_no_bytes_at_all_break_the_header_parser(data: bytes) -> None:
    try:
        header = frames.parse_header(data, sequence=0, chunk_bytes=CHUNK)
    except IntegrityError:
        return
    assert header.body_bytes <= CHUNK + 48


def test_a_frame_out_of_its_place_is_named_as_such() -> None:
    with pytest.raises(IntegrityError) as refused:
        frames.parse_header(header_bytes(sequence=3), sequence=2, chunk_bytes=CHUNK)
    assert refused.value.kind == "frame-out-of-order"
    assert "frame 3 came where frame 2 was due" in refused.value.message


# Keys


def test_every_connection_direction_and_session_has_its_own_secrets() -> None:
    other_session = SessionId("01" * 64)
    all_keys = [keys_of(s) for s in range(4)]
    all_keys += [frames.stream_keys(a_stand_in_for_the_exporter, other_session, s) for s in range(4)]
    seen = {each.reveal() for keys in all_keys for each in (keys.forward, keys.backward, Secret(keys.ticket))}
    assert len(seen) == 3 * len(all_keys)


def test_the_exporter_is_asked_with_the_specified_label_and_context() -> None:
    asked: list[tuple[str, bytes, int]] = []

    def export(label: str, context: bytes, length: int) -> Secret:
        asked.append((label, context, length))
        return Secret(bytes(32))

    frames.stream_keys(export, SESSION, 258 - 256)
    session = bytes(32) + b"\xff" * 32
    assert asked == [
        ("EXPERIMENTAL korora/1 data", session + b"\0\0\0\2" + bytes([purpose]), 32) for purpose in Purpose
    ]


@pytest.mark.parametrize("stream", [-1, 256, 2**32])
def test_a_stream_number_out_of_range_has_no_keys(stream: int) -> None:
    with pytest.raises(ValueError):
        keys_of(stream)


def test_keys_do_not_print_themselves() -> None:
    keys = keys_of()
    assert keys.forward.reveal().hex() not in repr(keys)
    assert repr(keys.forward.reveal()) not in repr(keys)


# Key ratchet


def test_the_key_changes_exactly_at_the_boundary() -> None:
    ratchet = frames.KeyRatchet(Secret(b"k" * 32))
    first = ratchet.cipher(0)
    assert ratchet.cipher(frames.FRAMES_PER_KEY - 1) is first
    second = ratchet.cipher(frames.FRAMES_PER_KEY)
    assert second is not first
    assert ratchet.cipher(frames.FRAMES_PER_KEY + 1) is second


def test_the_next_key_is_hkdf_expand_of_the_last() -> None:
    """RFC 5869, 2.3, computed here by hand: T(1) = HMAC(key, info ‖ 0x01)."""
    ratchet = frames.KeyRatchet(Secret(b"k" * 32))
    following = hmac.new(b"k" * 32, b"korora/1 data rekey" + b"\x01", hashlib.sha256).digest()
    sequence = frames.FRAMES_PER_KEY
    sealed = ratchet.cipher(sequence).encrypt(frames.nonce(sequence), b"text", b"header")
    assert AESGCM(following).decrypt(frames.nonce(sequence), sealed, b"header") == b"text"


def test_nonces_count_up_in_twelve_bytes() -> None:
    assert frames.nonce(0) == bytes(12)
    assert frames.nonce(2**64 - 1) == bytes(4) + b"\xff" * 8


# Running root


def test_a_root_depends_on_stream_direction_order_and_lengths() -> None:
    def root(stream: int, direction: Direction, *chunks: tuple[int, bytes]) -> bytes:
        running = frames.RunningRoot(keys_of(stream), direction)
        for length, digest in chunks:
            running.add(length, digest)
        return running.digest()

    one, two = (5, b"1" * 32), (5, b"2" * 32)
    roots = [
        root(1, Direction.FORWARD, one, two),
        root(1, Direction.FORWARD, two, one),
        root(1, Direction.FORWARD, one),
        root(1, Direction.FORWARD, one, (6, two[1])),
        root(1, Direction.RETURN, one, two),
        root(2, Direction.FORWARD, one, two),
        root(1, Direction.FORWARD),
    ]
    assert len(set(roots)) == len(roots)


def test_evidence_counts_frames_and_bytes() -> None:
    running = frames.RunningRoot(keys_of(3), Direction.RETURN)
    running.add(7, bytes(32))
    running.add(9, bytes(32))
    evidence = running.evidence()
    assert (evidence.stream, evidence.direction, evidence.frames, evidence.bytes) == (3, "return", 2, 16)
    assert evidence.root == "blake3:" + running.digest().hex()


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_totals_come_back(count: int, size: int) -> None:
    assert frames.parse_totals(frames.TOTALS.pack(count, size)) == frames.Totals(count, size)
