"""Contents are led out of what a reader tells: whole, or as a file that broke off, whatever it tells."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from korora.agents.integrity.files.tapping import name_of, tapped
from korora.model.files import Begun, Done, Ended, Entire, FileRecord, Piece, Problem, Told, Volume

VOLUME = Volume(1, 0, 100, "ext4", files=True)


@dataclass
class Kept:
    """A taker that keeps (name, what came, problem), and allows no disorder."""

    files: list[tuple[str, bytes, str]] = field(default_factory=list)
    now: tuple[str, int | None] | None = None
    came: bytes = b""

    def begin(self, name: str, size: int | None) -> None:
        assert self.now is None
        self.now, self.came = (name, size), b""

    def piece(self, data: bytes) -> None:
        assert self.now is not None
        self.came += data

    def end(self, problem: str = "") -> None:
        assert self.now is not None
        self.files.append((self.now[0], self.came, problem))
        self.now = None


def record(path: bytes, size: int = 0, problem: str = "", volume: int = 1) -> FileRecord:
    return FileRecord(
        volume=volume, path=path, kind="file", mode=0, owner=0, group=0, size=size, links=1, problem=problem
    )


def taken(*told: Told, wanted: bool = True) -> tuple[Kept, list[Told]]:
    kept = Kept()
    passed = list(tapped(told, [kept], lambda _: wanted))
    assert kept.now is None
    return kept, passed


def test_a_file_comes_whole_and_everything_else_passes() -> None:
    kept, passed = taken(
        VOLUME, Begun(1, b"/a", 3), Piece(b"ab"), Piece(b"c"), Ended(), record(b"/a", 3), Done(1)
    )
    assert kept.files == [("volume 1: /a", b"abc", "")]
    assert passed == [VOLUME, record(b"/a", 3), Done(1)]


def test_all_takers_get_all_of_it() -> None:
    takers = [Kept(), Kept()]
    told: list[Told] = [Begun(2, b"/\xff", 1), Piece(b"x"), Ended(), record(b"/\xff", 1, volume=2)]
    list(tapped(told, takers, lambda _: True))
    assert [one.files for one in takers] == [[("volume 2: /\\xff", b"x", "")]] * 2


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ((Begun(1, b"/a", 3), Piece(b"ab"), Ended("Input/output error")), "Input/output error"),
        ((Begun(1, b"/a", 3), Piece(b"ab"), Ended()), "2 bytes of it came, and not 3"),
        ((Begun(1, b"/a", 1), Piece(b"ab"), Ended()), "2 bytes of it came, and not 1"),
        ((Begun(1, b"/a", 2), Piece(b"ab")), "ended before it"),
        ((Begun(1, b"/a", 2), Piece(b"ab"), record(b"/a", 2)), "went on before its end"),
        ((Begun(1, b"/a", 2), Piece(b"ab"), Problem("/", "broken")), "went on before its end"),
        ((record(b"/a", 0),), "told nothing of its content"),
        ((record(b"/a", 0, "it is encrypted"),), "it is encrypted"),
    ],
)
def test_what_did_not_come_whole_broke_off(told: tuple[Told, ...], words: str) -> None:
    kept, _ = taken(*told)
    assert len(kept.files) == 1
    assert words in kept.files[0][2]


def test_a_file_that_is_begun_within_another_breaks_that_one_off() -> None:
    kept, _ = taken(Begun(1, b"/a", 1), Piece(b"x"), Begun(1, b"/b", 1), Piece(b"y"), Ended())
    assert [(name, came, not problem) for name, came, problem in kept.files] == [
        ("volume 1: /a", b"x", False),
        ("volume 1: /b", b"y", True),
    ]


def test_another_files_record_does_not_stand_for_a_file_whose_content_never_came() -> None:
    kept, _ = taken(Begun(1, b"/a", 0), Ended(), record(b"/b", 0))
    assert [(name, bool(problem)) for name, _, problem in kept.files] == [
        ("volume 1: /a", False),
        ("volume 1: /b", True),
    ]


def test_a_second_record_has_no_part_in_the_content_that_came_once() -> None:
    kept, _ = taken(Begun(1, b"/a", 1), Piece(b"x"), Ended(), record(b"/a", 1), record(b"/a", 1))
    assert [bool(problem) for _, _, problem in kept.files] == [False, True]


def test_a_file_in_one_piece_is_whole_and_breaks_off_the_one_before() -> None:
    kept, passed = taken(Begun(1, b"/a", 9), Piece(b"x"), Entire(1, b"/b", b"yz"), record(b"/b", 2))
    assert [(name, came, not problem) for name, came, problem in kept.files] == [
        ("volume 1: /a", b"x", False),
        ("volume 1: /b", b"yz", True),
    ]
    assert passed == [record(b"/b", 2)]


def test_what_is_not_wanted_is_not_taken() -> None:
    kept, passed = taken(Begun(1, b"/a", 1), Piece(b"x"), Ended(), record(b"/a", 1), wanted=False)
    assert kept.files == []
    assert passed == [record(b"/a", 1)]


def test_a_reader_that_raises_or_is_left_breaks_the_file_off() -> None:
    def fails() -> object:
        yield Begun(1, b"/a", 1)
        yield Piece(b"x")
        raise OSError("gone")

    kept = Kept()
    with pytest.raises(OSError, match="gone"):
        list(tapped(fails(), [kept], lambda _: True))  # type: ignore[arg-type]
    assert kept.files == [("volume 1: /a", b"x", "its reader was left")]
    kept = Kept()
    told = tapped([Begun(1, b"/a", 1), Piece(b"x"), VOLUME, Ended()], [kept], lambda _: True)
    next(told)
    told.close()
    assert len(kept.files) == 1
    assert kept.files[0][2]


_PATHS = st.sampled_from([b"/a", b"/b", b"/c"])
_ANY = st.one_of(
    st.builds(Begun, st.just(1), _PATHS, st.integers(0, 4)),
    st.builds(Piece, st.binary(max_size=3)),
    st.builds(Ended, st.sampled_from(["", "", "broken"])),
    st.builds(Entire, st.just(1), _PATHS, st.binary(max_size=3)),
    st.builds(record, _PATHS, st.integers(0, 4)),
    st.just(Problem("/", "broken")),
    st.just(VOLUME),
)


@given(st.lists(_ANY, max_size=40))
@settings(deadline=None, max_examples=300)
def test_whatever_is_told_no_file_is_whole_but_for_all_its_bytes_and_its_end(told: list[Told]) -> None:
    kept, passed = taken(*told)
    assert passed == [one for one in told if not isinstance(one, Begun | Piece | Ended | Entire)]
    whole = [(name, came) for name, came, problem in kept.files if not problem]
    expected = []
    for at, one in enumerate(told):
        if isinstance(one, Begun):
            came, rest = b"", at + 1
            while rest < len(told) and isinstance(told[rest], Piece):
                came += told[rest].data  # type: ignore[union-attr]
                rest += 1
            if rest < len(told) and told[rest] == Ended() and len(came) == one.size:
                expected.append((name_of(1, one.path), came))
        elif isinstance(one, Entire):
            expected.append((name_of(1, one.path), one.data))
    assert whole == expected
    begun = sum(isinstance(one, Begun | Entire) for one in told)
    assert len(kept.files) >= begun
