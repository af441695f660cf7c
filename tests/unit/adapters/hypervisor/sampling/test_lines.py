"""QEMU's trace is read line by line, whatever else is in it; nobody forges more than requests of his own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from korora.adapters.hypervisor.sampling import lines
from korora.adapters.hypervisor.sampling.lines import knock, requests_of

SYSTEM, DATA, JOB = "0x55b2153d68a0", "0x55b2154c6120", "0x7f0000000010"


def line(way: str, blk: str, offset: int, length: int) -> str:
    return f"blk_co_p{way}v blk {blk} bs 0x55b2149f9e50 offset {offset} bytes {length} flags 0x0\n"


KNOCKS = line("read", SYSTEM, knock(0), 0) + line("read", DATA, knock(1), 0)


def read(text: str | bytes, disks: int = 2) -> dict[int, tuple[list[list[int]], list[list[int]]]]:
    found = requests_of(text.encode() if isinstance(text, str) else text, disks)
    return {disk: (seen.reads.tolist(), seen.writes.tolist()) for disk, seen in found.items()}


def test_each_disk_has_its_own_requests_in_order() -> None:
    text = line("read", DATA, 512, 1024) + KNOCKS + line("write", SYSTEM, 4096, 512)
    text += line("read", DATA, 0, 512)
    assert read(text) == {0: ([], [[4096, 512]]), 1: ([[512, 1024], [0, 512]], [])}


def test_a_disk_that_was_knocked_at_and_is_idle_has_no_requests() -> None:
    assert read(KNOCKS) == {0: ([], []), 1: ([], [])}


def test_a_disk_whose_knock_was_lost_is_left_out() -> None:
    assert read(line("read", SYSTEM, knock(0), 0) + line("read", DATA, 0, 512)) == {0: ([], [])}


def test_who_was_not_knocked_at_is_nobody() -> None:
    assert read(KNOCKS + line("read", JOB, 0, 1 << 20)) == {0: ([], []), 1: ([], [])}


def test_times_before_the_lines_do_not_matter() -> None:
    stamped = "".join(f"4242@1700000000.{n:06}:{one}\n" for n, one in enumerate(KNOCKS.splitlines()))
    assert set(read(stamped)) == {0, 1}


@pytest.mark.parametrize(
    "text",
    [
        "qemu-system-x86_64: warning: something else\n",
        "blk_co_preadv blk\n",
        " " + line("read", SYSTEM, 0, 512),
        line("read", SYSTEM, 0, 512).replace("0x55b2149f9e50", "0x5 offset 9 bytes 9 flags 0x0"),
        line("read", SYSTEM, -512, 512),
        line("read", SYSTEM, 10**19, 512),
        line("read", SYSTEM, 0, 512).rstrip("\n") + " \n",
        line("read", SYSTEM, 0, 512).replace("offset", "offzet"),
        line("flush", SYSTEM, 0, 512),
        line("write", SYSTEM, 0, 0),
        "\0" * 100 + line("read", SYSTEM, 0, 512),
        "٣" + line("read", SYSTEM, 0, 512).replace("512", "٥١٢"),
    ],
)
def test_what_is_not_just_such_a_line_counts_for_nothing(text: str) -> None:
    assert read(KNOCKS + text + KNOCKS) == {0: ([], []), 1: ([], [])}


def test_a_line_that_was_cut_in_two_counts_for_nothing() -> None:
    whole = line("read", SYSTEM, 4096, 512)
    for cut in range(1, len(whole)):
        assert read(KNOCKS + whole[:cut]) == {0: ([], []), 1: ([], [])}
        assert read(whole[cut:] + KNOCKS) == {0: ([], []), 1: ([], [])}


def test_two_who_answer_to_one_knock_are_both_nobody() -> None:
    assert read(KNOCKS + line("read", JOB, knock(1), 0)) == {0: ([], [])}


def test_one_who_answers_to_two_knocks_is_nobody() -> None:
    assert read(line("read", SYSTEM, knock(0), 0) + line("read", SYSTEM, knock(1), 0)) == {}


def test_a_knock_at_a_disk_that_is_not_there_counts_for_nothing() -> None:
    assert read(KNOCKS, disks=1) == {0: ([], [])}


def test_a_guest_cannot_knock() -> None:
    """Its sectors have 512 bytes: what it asks for begins at none of these offsets."""
    assert all(knock(disk) % 512 for disk in range(10_000))


def test_a_long_trace_is_read_in_pieces_without_losing_a_line() -> None:
    count = 3 * lines.PIECE_BYTES // len(line("read", SYSTEM, 0, 512))
    text = KNOCKS + "".join(line("read", SYSTEM, 512 * n, 512) for n in range(count))
    assert read(text)[0] == ([[512 * n, 512] for n in range(count)], [])


def test_a_line_longer_than_a_piece_is_passed_over() -> None:
    assert set(read(KNOCKS + "x" * (2 * lines.PIECE_BYTES) + "\n" + KNOCKS)) == {0, 1}


@given(st.binary(max_size=400))
def test_anything_at_all_can_be_read(junk: bytes) -> None:
    assert read(junk) == {}


rows = st.tuples(
    st.sampled_from(["read", "write"]),
    st.sampled_from([SYSTEM, DATA]),
    st.integers(0, 2**50),
    st.integers(1, 2**30),
)
other = st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=60).map(
    lambda text: "# " + text + "\n"
)


@given(st.lists(st.one_of(rows, other), max_size=40))
def test_other_text_in_between_changes_nothing(parts: list[tuple[str, str, int, int] | str]) -> None:
    requests = [part for part in parts if not isinstance(part, str)]
    text = KNOCKS + "".join(part if isinstance(part, str) else line(*part) for part in parts)
    found = read(text)
    for disk, blk in enumerate((SYSTEM, DATA)):
        for column, way in enumerate(("read", "write")):
            wanted = [[offset, length] for kind, of, offset, length in requests if (kind, of) == (way, blk)]
            assert found[disk][column] == wanted
