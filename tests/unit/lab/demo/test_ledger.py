"""The table at the end of the demonstration."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from korora.lab.demo.ledger import Ledger, shares, table

_CELL = st.text(alphabet="abc def✓0", max_size=60)


def test_nothing_shown_is_not_good() -> None:
    assert not Ledger().all_good


def test_one_thing_that_went_wrong_spoils_the_whole() -> None:
    ledger = Ledger()
    assert ledger.enter("attack", "exit 5", "exit 5", good=True)
    assert ledger.all_good
    assert not ledger.enter("attack", "exit 5", "exit 0", good=False)
    assert not ledger.all_good


def test_a_short_table_has_one_line_for_each_thing() -> None:
    ledger = Ledger()
    ledger.enter("downtime", "the same from outside", "542 ms", good=True)
    header, line = ledger.lines(100)
    assert header.split() == ["STEP", "EXPECTED", "SEEN"]
    assert line.split()[-1] == "✓"
    assert header.index("SEEN") == line.index("542 ms")


def test_a_wide_cell_goes_on_in_the_next_line_of_its_own_column() -> None:
    first, second = table([("one", "many words that do not fit"), ("two", "x")][:1], 20)
    assert first.startswith("one  ")
    assert second.startswith("     ")


@given(st.lists(st.lists(_CELL, min_size=3, max_size=3), min_size=1, max_size=6), st.integers(60, 120))
def test_no_line_is_wider_than_the_terminal(rows: list[list[str]], width: int) -> None:
    assert all(len(line) <= width for line in table(rows, width))


@given(st.lists(st.integers(0, 200), min_size=1, max_size=8), st.integers(30, 200))
def test_columns_get_what_they_want_or_share_what_there_is(wanted: list[int], width: int) -> None:
    given_ = shares(wanted, width)
    assert sum(given_) + 2 * (len(given_) - 1) <= width or max(given_) == 1
    assert all(got <= max(want, 1) for got, want in zip(given_, wanted, strict=True))
