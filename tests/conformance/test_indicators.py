"""What every store of indicators must do. `open_store` opens the same storage again, as another command
does."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from fakes.indicators import MemoryIndicators, Shelf
from korora.adapters.indicators.sqlite import SqliteIndicators
from korora.model.indicator import Entry, Kind, Provenance, Verdict
from korora.ports.indicators import IndicatorStore, Written

Open = Callable[[], IndicatorStore]
NOW = 1_800_000_000
SAID = Provenance(
    "one", reference="7", confidence=80, family="Emotet", changed_at=5, imported_at=NOW, file="sha256:aa"
)
EVIL = Entry(Kind.DOMAIN, "evil.example", SAID)


def by(provenance: Provenance, **changes: object) -> Entry:
    return Entry(Kind.DOMAIN, "evil.example", msgspec.structs.replace(provenance, **changes))


@pytest.fixture(params=["sqlite", "memory"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    opened: list[IndicatorStore] = []
    shelf = Shelf()

    def again() -> IndicatorStore:
        for store in opened:
            store.close()
        real = request.param == "sqlite"
        opened.append(SqliteIndicators(tmp_path / "indicators.db") if real else MemoryIndicators(shelf))
        return opened[-1]

    yield again
    for store in opened:
        store.close()


def test_a_new_store_knows_nothing(open_store: Open) -> None:
    store = open_store()
    assert (store.counts(), list(store.listed()), store.values(Kind.DOMAIN, NOW)) == ({}, [], [])
    assert store.find(Kind.DOMAIN, "evil.example") is None


def test_what_was_written_is_there_with_all_that_its_source_said(open_store: Open) -> None:
    assert open_store().write([[EVIL]]) == [Written(1, 0)]
    found = open_store().find(Kind.DOMAIN, "evil.example")
    assert found is not None
    assert found.provenances == (SAID,)
    assert open_store().values(Kind.DOMAIN, NOW) == [b"evil.example"]
    assert open_store().values(Kind.URL, NOW) == []
    assert open_store().counts() == {Kind.DOMAIN: 1}


def test_one_value_of_two_sources_is_one_indicator_with_both(open_store: Open) -> None:
    other = by(SAID, source="two", verdict=Verdict.BENIGN)
    assert open_store().write([[EVIL], [other]]) == [Written(1, 0), Written(0, 1)]
    found = open_store().find(Kind.DOMAIN, "evil.example")
    assert found is not None
    assert [one.source for one in found.provenances] == ["one", "two"]


def test_the_order_of_sources_and_of_entries_changes_nothing(open_store: Open) -> None:
    entries = [EVIL, by(SAID, source="two"), by(SAID, changed_at=9, confidence=10), by(SAID, reference="8")]
    told = set()
    for order in itertools.permutations(entries):
        store = open_store()
        store.write([order])
        found = store.find(Kind.DOMAIN, "evil.example")
        assert found is not None
        told.add(msgspec.json.encode(found))
    assert len(told) == 1
    assert found is not None
    assert found.provenances[0].confidence == 10


def test_what_a_source_changed_last_counts(open_store: Open) -> None:
    open_store().write([[by(SAID, changed_at=9, revoked=True)]])
    open_store().write([[EVIL]])
    found = open_store().find(Kind.DOMAIN, "evil.example")
    assert found is not None
    assert [one.revoked for one in found.provenances] == [True]
    assert open_store().values(Kind.DOMAIN, NOW) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"revoked": True},
        {"verdict": Verdict.BENIGN},
        {"verdict": Verdict.CONTEXT},
        {"expires": NOW},
        {"valid_from": NOW + 1},
    ],
    ids=str,
)
def test_what_is_not_in_force_is_kept_and_not_looked_for(
    open_store: Open, changes: dict[str, object]
) -> None:
    open_store().write([[by(SAID, **changes)]])
    assert open_store().values(Kind.DOMAIN, NOW) == []
    assert open_store().find(Kind.DOMAIN, "evil.example") is not None


def test_an_import_that_fails_leaves_nothing(open_store: Open) -> None:
    def breaking() -> Iterator[Entry]:
        yield from (Entry(Kind.DOMAIN, f"h{number}.example", SAID) for number in range(6000))
        raise RuntimeError

    with pytest.raises(RuntimeError):
        open_store().write([[EVIL], breaking()])
    assert open_store().counts() == {}
    assert open_store().write([[EVIL]]) == [Written(1, 0)]


def test_they_are_listed_by_kind_and_value(open_store: Open) -> None:
    url = Entry(Kind.URL, "http://evil.example/", SAID)
    open_store().write([[url, EVIL, Entry(Kind.DOMAIN, "bad.example", SAID)]])
    store = open_store()
    assert [one.value for one in store.listed()] == ["bad.example", "evil.example", "http://evil.example/"]
    assert [one.value for one in store.listed(Kind.DOMAIN)] == ["bad.example", "evil.example"]
    assert [one.value for one in store.listed(containing="evil")] == ["evil.example", "http://evil.example/"]


def test_text_that_means_something_to_a_database_is_text(open_store: Open) -> None:
    odd = Entry(Kind.KEPT, "pattern:'; DROP TABLE indicator; --%_\\", SAID)
    open_store().write([[odd]])
    found = open_store().find(Kind.KEPT, odd.value)
    assert found is not None
    assert list(open_store().listed(containing="%_")) == [found]
