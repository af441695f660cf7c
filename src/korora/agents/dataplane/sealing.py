"""Turn payload into sealed frames and back, in buffers that live as long as the direction does.

Promise: nothing that fails authentication is handed out; memory is a few chunks, whatever passes through.
Limit: no I/O. One object serves one direction of one connection, from one thread.
"""

from __future__ import annotations

from typing import Final

from blake3 import blake3
from cryptography.exceptions import InvalidTag

from korora.errors import IntegrityError
from korora.model.evidence import StreamRoot
from korora.protocol.frames import (
    DIGEST_BYTES,
    HEADER,
    HEADER_BYTES,
    MAX_CHUNK_BYTES,
    MIN_CHUNK_BYTES,
    NETWORK_REMEDY,
    OVERHEAD_BYTES,
    Direction,
    Header,
    KeyRatchet,
    Kind,
    RunningRoot,
    StreamKeys,
    Totals,
    nonce,
    parse_header,
    parse_totals,
)

_TEST_MEMORY: Final = "test the memory of both hosts; one of them computes wrongly"


class Sealer:
    """Fill `space`, then take the wire bytes. Each view is valid until the next call.

    Plain and sealed bytes stand in two buffers; a frame leaves as one piece: header, ciphertext, tag.
    """

    def __init__(self, keys: StreamKeys, direction: Direction, chunk_bytes: int) -> None:
        check_chunk(chunk_bytes)
        self._ratchet = KeyRatchet(keys.key(direction))
        self._root = RunningRoot(keys, direction)
        self._plain = memoryview(bytearray(DIGEST_BYTES + chunk_bytes))
        self._wire = memoryview(bytearray(OVERHEAD_BYTES + chunk_bytes))
        self._header = self._wire[:HEADER_BYTES]
        self._sequence = 0
        self.space = self._plain[DIGEST_BYTES:]

    def data(self, payload_bytes: int) -> memoryview:
        """Seal the first bytes of `space`."""
        digest = blake3(self.space[:payload_bytes]).digest()
        self._root.add(payload_bytes, digest)
        return self._seal(Kind.DATA, payload_bytes, digest)

    def alive(self) -> memoryview:
        return self._seal(Kind.ALIVE, 0, self._root.digest())

    def end(self) -> memoryview:
        totals = self._root.totals()
        self.space[: len(totals)] = totals
        return self._seal(Kind.END, len(totals), self._root.digest())

    @property
    def sequence(self) -> int:
        """Of the frame that comes next."""
        return self._sequence

    def evidence(self) -> StreamRoot:
        return self._root.evidence()

    def _seal(self, kind: Kind, payload_bytes: int, digest: bytes) -> memoryview:
        sequence = self._sequence
        HEADER.pack_into(self._header, 0, kind, payload_bytes, sequence)
        self._plain[:DIGEST_BYTES] = digest
        frame = self._wire[: OVERHEAD_BYTES + payload_bytes]
        self._ratchet.cipher(sequence).encrypt_into(
            nonce(sequence), self._plain[: DIGEST_BYTES + payload_bytes], self._header, frame[HEADER_BYTES:]
        )
        self._sequence = sequence + 1
        return frame


class Opener:
    """Fill `header_space`, ask `expect`, fill the body it returns, then `open` it.

    Raises IntegrityError for a frame that is not exactly the next one of this direction; after that the
    object must not be used again.
    """

    def __init__(self, keys: StreamKeys, direction: Direction, chunk_bytes: int) -> None:
        check_chunk(chunk_bytes)
        self._ratchet = KeyRatchet(keys.key(direction))
        self._root = RunningRoot(keys, direction)
        self._chunk_bytes = chunk_bytes
        self._body = memoryview(bytearray(OVERHEAD_BYTES - HEADER_BYTES + chunk_bytes))
        self._plain = memoryview(bytearray(DIGEST_BYTES + chunk_bytes))
        self._header = Header(Kind.ALIVE, 0)
        self._sequence = 0
        self.header_space = memoryview(bytearray(HEADER_BYTES))

    def expect(self) -> memoryview:
        """Where the body goes, exactly as long as the header in `header_space` announces it."""
        self._header = parse_header(self.header_space, sequence=self._sequence, chunk_bytes=self._chunk_bytes)
        return self._body[: self._header.body_bytes]

    def open(self) -> tuple[Kind, memoryview]:
        """Authenticate the frame. DATA comes with its payload, a view valid until the next call."""
        kind, payload_bytes = self._header.kind, self._header.payload_bytes
        plain = self._plain[: DIGEST_BYTES + payload_bytes]
        self._decrypt(plain)
        digest, payload = bytes(plain[:DIGEST_BYTES]), plain[DIGEST_BYTES:]
        if kind is Kind.DATA:
            self._check_data(payload, digest)
        else:
            self._check_root(digest)
        if kind is Kind.END:
            self._check_totals(parse_totals(payload))
        self._sequence += 1
        return kind, payload

    @property
    def sequence(self) -> int:
        """Of the frame that comes next."""
        return self._sequence

    def evidence(self) -> StreamRoot:
        return self._root.evidence()

    def _decrypt(self, plain: memoryview) -> None:
        cipher = self._ratchet.cipher(self._sequence)
        sealed = self._body[: self._header.body_bytes]
        try:
            cipher.decrypt_into(nonce(self._sequence), sealed, self.header_space, plain)
        except InvalidTag as failed:
            raise IntegrityError(
                "a frame was changed on its way, or sealed by somebody else",
                kind="frame-altered",
                remedy=NETWORK_REMEDY,
            ) from failed

    def _check_data(self, payload: memoryview, digest: bytes) -> None:
        # Authenticated, so only a fault inside one of the hosts can make these differ.
        if blake3(payload).digest() != digest:
            raise IntegrityError(
                "a chunk differs from what its sender hashed", kind="chunk-differs", remedy=_TEST_MEMORY
            )
        self._root.add(len(payload), digest)

    def _check_root(self, digest: bytes) -> None:
        if digest != self._root.digest():
            raise IntegrityError("the running roots differ", kind="root-differs", remedy=_TEST_MEMORY)

    def _check_totals(self, totals: Totals) -> None:
        if totals != Totals(self._root.frames, self._root.payload_bytes):
            raise IntegrityError("the totals differ", kind="root-differs", remedy=_TEST_MEMORY)


def check_chunk(chunk_bytes: int) -> None:
    if not MIN_CHUNK_BYTES <= chunk_bytes <= MAX_CHUNK_BYTES:
        raise ValueError(f"chunks have {MIN_CHUNK_BYTES} to {MAX_CHUNK_BYTES} bytes, not {chunk_bytes}")
