"""The relays do what they promise between honest hosts, and leave nothing behind whatever happens."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.dataplane_wire import CHUNK, Hypervisor, Rig, failure, outcome, random_keys, rig
from korora.agents.dataplane import DestinationRelay, SourceRelay
from korora.agents.dataplane.lane import Lane
from korora.errors import KororaError, PeerError, ToolError
from korora.protocol.frames import FRAMES_PER_KEY, OVERHEAD_BYTES, PREAMBLE_BYTES


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    before = open_files()
    yield
    assert [t.name for t in threading.enumerate() if t.name.startswith(("korora-data", "rig"))] == []
    assert open_files() <= before


NO_HANG_S = 60.0


def open_files() -> set[str]:
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        if entry.is_symlink():
            target = str(entry.readlink())
            if target.startswith("socket:"):
                found.add(target)
    return found


def until(true: object, patience_s: float = 60.0) -> None:
    give_up_at = time.monotonic() + patience_s
    while not true():  # type: ignore[operator]
        assert time.monotonic() < give_up_at, "it did not come true"
        time.sleep(0.005)


# Between honest hosts


@pytest.mark.parametrize("streams", [1, 3])
def test_every_stream_crosses_both_ways_with_equal_roots(streams: int) -> None:
    sent = [os.urandom(300_000 + n) for n in range(streams)]
    answers = [os.urandom(50_000 + n) for n in range(streams)]
    with rig(streams, chunk=16384) as wire:
        sources = [wire.source_hypervisor() for _ in range(streams)]
        destinations = []
        for source, data in zip(sources, sent, strict=True):
            source.send(data)
            destinations.append(wire.destination_hypervisor())
        for destination, answer in zip(destinations, answers, strict=True):
            destination.send(answer)
            destination.close_writing()
        for source in sources:
            source.close_writing()
        assert [each.saw_the_end() for each in destinations] == sent
        assert [each.saw_the_end() for each in sources] == answers
        at_source, at_destination = wire.reports()
    assert at_source == at_destination
    assert [(r.stream, r.direction) for r in at_source.roots] == [
        (n, direction) for n in range(streams) for direction in ("forward", "return")
    ]
    assert [r.bytes for r in at_source.roots[::2]] == [len(data) for data in sent]
    assert at_source.payload_bytes == sum(map(len, sent)) + sum(map(len, answers))
    frames = sum(root.frames for root in at_source.roots) + 2 * streams
    ends = 2 * streams * 16
    assert at_source.wire_bytes == (
        at_source.payload_bytes + frames * OVERHEAD_BYTES + ends + streams * PREAMBLE_BYTES
    )


def test_the_hypervisors_way_of_ending_is_carried_over() -> None:
    """QEMU: the destination closes the return path first, then the source closes its socket altogether."""
    with rig() as wire:
        source = wire.source_hypervisor()
        source.send(b"state")
        destination = wire.destination_hypervisor()
        until(lambda: bytes(destination.received) == b"state")
        destination.send(b"loaded")
        destination.close()
        assert source.saw_the_end() == b"loaded"
        source.close()
        at_source, at_destination = wire.reports()
    assert at_source == at_destination


def test_a_few_bytes_cross_at_once_without_waiting_for_a_full_chunk() -> None:
    with rig(chunk=1 << 20) as wire:
        source = wire.source_hypervisor()
        source.send(b"x")
        destination = wire.destination_hypervisor()
        for number in range(20):  # each arrives before there is a next one
            source.send(b"y")
            until(lambda number=number: len(destination.received) == number + 2)
        source.close()
        destination.close()
        wire.reports()


def test_an_empty_stream_ends_well_too() -> None:
    with rig() as wire:
        wire.source_hypervisor().close()
        destination = wire.destination_hypervisor()
        assert destination.saw_the_end() == b""
        destination.close()
        at_source, at_destination = wire.reports()
    assert at_source == at_destination
    assert at_source.payload_bytes == 0


def test_a_report_that_cannot_be_made_ends_the_move(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Lane) -> None:
        raise RuntimeError("no evidence")

    monkeypatch.setattr(Lane, "evidence", broken)
    with rig() as wire:
        wire.source_hypervisor().close()
        destination = wire.destination_hypervisor()
        assert destination.saw_the_end() == b""
        destination.close()
        for said in wire.failures():
            assert (said.kind, said.message) == ("bug", "the relay broke: RuntimeError('no evidence')")


def test_streams_reach_the_hypervisor_in_order_whichever_speaks_first() -> None:
    with rig(3) as wire:
        sources = [wire.source_hypervisor() for _ in range(3)]
        for number in (2, 1):
            sources[number].send(b"%d" % number)
        time.sleep(0.05)
        sources[0].send(b"0")
        destinations = [wire.destination_hypervisor() for _ in range(3)]
        for number, destination in enumerate(destinations):
            until(lambda d=destination: d.received)
            assert bytes(destination.received) == b"%d" % number
        for each in (*sources, *destinations):
            each.close()
        wire.reports()


def test_a_silent_hypervisor_is_no_stall() -> None:
    """Longer than the deadline with not a byte of payload, before and after the first: frames say ALIVE."""
    with rig(stall_s=0.4) as wire:
        time.sleep(0.6)
        source = wire.source_hypervisor()
        time.sleep(0.6)
        source.send(b"at last")
        destination = wire.destination_hypervisor()
        time.sleep(0.6)
        source.close()
        assert destination.saw_the_end() == b"at last"
        time.sleep(0.6)  # the forward direction has ended, the other is idle
        destination.close()
        at_source, at_destination = wire.reports()
    assert at_source.roots == at_destination.roots
    assert [root.frames for root in at_source.roots] == [1, 0]


def test_keys_change_in_the_middle_of_a_stream() -> None:
    """Enough frames for two changes; the return direction keeps to its first key meanwhile."""
    size = CHUNK * (2 * FRAMES_PER_KEY + 3)
    data = os.urandom(CHUNK) * (size // CHUNK)
    with rig() as wire:
        source = wire.source_hypervisor()
        source.send(data[:1])
        destination = wire.destination_hypervisor()
        source.send(data[1:])
        source.close()
        assert destination.saw_the_end() == data
        destination.close()
        at_source, at_destination = wire.reports()
    assert at_source.roots == at_destination.roots
    assert at_source.roots[0].frames > 2 * FRAMES_PER_KEY


def test_memory_does_not_grow_with_the_amount_moved() -> None:
    piece = os.urandom(1 << 20)
    with rig(chunk=1 << 20) as wire:
        source = wire.source_hypervisor()
        source.send(piece * 8)
        destination = wire.destination_hypervisor()
        until(lambda: len(destination.received) == 8 << 20)
        settled = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(64):
            destination.received.clear()
            source.send(piece)
        until(lambda: wire.destination.bytes_received == 72 << 20)
        grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - settled
        for each in (source, destination):
            each.close()
        wire.reports()
    assert grown_kib < 24 << 10, f"{grown_kib} KiB more"


def test_counters_follow_the_stream() -> None:
    with rig() as wire:
        source = wire.source_hypervisor()
        source.send(b"12345")
        destination = wire.destination_hypervisor()
        destination.send(b"678")
        until(lambda: wire.source.bytes_received == 3)
        until(lambda: wire.destination.bytes_received == 5)
        assert (wire.source.bytes_sent, wire.destination.bytes_sent) == (5, 3)
        assert wire.source.bytes_on_wire >= 40 + 2 * OVERHEAD_BYTES + 8
        for each in (source, destination):
            each.close()
        wire.reports()


# Hosts that fail


def test_a_peer_that_reads_nothing_is_a_stall_and_frees_the_hypervisor() -> None:
    """The destination accepted and then sleeps: the source's hypervisor must not hang with it."""
    with (
        socket.create_server(("127.0.0.1", 0)) as deaf,
        tempfile.TemporaryDirectory(prefix="korora-wire-") as folder,
    ):
        relay = SourceRelay(
            listen_on=Path(folder) / "from",
            connect=lambda: socket.create_connection(deaf.getsockname()),
            keys=random_keys(1),
            chunk_bytes=1 << 16,
            stall_deadline_s=0.4,
        )
        relay.start()
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(Path(folder) / "from"))
        hypervisor = Hypervisor(connection)
        began = time.monotonic()
        with pytest.raises(OSError):
            hypervisor.send_until_refused()
        assert time.monotonic() - began < NO_HANG_S
        hypervisor.close()
        stalled = failure(relay)
        relay.abort("the test is over")
    assert isinstance(stalled, PeerError)
    assert stalled.kind == "stalled"


def test_a_peer_that_falls_silent_is_noticed_though_nothing_is_pending() -> None:
    with rig(stall_s=0.4, forward=lambda frames: frames) as wire:  # the man in the middle holds all frames
        source = wire.source_hypervisor()
        source.send(b"state")
        at_destination = failure(wire.destination)
        assert source.saw_the_end() == b""
        assert isinstance(failure(wire.source), PeerError)
    assert isinstance(at_destination, PeerError)
    assert at_destination.kind == "stalled"


def test_a_hypervisor_that_reads_nothing_ends_the_move_on_both_sides() -> None:
    # The source is patient: whose clock runs out first decides which side's reason is the first hand's.
    with rig(stall_s=0.4, source_stall_s=20.0, chunk=1 << 16) as wire:
        source = wire.source_hypervisor()
        source.send(b"first")
        deaf, _ = wire.arrivals.accept()
        with deaf, pytest.raises(OSError):
            source.send_until_refused()
        at_source, at_destination = wire.failures()
    assert isinstance(at_source, PeerError)
    assert at_destination.kind == "stalled"


def test_no_authenticated_end_is_an_error_on_both_sides() -> None:
    """The destination's hypervisor dies with bytes unread: no END, and the source's relay ends too."""
    with rig() as wire:
        source = wire.source_hypervisor()
        source.send(b"first")
        connection, _ = wire.arrivals.accept()
        connection.close()
        with pytest.raises(OSError):
            source.send_until_refused()
        at_source, at_destination = wire.failures()
    assert isinstance(at_source, PeerError)
    assert at_source.kind in {"truncated", "connection-lost"}
    assert type(at_destination) is ToolError
    assert at_destination.kind == "hypervisor-closed"


def test_a_failure_says_where_it_met_the_stream() -> None:
    with rig(2) as wire:
        sources = [wire.source_hypervisor() for _ in range(2)]
        for source in sources:
            source.send(b"x")
        wire.destination_hypervisor()
        wire.destination_hypervisor()
        wire.destination.abort("test")
        said = failure(wire.source)
    assert "stream " in said.message
    assert "frame " in said.message


def test_a_destination_that_cannot_be_reached_fails_the_source() -> None:
    with tempfile.TemporaryDirectory(prefix="korora-wire-") as folder:

        def refuse() -> socket.socket:
            raise ConnectionRefusedError(111, "Connection refused")

        relay = SourceRelay(
            listen_on=Path(folder) / "from",
            connect=refuse,
            keys=random_keys(2),
            chunk_bytes=CHUNK,
            stall_deadline_s=5,
        )
        relay.start()
        unreachable = failure(relay)
        relay.abort("the test is over")
        assert list(Path(folder).iterdir()) == []
    assert isinstance(unreachable, PeerError)
    assert unreachable.kind == "unreachable"


def test_a_hypervisor_that_does_not_listen_is_named() -> None:
    with rig() as wire:
        (wire.folder / "to").unlink()
        wire.source_hypervisor().send(b"x")
        assert failure(wire.destination).kind == "hypervisor-unreachable"


def test_a_path_that_cannot_be_used_fails_start_and_leaves_nothing() -> None:
    relay = SourceRelay(
        listen_on=Path("/nonexistent/from"),
        connect=socket.socket,
        keys=random_keys(1),
        chunk_bytes=CHUNK,
        stall_deadline_s=5,
    )
    with pytest.raises(ToolError) as refused:
        relay.start()
    assert refused.value.kind == "relay-path"
    relay.abort("the test is over")


# Tickets


@pytest.mark.parametrize("which", ["unknown", "used", "after the end"])
def test_a_ticket_opens_one_connection_once(which: str) -> None:
    relay = DestinationRelay(
        deliver_to=Path("/nonexistent"), keys=(keys := random_keys(1)), chunk_bytes=CHUNK, stall_deadline_s=5
    )
    relay.start()
    ours, theirs = socket.socketpair()
    again, far = loopback_pair()
    first, first_far = loopback_pair()
    with ours, theirs, far, first_far:
        if which == "used":
            relay.accept(keys[0].ticket, first)
        if which == "after the end":
            relay.abort("early")
        with pytest.raises(PeerError) as refused:
            relay.accept(bytes(32) if which == "unknown" else keys[0].ticket, again)
        assert again.fileno() == -1
    assert refused.value.kind == "unknown-ticket"
    relay.abort("the test is over")
    first.close()


def loopback_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        return near, listener.accept()[0]


def test_a_stranger_with_a_wrong_ticket_does_not_disturb_the_move() -> None:
    with rig() as wire:
        stranger = wire.connect()
        stranger.sendall(b"\xc7KORORA\x01" + bytes(32))
        assert stranger.recv(1) == b""
        stranger.close()
        source = wire.source_hypervisor()
        source.send(b"state")
        destination = wire.destination_hypervisor()
        source.close()
        assert destination.saw_the_end() == b"state"
        destination.close()
        wire.reports()
        assert [each.kind for each in wire.refused] == ["unknown-ticket"]


# Abort


def at_nothing(_: Rig) -> None:
    pass


def at_hypervisor_connected(wire: Rig) -> None:
    wire.source_hypervisor()


def at_flowing(wire: Rig) -> None:
    source = wire.source_hypervisor()
    source.send(b"x" * 10_000)
    wire.destination_hypervisor().send(b"y" * 10_000)


def at_blocked(wire: Rig) -> None:
    """The destination's hypervisor reads nothing, and every buffer on the way is full."""
    source = wire.source_hypervisor()
    source.send(b"x")
    connection, _ = wire.arrivals.accept()
    wire.keep(connection)
    source.connection.settimeout(0.2)
    with pytest.raises(TimeoutError):
        source.send_until_refused()


def at_one_direction_ended(wire: Rig) -> None:
    source = wire.source_hypervisor()
    source.send(b"x")
    destination = wire.destination_hypervisor()
    source.close_writing()
    destination.saw_the_end()


@pytest.mark.parametrize("side", ["source", "destination"])
@pytest.mark.parametrize(
    "phase", [at_nothing, at_hypervisor_connected, at_flowing, at_blocked, at_one_direction_ended]
)
def test_abort_at_any_phase_ends_both_sides_and_leaves_nothing(phase: object, side: str) -> None:
    """What is left is looked for by the fixture."""
    with rig(2 if phase is at_nothing else 1, chunk=1 << 16) as wire:
        phase(wire)  # type: ignore[operator]
        until(lambda: phase is at_blocked or wire.destination.bytes_on_wire)
        one, other = (wire.source, wire.destination) if side == "source" else (wire.destination, wire.source)
        began = time.monotonic()
        one.abort("the operator said so")
        one.abort("twice is once")
        assert time.monotonic() - began < NO_HANG_S
        stopped = failure(one)
        assert stopped.kind == "aborted"
        assert "the operator said so" in stopped.message
        assert isinstance(failure(other), KororaError)
        until(lambda: not (wire.folder / "from").exists())  # its threads leave a moment after it failed


def test_abort_after_success_changes_nothing() -> None:
    with rig() as wire:
        source = wire.source_hypervisor()
        source.send(b"x")
        destination = wire.destination_hypervisor()
        for each in (source, destination):
            each.close_writing()
        first, _ = wire.reports()
        wire.source.abort("late")
        wire.destination.abort("late")
        assert outcome(wire.source) == first


def test_an_aborted_relay_does_not_start() -> None:
    wire = Rig()
    wire.source.abort("early")
    wire.destination.abort("early")
    for relay in (wire.source, wire.destination):
        with pytest.raises(ToolError) as refused:
            relay.start()
        assert refused.value.kind == "aborted"
    wire.close()


def test_a_waiter_that_gives_up_does_not_end_the_relay() -> None:
    async def wait_briefly(wire: Rig) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(wire.source.finished(), 0.02)

    with rig() as wire:
        asyncio.run(wait_briefly(wire))
        source = wire.source_hypervisor()
        source.send(b"x")
        destination = wire.destination_hypervisor()
        source.close()
        destination.close_writing()
        assert outcome(wire.source).roots == outcome(wire.destination).roots
