"""Flags as values: their places in words, and what may stand in them."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from korora.model.flag import Flag, FlagKind, Original, Place, shown
from korora.model.inspection import CHECK_OF, Check

PLACES = st.builds(
    Place,
    disk=st.text(max_size=8),
    offset=st.none() | st.integers(0, 2**40),
    length=st.none() | st.integers(0, 2**20),
    volume=st.none() | st.integers(1, 9),
    path=st.binary(max_size=20),
    file=st.text(max_size=8),
    setting=st.text(max_size=8),
)
FLAG = Flag(
    id="0" * 32,
    kind=FlagKind.UNREAD,
    place=Place(disk="disk0"),
    reason="encrypted",
    raised_by="a",
    raised_at=1,
    seen_at=2,
)


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (Place(), "the VM"),
        (Place(disk="disk0", offset=3 << 20, length=1 << 20), "disk disk0, bytes 3145728 to 4194304"),
        (Place(disk="disk0", volume=1, path=b"/srv/evil"), "disk disk0, volume 1, /srv/evil"),
        (Place(disk="disk0", path=b"/\xff\n/x"), "disk disk0, /\\xff\\n/x"),
        (Place(file="/etc/libvirt/qemu/web.xml", setting="disk[2]"), "/etc/libvirt/qemu/web.xml, disk[2]"),
    ],
)
def test_a_place_is_told_in_words(place: Place, words: str) -> None:
    assert shown(place) == words


@given(PLACES)
def test_a_place_is_told_on_one_line_that_can_be_written(place: Place) -> None:
    words = shown(place)
    assert words
    assert "\n" not in words
    words.encode("utf-8", "backslashreplace")


@given(PLACES)
def test_a_place_is_read_back_as_it_was_written(place: Place) -> None:
    assert msgspec.json.decode(msgspec.json.encode(place), type=Place) == place


def test_every_kind_of_flag_is_some_checks_finding_and_a_baseline_finds_nothing() -> None:
    assert set(CHECK_OF) == set(FlagKind)
    assert set(Check) - set(CHECK_OF.values()) == {Check.FILES}


def test_a_flag_is_open_until_there_is_a_word_on_it() -> None:
    assert FLAG.is_open
    assert not msgspec.structs.replace(FLAG, resolution=b"x").is_open


@pytest.mark.parametrize(
    "changed",
    [
        {"id": "0" * 31},
        {"id": "G" * 32},
        {"kind": "virus"},
        {"reason": "x" * 4097},
        {"raised_by": "x" * 257},
        {"raised_at": -1},
        {"seen_at": 253_402_300_800},
        {"content": "sha1:" + "0" * 40},
        {"content": "blake3:" + "0" * 63},
        {"place": {"offset": -1}},
        {"place": {"where": "there"}},
        {"original": {"size": 2**63}},
        {"more": 1},
    ],
    ids=str,
)
def test_what_does_not_fit_into_a_flag_is_refused(changed: dict[str, object]) -> None:
    built = msgspec.to_builtins(FLAG)
    assert msgspec.convert(built, Flag) == FLAG
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode(built | changed), type=Flag)


def test_an_original_says_where_it_is_or_why_it_is_not() -> None:
    kept = Original(digest="sha256:" + "0" * 64, size=3)
    assert msgspec.json.encode(kept) == b'{"digest":"sha256:%s","size":3}' % (b"0" * 64)
    assert msgspec.json.encode(Original(left="too large")) == b'{"left":"too large"}'
