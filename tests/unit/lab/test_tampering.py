"""What the man in the middle does to a stream, whatever pieces it arrives in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from korora.lab.tampering import (
    Action,
    ByteEditor,
    Direction,
    Editor,
    Ended,
    Fault,
    FrameEditor,
    Replacement,
    Sort,
)
from korora.protocol.frames import HEADER, OVERHEAD_BYTES, PREAMBLE_BYTES, PREAMBLE_MAGIC, Kind

STREAM = bytes(range(200))


def fed(editor: Editor, stream: bytes, sizes: list[int]) -> bytes:
    """The stream through the editor, cut at these sizes (repeating the last)."""
    out, at, turn = b"", 0, 0
    while at < len(stream):
        size = sizes[min(turn, len(sizes) - 1)]
        out += editor.feed(stream[at : at + size])
        at, turn = at + size, turn + 1
    return out + editor.finish()


pieces = st.lists(st.integers(1, 60), min_size=1, max_size=8)


@given(offset=st.integers(0, 189), length=st.integers(1, 5), sizes=pieces)
def test_byte_faults_do_the_same_however_the_stream_is_cut(
    offset: int, length: int, sizes: list[int]
) -> None:
    before, piece, after = STREAM[:offset], STREAM[offset : offset + length], STREAM[offset + length :]
    following, rest = after[:length], after[length:]
    expected = {
        Action.DROP: before + after,
        Action.REPEAT: before + piece + piece + after,
        Action.SWAP: before + following + piece + rest,
    }
    for action, wanted in expected.items():
        editor = ByteEditor(Fault(action, offset=offset, length=length))
        assert fed(editor, STREAM, sizes) == wanted
        assert editor.struck


@given(offset=st.integers(0, 199), sizes=pieces)
def test_a_flip_changes_one_bit_only(offset: int, sizes: list[int]) -> None:
    out = fed(ByteEditor(Fault(Action.FLIP, offset=offset)), STREAM, sizes)
    changed = [(a ^ b) for a, b in zip(out, STREAM, strict=True) if a != b]
    assert changed == [1]
    assert out[offset] != STREAM[offset]


@given(offset=st.integers(0, 199), sizes=pieces)
def test_a_truncation_forwards_what_came_before_and_ends(offset: int, sizes: list[int]) -> None:
    editor, out = ByteEditor(Fault(Action.TRUNCATE, offset=offset)), b""
    at, rest = 0, None
    for size in [*sizes, 200]:
        try:
            out += editor.feed(STREAM[at : at + size])
        except Ended as ended:
            rest = ended.rest
            break
        at += size
    assert rest is not None
    assert out + rest == STREAM[:offset]


def test_a_fault_past_the_end_changes_nothing() -> None:
    editor = ByteEditor(Fault(Action.DROP, offset=500))
    assert fed(editor, STREAM, [7]) == STREAM
    assert not editor.struck


def frame(number: int, kind: Kind = Kind.DATA, payload: int = 20) -> bytes:
    body = bytes([number]) * (OVERHEAD_BYTES - HEADER.size + payload)
    return HEADER.pack(kind, payload, number) + body


PREAMBLE = PREAMBLE_MAGIC + bytes(PREAMBLE_BYTES - len(PREAMBLE_MAGIC))
FRAMES = [frame(0), frame(1), frame(2, Kind.ALIVE, 0), frame(3), frame(4, Kind.END, 16)]


def through(
    fault: Fault, sizes: list[int], preamble: bytes = PREAMBLE, frames: list[bytes] = FRAMES
) -> bytes:
    return fed(FrameEditor(fault), preamble + b"".join(frames), sizes)


@given(sizes=pieces, preamble=st.sampled_from([PREAMBLE, b""]))
def test_frame_faults_strike_exactly_the_frame(sizes: list[int], preamble: bytes) -> None:
    zero, one, alive, three, end = FRAMES
    assert through(Fault(Action.DROP, frame=1), sizes, preamble) == preamble + zero + alive + three + end
    assert through(Fault(Action.REPEAT, frame=0), sizes, preamble) == preamble + zero + b"".join(FRAMES)
    assert (
        through(Fault(Action.SWAP, frame=0), sizes, preamble) == preamble + one + zero + alive + three + end
    )


@given(sizes=pieces)
def test_the_last_frame_is_the_data_frame_before_the_end_or_before_a_silence(sizes: list[int]) -> None:
    zero, one, alive, three, end = FRAMES
    busy = [zero, one, three, end]
    drop, swap = Fault(Action.DROP, frame="last"), Fault(Action.SWAP, frame="last")
    assert through(drop, sizes, frames=busy) == PREAMBLE + zero + one + end
    assert through(swap, sizes, frames=busy) == PREAMBLE + zero + one + end + three
    assert through(drop, sizes) == PREAMBLE + zero + alive + three + end
    assert through(swap, sizes) == PREAMBLE + zero + alive + one + three + end


@given(sizes=pieces)
def test_the_end_itself_can_be_struck(sizes: list[int]) -> None:
    zero, one, alive, three, end = FRAMES
    before = PREAMBLE + zero + one + alive + three
    assert through(Fault(Action.DROP, frame="end"), sizes) == before
    assert through(Fault(Action.REPEAT, frame="end"), sizes) == before + end + end


@given(sizes=pieces)
def test_a_frame_fault_that_never_comes_changes_nothing(sizes: list[int]) -> None:
    assert through(Fault(Action.FLIP, frame=9), sizes) == PREAMBLE + b"".join(FRAMES)


@given(
    parts=st.lists(st.sampled_from([b"marker", b"mark", b"m", b"er", b"xyz", b"mmarker"]), max_size=12),
    sizes=pieces,
)
def test_a_replacement_finds_every_occurrence_across_pieces(parts: list[bytes], sizes: list[int]) -> None:
    stream = b"".join(parts)
    editor = Replacement(b"marker", b"FORGED")
    assert fed(editor, stream, sizes) == stream.replace(b"marker", b"FORGED")
    assert editor.count == stream.count(b"marker")


def test_a_replacement_holds_nothing_back_that_cannot_be_the_beginning_of_an_occurrence() -> None:
    assert Replacement(b"marker", b"FORGED").feed(b"hello") == b"hello"


def test_a_fault_names_either_an_offset_or_a_frame() -> None:
    with pytest.raises(ValueError, match="give one"):
        Fault(Action.FLIP)
    with pytest.raises(ValueError, match="give one"):
        Fault(Action.FLIP, offset=1, frame=1)


def test_a_fault_strikes_its_sort_number_and_direction_only() -> None:
    fault = Fault(Action.CUT, offset=0, sort=Sort.DATA, connection=1, direction=Direction.RETURN)
    assert fault.strikes(Sort.DATA, 1, Direction.RETURN)
    assert not fault.strikes(Sort.DATA, 0, Direction.RETURN)
    assert not fault.strikes(Sort.CONTROL, 1, Direction.RETURN)
    assert not fault.strikes(Sort.DATA, 1, Direction.FORWARD)
