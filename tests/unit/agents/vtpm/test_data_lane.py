"""The lane of the guest's TPM commands, with a TPM made of a socket."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from korora.agents.vtpm.interposer import tpm_commands
from korora.agents.vtpm.interposer.data_lane import DataLane

COMMAND = tpm_commands.pcr_read([0])
OURS = tpm_commands.read_public(tpm_commands.EK_HANDLE)
ANSWER = struct.pack(">HII", 0x8001, 14, 0) + b"good"


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket, DataLane]]:
    """The guest's end, the TPM's end, and a lane between them."""
    guest, theirs = socket.socketpair()
    ours, tpm = socket.socketpair()
    guest.settimeout(10)
    tpm.settimeout(10)
    lane = DataLane(theirs, ours)
    thread = threading.Thread(target=lane.serve, daemon=True)
    thread.start()
    yield guest, tpm, lane
    guest.close()
    tpm.close()
    thread.join(10)
    assert not thread.is_alive(), "the lane ends when the hypervisor hangs up"
    ours.close()


def code(response: bytes) -> int:
    return int.from_bytes(response[6:10], "big")


def test_a_command_and_its_response_pass_unchanged(
    ends: tuple[socket.socket, socket.socket, DataLane],
) -> None:
    guest, tpm, _ = ends
    guest.sendall(COMMAND)
    assert tpm.recv(4096) == COMMAND
    tpm.sendall(ANSWER)
    assert guest.recv(4096) == ANSWER


def test_a_response_in_pieces_arrives_whole(ends: tuple[socket.socket, socket.socket, DataLane]) -> None:
    guest, tpm, _ = ends
    guest.sendall(COMMAND)
    tpm.recv(4096)
    for piece in (ANSWER[:3], ANSWER[3:12], ANSWER[12:]):
        tpm.sendall(piece)
        time.sleep(0.01)
    assert guest.recv(4096) == ANSWER


@pytest.mark.parametrize(
    "command",
    [
        COMMAND[:2] + (4000).to_bytes(4, "big") + COMMAND[6:],
        COMMAND[:2] + b"\xff\xff\xff\xff" + COMMAND[6:],
        COMMAND[:2] + (10).to_bytes(4, "big") + COMMAND[6:],
        COMMAND[:2] + bytes(4) + COMMAND[6:],
        COMMAND[:5],
        b"\0",
        COMMAND + COMMAND,
    ],
    ids=["too large", "huge", "too small", "zero", "cut header", "one byte", "two at once"],
)
def test_a_command_that_lies_about_its_size_hangs_nobody(
    ends: tuple[socket.socket, socket.socket, DataLane], command: bytes
) -> None:
    guest, tpm, _ = ends
    guest.sendall(command)
    assert code(guest.recv(4096)) == tpm_commands.RC_COMMAND_SIZE
    guest.sendall(COMMAND)
    assert tpm.recv(4096) == COMMAND, "nothing of the lie reached the TPM"
    tpm.sendall(ANSWER)
    assert guest.recv(4096) == ANSWER


def test_our_command_waits_for_the_guests(ends: tuple[socket.socket, socket.socket, DataLane]) -> None:
    guest, tpm, lane = ends
    guest.sendall(COMMAND)
    assert tpm.recv(4096) == COMMAND
    answers: list[bytes] = []
    ours = threading.Thread(target=lambda: answers.append(lane.execute(OURS)))
    ours.start()
    tpm.settimeout(0.1)
    with pytest.raises(TimeoutError):
        tpm.recv(4096)
    tpm.settimeout(10)
    tpm.sendall(ANSWER)
    assert guest.recv(4096) == ANSWER
    assert tpm.recv(4096) == OURS
    tpm.sendall(ANSWER[:-4] + b"ours")
    ours.join(10)
    assert answers == [ANSWER[:-4] + b"ours"]


def test_the_guest_gets_failure_when_the_tpm_dies_under_its_command(
    ends: tuple[socket.socket, socket.socket, DataLane],
) -> None:
    guest, tpm, lane = ends
    guest.sendall(COMMAND)
    tpm.recv(4096)
    tpm.close()
    assert code(guest.recv(4096)) == tpm_commands.RC_FAILURE
    guest.sendall(COMMAND)
    assert code(guest.recv(4096)) == tpm_commands.RC_FAILURE
    assert code(lane.execute(OURS)) == tpm_commands.RC_FAILURE


def test_a_response_of_impossible_size_ends_the_tpm(
    ends: tuple[socket.socket, socket.socket, DataLane],
) -> None:
    guest, tpm, _ = ends
    guest.sendall(COMMAND)
    tpm.recv(4096)
    tpm.sendall(struct.pack(">HII", 0x8001, 5, 0))
    assert code(guest.recv(4096)) == tpm_commands.RC_FAILURE
