"""Logical partitions whose tables lead nowhere, back, or on and on are told: nothing hides behind them."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from korora.adapters.filesystem.extended import MAX_TABLES
from korora.adapters.filesystem.volumes import Found, found_in
from korora.model.files import Problem

FIRST = 2048
PLACES = st.integers(0, 2**32 - 1) | st.integers(0, 200)
Entry = tuple[int, int, int]


class Held:
    def __init__(self, size: int, **tables: bytes) -> None:
        self._tables = {int(at.removeprefix("at_")) * 512: table for at, table in tables.items()}
        self.size = size

    def read(self, offset: int, length: int) -> bytes:
        length = max(0, min(length, self.size - offset))
        found = bytearray(length)
        for at, table in self._tables.items():
            for within in range(512):
                if offset <= at + within < offset + length:
                    found[at + within - offset] = table[within]
        return bytes(found)


def table(*entries: Entry) -> bytes:
    """(kind, first sector, sectors) of each."""
    made = bytearray(512)
    for number, (kind, first, sectors) in enumerate(entries):
        struct.pack_into("<4xB3xII", made, 446 + 16 * number, kind, first, sectors)
        made[446 + 16 * number + 4] = kind
    made[510:] = b"\x55\xaa"
    return bytes(made)


def problems(**tables: bytes) -> list[str]:
    whole = {"at_0": table((5, FIRST, 100_000))} | tables
    return [one.problem for one in found_in(Held(64 << 20, **whole)) if isinstance(one, Problem)]


def chain(length: int, last: bytes = table((0x83, 1, 1))) -> dict[str, bytes]:
    tables = {
        f"at_{FIRST + 16 * number}": table((0x83, 1, 1), (5, 16 * (number + 1), 16))
        for number in range(length - 1)
    }
    return tables | {f"at_{FIRST + 16 * (length - 1)}": last}


def test_what_sfdisk_makes_has_no_problems_and_all_partitions(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(64 << 20)
    lines = ["label: dos", "start=2048,size=8192,type=83", "start=12288,size=100000,type=5"]
    lines += [f"start={14336 + 10240 * number},size=8192,type=83" for number in range(5)]
    subprocess.run(["sfdisk", "-q", disk], input="\n".join(lines).encode(), check=True, timeout=60)
    content = disk.read_bytes()

    class File:
        size = len(content)

        def read(self, offset: int, length: int) -> bytes:
            return content[offset : offset + length]

    found = list(found_in(File()))
    assert [one for one in found if isinstance(one, Problem)] == []
    assert len([one for one in found if isinstance(one, Found)]) == 6


def test_an_extended_partition_with_nothing_in_it_is_no_problem() -> None:
    assert problems() == []
    assert problems(**{f"at_{FIRST}": table()}) == []


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({f"at_{FIRST}": table((0x83, 63, 100), (5, 0, 100))}, "back"),
        ({f"at_{FIRST}": table((5, 16, 9)), f"at_{FIRST + 16}": table((0x0F, 0, 9))}, "back"),
        (chain(MAX_TABLES + 1), "more than"),
        ({f"at_{FIRST}": table((0x83, 63, 100), (5, 64, 100))}, "no table"),
        ({f"at_{FIRST}": b"\x01" * 512}, "no table"),
        ({f"at_{FIRST}": table((5, 1 << 30, 100))}, "no table"),
        ({f"at_{FIRST}": table((5, 16, 9), (5, 32, 9)), f"at_{FIRST + 16}": table()}, "more than one"),
    ],
)
def test_a_chain_that_does_not_come_to_its_end_is_a_problem(tables: dict[str, bytes], words: str) -> None:
    assert any(words in problem for problem in problems(**tables))


def test_a_chain_as_long_as_is_followed_is_no_problem_and_seen_to_its_end() -> None:
    whole = {"at_0": table((5, FIRST, 100_000))} | chain(MAX_TABLES)
    found = list(found_in(Held(64 << 20, **whole)))
    assert [one.problem for one in found if isinstance(one, Problem)] == []
    assert len(found) == MAX_TABLES


@settings(max_examples=100)
@given(
    st.lists(
        st.lists(
            st.tuples(
                st.sampled_from([0, 5, 0x83]),
                PLACES,
                st.integers(0, 9),
            ),
            max_size=4,
        ),
        min_size=1,
        max_size=6,
    )
)
def test_whatever_stands_in_the_tables_comes_to_an_end(tables: list[list[Entry]]) -> None:
    problems(**{f"at_{FIRST + 32 * number}": table(*entries) for number, entries in enumerate(tables)})
