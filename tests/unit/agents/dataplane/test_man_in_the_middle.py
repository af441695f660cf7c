"""Whatever is done to frames between the hosts, both sides fail and no changed byte is delivered (S4)."""

from __future__ import annotations

import os
import struct
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.dataplane_wire import CHUNK, Edit, maybe_failure, random_keys, rig
from korora.errors import IntegrityError, KororaError, PeerError
from korora.protocol.frames import Kind, StreamKeys

DATA = os.urandom(8 * CHUNK)  # at least eight frames, then END


def place_of(where: str, frames: list[bytes]) -> int:
    return {"first": 0, "middle": len(frames) // 2, "last chunk": len(frames) - 2, "end": len(frames) - 1}[
        where
    ]


def flip(frames: list[bytes], at: int) -> list[bytes]:
    changed = bytearray(frames[at])
    changed[len(changed) // 2] ^= 1
    return [*frames[:at], bytes(changed), *frames[at + 1 :]]


def flip_header(frames: list[bytes], at: int) -> list[bytes]:
    changed = bytearray(frames[at])
    changed[7] ^= 1
    return [*frames[:at], bytes(changed), *frames[at + 1 :]]


def flip_tag(frames: list[bytes], at: int) -> list[bytes]:
    changed = bytearray(frames[at])
    changed[-1] ^= 0x80
    return [*frames[:at], bytes(changed), *frames[at + 1 :]]


def drop(frames: list[bytes], at: int) -> list[bytes]:
    return frames[:at] + frames[at + 1 :]


def repeat(frames: list[bytes], at: int) -> list[bytes]:
    return [*frames[: at + 1], frames[at], *frames[at + 1 :]]


def reorder(frames: list[bytes], at: int) -> list[bytes]:
    """Swap with the following frame; the last one with the one before."""
    one = min(at, len(frames) - 2)
    return [*frames[:one], frames[one + 1], frames[one], *frames[one + 2 :]]


def truncate(frames: list[bytes], at: int) -> list[bytes]:
    """Cut within the frame, and hang up."""
    return [*frames[:at], frames[at][: len(frames[at]) // 2]]


def cut_before(frames: list[bytes], at: int) -> list[bytes]:
    """Hang up between two frames."""
    return frames[:at]


def renumber(frames: list[bytes], at: int) -> list[bytes]:
    """Repeat the frame under the number that is due: only the nonce can tell."""
    again = frames[at][:8] + (at + 1).to_bytes(8, "big") + frames[at][16:]
    return [*frames[: at + 1], again, *frames[at + 2 :]]


ATTACKS = [flip, flip_header, flip_tag, drop, repeat, reorder, truncate, cut_before, renumber]


@pytest.mark.parametrize("direction", ["forward", "return"])
@pytest.mark.parametrize("where", ["first", "middle", "last chunk", "end"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_no_change_to_the_frames_goes_unnoticed(attack: object, where: str, direction: str) -> None:
    def edit(frames: list[bytes]) -> list[bytes]:
        return attack(frames, place_of(where, frames))  # type: ignore[operator, no-any-return]

    at_receiver, at_sender, delivered, untouched = attacked(edit, direction)
    assert isinstance(at_receiver, IntegrityError | PeerError)
    if not (attack in {repeat, renumber} and where == "end"):  # the sender had proof of the whole by then
        assert isinstance(at_sender, IntegrityError | PeerError)
    assert delivered == DATA[:untouched]
    if attack not in {drop, truncate, cut_before}:
        assert isinstance(at_receiver, IntegrityError), at_receiver


def attacked(edit: Edit, direction: str) -> tuple[KororaError | None, KororaError | None, bytes, int]:
    """Failures of receiver and sender, what the hypervisor got, how much came before the first change."""
    untouched = 0

    def counted(frames: list[bytes]) -> list[bytes]:
        nonlocal untouched
        made = edit(frames)
        for honest, came in zip(frames, made, strict=False):
            if honest != came:
                break
            untouched += payload_of(honest)
        return made

    if direction == "forward":
        with rig(forward=counted) as wire:
            arrived = wire.await_hypervisor()
            source = wire.source_hypervisor()
            source.send(DATA)
            source.close_writing()
            failures = maybe_failure(wire.destination), maybe_failure(wire.source)
            wire.destination.abort("the test is over")
            delivered = arrived()
    else:
        with rig(backward=counted) as wire:
            wire.await_hypervisor(answer=DATA)
            source = wire.source_hypervisor()
            source.send(b"go")
            delivered = source.saw_the_end()
            source.close_writing()
            failures = maybe_failure(wire.source), maybe_failure(wire.destination)
    return *failures, delivered, untouched


def payload_of(frame: bytes) -> int:
    kind, length, _ = struct.unpack(">IIQ", frame[:16])
    return int(length) if kind == Kind.DATA else 0


def test_a_frame_of_another_stream_does_not_open() -> None:
    """Both connections carry the same bytes under the same numbers; the middle crosses them over."""
    held: list[list[bytes]] = []
    both = threading.Barrier(2)

    def cross(frames: list[bytes]) -> list[bytes]:
        held.append(frames)
        both.wait(10)
        return next(other for other in held if other is not frames)

    with rig(2, forward=cross) as wire:
        arrived = wire.await_hypervisor()
        for _ in range(2):
            source = wire.source_hypervisor()
            source.send(DATA)
            source.close_writing()
        at_destination = maybe_failure(wire.destination)
        wire.destination.abort("the test is over")
        assert arrived() == b""
    assert isinstance(at_destination, IntegrityError)
    assert at_destination.kind == "frame-altered"


def test_a_frame_sent_back_to_its_sender_does_not_open() -> None:
    """Reflection: what the source sealed comes back to it as if the destination had."""
    echoed: list[bytes] = []
    sent = threading.Event()

    def record(frames: list[bytes]) -> list[bytes]:
        echoed.extend(frames)
        sent.set()
        return frames

    def reflect(_: list[bytes]) -> list[bytes]:
        sent.wait(10)
        return echoed

    with rig(forward=record, backward=reflect) as wire:
        wire.await_hypervisor()
        source = wire.source_hypervisor()
        source.send(DATA)
        source.close_writing()
        at_source = maybe_failure(wire.source)
        assert source.saw_the_end() == b""
    assert isinstance(at_source, IntegrityError)


def test_a_connection_of_another_session_does_not_open() -> None:
    """A recorded ticket alone is worth nothing: the keys of this session are others."""
    ours = random_keys(1)

    def mixed(theirs: list[StreamKeys]) -> list[StreamKeys]:
        return [StreamKeys(0, theirs[0].ticket, ours[0].forward, ours[0].backward)]

    with rig(destination_keys=mixed) as wire:
        source = wire.source_hypervisor()
        source.send(DATA)
        at_destination = maybe_failure(wire.destination)
    assert isinstance(at_destination, IntegrityError)


@settings(max_examples=25, deadline=None)
@given(edits=st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1, max_size=4))
def test_no_bytes_changed_anywhere_go_unnoticed(edits: list[tuple[int, int]]) -> None:
    def change(frames: list[bytes]) -> list[bytes]:
        wire = bytearray(b"".join(frames))
        for place, flipped in edits:
            wire[place % len(wire)] ^= flipped
        return [bytes(wire) if bytes(wire) != b"".join(frames) else b"\0"]

    at_receiver, _, delivered, _ = attacked(change, "forward")
    assert isinstance(at_receiver, IntegrityError | PeerError)
    assert DATA.startswith(delivered)
