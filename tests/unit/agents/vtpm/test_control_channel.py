"""Reading the hypervisor's requests, and swtpm's replies."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from korora.agents.vtpm.interposer import control_channel as control
from korora.agents.vtpm.interposer.control_channel import Command, OversizedError, Request
from korora.errors import PeerError
from korora.protocol.vtpm_blob import MAX_BLOB, BlobType


@contextlib.contextmanager
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair()
    left.settimeout(10)
    right.settimeout(10)
    with left, right:
        yield left, right


def heard(sent: bytes) -> list[Request]:
    """All requests read from `sent` followed by a hang-up."""
    with pair() as (hypervisor, ours):
        hypervisor.sendall(sent)
        hypervisor.close()
        requests = []
        while request := control.read_request(ours):
            requests.append(request)
        return requests


def test_requests_are_read_one_after_the_other() -> None:
    requests = [
        Request(Command.INIT, struct.pack(">I", 1)),
        Request(Command.STOP),
        Request(Command.SET_STATEBLOB, struct.pack(">III", 0, 2, 3) + b"abc"),
        Request(Command.GET_STATEBLOB, struct.pack(">III", 1, 1, 0)),
    ]
    assert heard(b"".join(request.encoded() for request in requests)) == requests


@given(st.binary(max_size=64))
def test_no_bytes_are_anything_but_requests_or_a_peers_error(sent: bytes) -> None:
    with contextlib.suppress(PeerError):
        assert b"".join(request.encoded() for request in heard(sent)) == sent


def test_an_unknown_command_is_refused() -> None:
    with pytest.raises(PeerError, match="0x63"):
        heard(struct.pack(">I", 99))


def test_an_endless_blob_is_refused_before_it_is_read() -> None:
    with pytest.raises(OversizedError):
        heard(struct.pack(">IIII", Command.SET_STATEBLOB, 0, 1, MAX_BLOB + 1))


def test_descriptors_of_a_broken_request_are_closed() -> None:
    with pair() as (hypervisor, ours):
        reader, writer = os.pipe()
        socket.send_fds(hypervisor, [struct.pack(">I", 99)], [writer])
        os.close(writer)
        with pytest.raises(PeerError):
            control.read_request(ours)
        assert os.read(reader, 1) == b"", "nobody holds the other end any more"
        os.close(reader)


def test_a_state_in_pieces_is_put_together() -> None:
    state = os.urandom(10_000)

    def swtpm(link: socket.socket) -> None:
        sent = 0
        while sent < len(state):
            _, _, _, offset = struct.unpack(">IIII", control.read_exactly(link, 16))
            assert offset == sent
            piece = state[sent : sent + 4096]
            link.sendall(struct.pack(">IIII", 0, 0, len(state), len(piece)) + piece)
            sent += len(piece)

    with pair() as (ours, theirs):
        thread = threading.Thread(target=swtpm, args=(theirs,))
        thread.start()
        assert control.get_state(ours, BlobType.PERMANENT).state == state
        thread.join(10)


@pytest.mark.parametrize("answer", [struct.pack(">I", 0xA), struct.pack(">IIII", 0xA, 0, 0, 0)])
def test_a_failure_is_read_in_either_length(answer: bytes) -> None:
    with pair() as (ours, theirs):
        theirs.sendall(answer)
        assert control.get_state(ours, BlobType.VOLATILE).result == 0xA


def test_a_silent_end_is_a_peers_error() -> None:
    with pair() as (ours, theirs):
        theirs.close()
        with pytest.raises((PeerError, OSError)):
            control.exchange(ours, Request(Command.STOP))
