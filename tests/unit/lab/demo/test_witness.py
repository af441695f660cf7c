"""What the demonstration makes of a guest's reports and ticks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from korora.lab.demo.witness import (
    Account,
    Look,
    account_of,
    changed,
    comparison,
    short,
    standstill_s,
    tick_complaints,
    tick_words,
)
from korora.lab.observer import Tick, judge

REPORT: dict[str, Any] = {
    "boot": "c7c0", "uname": "Linux 6.1", "firmware": "bios", "uptime_ms": 10285, "ek_name": "000b2d",
    "pcr10": "1af1", "pcr16": "fd46", "nv": "6323", "pages": 24576, "errors": 0, "errors_ever": 0,
    "secret": "korora-secret: the door is LOCKED", "disk": {"present": True, "checks": 951, "errors": 0},
}  # fmt: skip


def _ticks(*times: tuple[float, float], boot: int = 1, first: int = 1) -> list[Tick]:
    """Ticks that arrived at the first time of each pair, and carry the second as the guest's own."""
    return [
        Tick(
            arrived_s=arrived, guest=("10.78.1.1", 9701), boot=boot, sequence=number, guest_s=own,
            tpm_works=True, secret_intact=True, disk_present=True, memory_errors=0, pages_verified=0,
            generation=0, pages_dirtied=0, pcr16="", nv="", disk_checks=0, disk_errors=0,
        )
        for number, (arrived, own) in enumerate(times, start=first)
    ]  # fmt: skip


_STEADY = _ticks((1.00, 0.50), (1.01, 0.51), (1.02, 0.52))


def _look(said: Account, ticks: list[Tick] | None = None) -> Look:
    seen = ticks or _STEADY
    return Look(said, judge(seen), standstill_s(seen))


def test_a_guest_that_is_as_it_was_gives_no_complaint() -> None:
    said = account_of(REPORT)
    assert _look(said).complaints(said) == []
    assert said.secret == "the door is LOCKED"


def test_a_guest_without_a_disk_has_no_disk_errors() -> None:
    assert account_of({**REPORT, "disk": None}).disk_errors == 0


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"ek_name": "000bff"}, "EK name changed"),
        ({"pcr10": "ffff"}, "PCR 10 changed"),
        ({"nv": "ffff"}, "NV secret changed"),
        ({"boot": "8d57"}, "boot id changed"),
        ({"errors": 2, "errors_ever": 1}, "3 pattern errors"),
        ({"disk": {"errors": 4}}, "4 disk errors"),
        ({"secret": "korora-secret: the door is OPENED"}, "its text says: the door is OPENED"),
    ],
)
def test_whatever_is_not_as_it_was_is_named(change: dict[str, Any], complaint: str) -> None:
    assert _look(account_of({**REPORT, **change})).complaints(account_of(REPORT)) == [complaint]


def test_a_vtpm_that_never_had_an_identity_is_not_called_the_same() -> None:
    nameless = replace(account_of(REPORT), ek="")
    assert changed(nameless, nameless) == ["EK name"]


def test_the_comparison_shows_values_and_not_only_verdicts() -> None:
    after = replace(account_of(REPORT), nv="ffff")
    rows = {row[0]: row[1:] for row in comparison(account_of(REPORT), after, ("a", "b"))}
    assert rows["EK name"] == ("000b2d", "000b2d", "same")
    assert rows["NV secret"] == ("6323", "ffff", "CHANGED")
    assert rows[""] == ("on a, before", "on b, after", "")


def test_a_stopped_guest_stands_still_and_a_starved_one_does_not() -> None:
    stopped = _ticks((1.00, 0.50), (1.25, 0.51), (1.26, 0.52))
    starved = _ticks((1.00, 0.50), (1.25, 0.75), (1.26, 0.76))
    assert standstill_s(stopped) == pytest.approx(0.24)
    assert standstill_s(starved) == pytest.approx(0.0)


def test_a_reboot_is_no_standstill_but_a_complaint() -> None:
    ticks = _ticks((1.0, 50.0), (1.01, 50.01)) + _ticks((9.0, 0.5), (9.01, 0.51), boot=2)
    assert standstill_s(ticks) == pytest.approx(0.0)
    assert tick_complaints(judge(ticks)) == ["1 reboots"]


def test_a_doubled_tick_is_a_complaint_and_a_single_lost_datagram_is_not() -> None:
    doubled = judge([*_STEADY, _STEADY[-1]])
    assert tick_complaints(doubled) == ["1 ticks doubled"]
    assert tick_words(doubled) == "4 ticks, 0 lost, 1 doubled"
    one_lost = _STEADY + _ticks((1.04, 0.54), first=5)
    many_lost = _STEADY + _ticks((1.10, 0.60), first=11)
    assert tick_complaints(judge(one_lost)) == []
    assert tick_complaints(judge(many_lost)) == ["7 ticks lost"]


def test_long_values_are_cut_visibly_and_short_ones_left_alone() -> None:
    assert short("0123456789", 4) == "0123…"
    assert short("0123", 4) == "0123"
