"""The forwarder over loopback: transparent without faults, and exact with them."""

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from korora.lab.forwarder import Forwarder
from korora.lab.tampering import Action, Direction, Fault, Sort
from korora.lab.xensploit import FORGED_SECRET, GUEST_SECRET, xensploit

HERE = ("127.0.0.1", 0)


@pytest.fixture
def echo() -> Iterator[tuple[str, int]]:
    """A server that answers each connection with what it got, until the sender ends."""
    server = socket.create_server(HERE)

    def answer(end: socket.socket) -> None:
        with end:
            try:
                while data := end.recv(65536):
                    end.sendall(data)
            except OSError:
                pass

    def serve() -> None:
        while True:
            try:
                end, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(end,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    yield server.getsockname()
    server.shutdown(socket.SHUT_RDWR)
    server.close()


def send_whole(end: socket.socket, data: bytes) -> None:
    with contextlib.suppress(OSError):
        end.sendall(data)
        end.shutdown(socket.SHUT_WR)


def exchange(address: tuple[str, int], sent: bytes) -> bytes:
    with socket.create_connection(address, timeout=5) as end:
        threading.Thread(target=send_whole, args=(end, sent), daemon=True).start()
        got = b""
        while data := end.recv(65536):
            got += data
        return got


def test_without_faults_nothing_changes(echo: tuple[str, int]) -> None:
    sent = bytes(range(256)) * 8192
    with Forwarder(HERE, echo) as middle:
        assert exchange(middle.address, sent) == sent
        assert middle.connections[0].forwarded[Direction.FORWARD] == len(sent)


def test_a_fault_strikes_the_chosen_connection_and_direction_once(echo: tuple[str, int]) -> None:
    with Forwarder(HERE, echo) as middle:
        middle.arm(Fault(Action.DROP, offset=2, length=3, connection=1, direction=Direction.RETURN))
        assert exchange(middle.address, b"0123456789") == b"0123456789"
        assert exchange(middle.address, b"0123456789") == b"0156789"
        assert exchange(middle.address, b"0123456789") == b"0123456789"
        assert len(middle.struck) == 1


def test_control_connections_are_told_by_their_first_byte(echo: tuple[str, int]) -> None:
    with Forwarder(HERE, echo) as middle:
        middle.arm(Fault(Action.DROP, offset=0, sort=Sort.CONTROL))
        assert exchange(middle.address, b"\xc7data") == b"\xc7data"
        assert exchange(middle.address, b"\x16hello") == b"hello"


def test_a_cut_resets_the_connection(echo: tuple[str, int]) -> None:
    with Forwarder(HERE, echo) as middle:
        middle.arm(Fault(Action.CUT, offset=3))
        with pytest.raises(ConnectionResetError):
            exchange(middle.address, b"0123456789" * 1000)


def test_a_truncated_stream_ends_in_order(echo: tuple[str, int]) -> None:
    with Forwarder(HERE, echo) as middle:
        middle.arm(Fault(Action.TRUNCATE, offset=4))
        assert exchange(middle.address, b"0123456789") == b"0123"


def test_a_stalled_stream_is_silent_until_it_is_resumed(echo: tuple[str, int]) -> None:
    with Forwarder(HERE, echo) as middle, socket.socket() as end:
        end.connect(middle.address)
        end.settimeout(0.3)
        middle.stall()
        end.sendall(b"hello")
        with pytest.raises(TimeoutError):
            end.recv(10)
        middle.resume()
        end.settimeout(5)
        assert end.recv(10) == b"hello"


def test_an_absent_target_ends_the_connection() -> None:
    with socket.create_server(HERE) as taken:
        absent = taken.getsockname()
    with Forwarder(HERE, absent) as middle:
        assert exchange(middle.address, b"") == b""


def test_the_guests_secret_is_forged_on_the_way_there_and_only_there(echo: tuple[str, int]) -> None:
    attack = xensploit(HERE, echo)
    try:
        sent = bytes(5000) + GUEST_SECRET + bytes(5000)
        assert exchange(attack.forwarder.address, sent) == sent.replace(GUEST_SECRET, FORGED_SECRET)
        assert attack.replaced == 1
    finally:
        attack.close()
