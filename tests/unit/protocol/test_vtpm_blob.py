"""The encrypted vTPM blob: its vectors, and what it refuses."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from korora.errors import IntegrityError
from korora.model.identity import Secret, SessionId, VmName
from korora.protocol.vtpm_blob import MAX_BLOB, BlobType, blob_context, open_blob, seal_blob

KEY = Secret(bytes(range(32)))
SESSION = SessionId("00" * 32 + "ff" * 32)
CONTEXT = blob_context(VmName("web-1"), SESSION, 7)

VECTORS = [
    (BlobType.PERMANENT, 0, b"permanent state"),
    (BlobType.VOLATILE, 0, b"volatile state"),
    (BlobType.SAVESTATE, 0, b""),
]
VECTOR_BYTES = [  # docs/protocol/vtpm.md
    "4b56423101000000000000000000000f65b3cd91259a55707a0e224d8dd25fcdf5bd9f25bdc32ce50fd09675e9198b",
    "4b56423102000000000000000000000ebf1e421cc022b6b4997e487003246cde754a5738e8462b051cd2be1f41d3",
    "4b5642310300000000000000000000001959813e1d5da3f2ebc5c9711db64850",
]


def test_the_context_is_session_epoch_and_name() -> None:
    assert bytes(32) + b"\xff" * 32 + (7).to_bytes(8, "big") + b"\x05web-1" == CONTEXT


@pytest.mark.parametrize(("kind", "flags", "state"), VECTORS)
def test_what_was_sealed_opens(kind: BlobType, flags: int, state: bytes) -> None:
    assert open_blob(KEY, CONTEXT, kind, flags, seal_blob(KEY, CONTEXT, kind, flags, state)) == state


def test_the_vectors_of_the_specification_hold() -> None:
    sealed = [seal_blob(KEY, CONTEXT, *vector).hex() for vector in VECTORS]
    assert sealed == VECTOR_BYTES


@given(st.binary(max_size=300), st.sampled_from(list(BlobType)), st.integers(0, 2**32 - 1), st.data())
def test_any_changed_bit_is_refused(state: bytes, kind: BlobType, flags: int, data: st.DataObject) -> None:
    blob = bytearray(seal_blob(KEY, CONTEXT, kind, flags, state))
    blob[data.draw(st.integers(0, len(blob) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(IntegrityError):
        open_blob(KEY, CONTEXT, kind, flags, bytes(blob))


@given(st.integers(0, 60))
def test_a_cut_blob_is_refused(length: int) -> None:
    blob = seal_blob(KEY, CONTEXT, BlobType.VOLATILE, 0, b"x" * 40)
    with pytest.raises(IntegrityError):
        open_blob(KEY, CONTEXT, BlobType.VOLATILE, 0, blob[:length])


@given(st.binary(max_size=200))
def test_no_other_bytes_open(blob: bytes) -> None:
    with pytest.raises(IntegrityError):
        open_blob(KEY, CONTEXT, BlobType.PERMANENT, 0, blob)


@pytest.mark.parametrize(
    ("context", "words"),
    [
        (blob_context(VmName("web-2"), SESSION, 7), "not authentic"),
        (blob_context(VmName("web-1"), SessionId("01" * 64), 7), "not authentic"),
        (blob_context(VmName("web-1"), SESSION, 8), "not authentic"),
    ],
    ids=["another VM", "another session", "another epoch"],
)
def test_a_blob_of_another_move_is_refused(context: bytes, words: str) -> None:
    blob = seal_blob(KEY, CONTEXT, BlobType.PERMANENT, 0, b"state")
    with pytest.raises(IntegrityError, match=words):
        open_blob(KEY, context, BlobType.PERMANENT, 0, blob)


def test_a_wrong_key_is_refused() -> None:
    blob = seal_blob(KEY, CONTEXT, BlobType.PERMANENT, 0, b"state")
    with pytest.raises(IntegrityError, match="under another key"):
        open_blob(Secret(bytes(32)), CONTEXT, BlobType.PERMANENT, 0, blob)


def test_a_blob_in_another_blobs_place_is_refused() -> None:
    blob = seal_blob(KEY, CONTEXT, BlobType.PERMANENT, 0, b"state")
    with pytest.raises(IntegrityError, match="is of type 1, not 2"):
        open_blob(KEY, CONTEXT, BlobType.VOLATILE, 0, blob)


def test_other_flags_are_refused() -> None:
    blob = seal_blob(KEY, CONTEXT, BlobType.PERMANENT, 0, b"state")
    with pytest.raises(IntegrityError, match="came with flags 0x2"):
        open_blob(KEY, CONTEXT, BlobType.PERMANENT, 2, blob)


def test_plain_state_is_refused() -> None:
    with pytest.raises(IntegrityError, match="not a Korora blob"):
        open_blob(KEY, CONTEXT, BlobType.PERMANENT, 0, bytes(5000))


def test_an_endless_blob_is_refused() -> None:
    with pytest.raises(IntegrityError, match="bytes long"):
        open_blob(KEY, CONTEXT, BlobType.PERMANENT, 0, bytes(MAX_BLOB + 1))


def test_every_type_has_a_nonce_of_its_own() -> None:
    bodies = {seal_blob(KEY, CONTEXT, kind, 0, bytes(64))[16:80] for kind in BlobType}
    assert len(bodies) == len(BlobType)


def test_a_session_of_another_length_is_a_bug() -> None:
    with pytest.raises(ValueError, match="64 bytes"):
        blob_context(VmName("web-1"), SessionId("00"), 1)


def test_a_key_of_another_length_is_a_bug() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        seal_blob(Secret(bytes(16)), CONTEXT, BlobType.PERMANENT, 0, hashlib.sha256().digest())
