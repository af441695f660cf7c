"""A guest that would notice is outsourced; where bandwidth is to spare, its disks are copied gently."""

from __future__ import annotations

from dataclasses import replace

import pytest

from korora.agents.io.headroom import Headroom, chosen
from korora.ports.moving_disks import Load

MIB = 1 << 20
FAST, SLOW = 400.0 * MIB, 30.0 * MIB


def found(requests: int, before_ms: float, meanwhile_ms: float, rate: float) -> Headroom:
    before = Load(requests, requests * before_ms / 1000)
    return Headroom(before, 1.0, Load(requests, requests * meanwhile_ms / 1000), 1.0, rate)


@pytest.mark.parametrize(
    ("seen", "outsource", "cap"),
    [
        (found(1000, 4, 4.5, FAST), False, 200 * MIB),
        (found(1000, 4, 8, FAST), True, 240 * MIB),
        (found(1000, 4, 8, 2 * FAST), False, 400 * MIB),
        (found(1000, 4, 4, SLOW), True, 18 * MIB),
        (found(5, 4, 40, SLOW), False, 64 * MIB),
        (found(0, 0, 0, FAST), False, 0),
    ],
)
def test_the_choice_follows_what_was_seen(seen: Headroom, outsource: bool, cap: int) -> None:
    choice = chosen(seen, can_outsource=True)
    assert (choice.outsource, choice.cap_bytes_per_s) == (outsource, cap)
    assert "MiB/s beside the guest" in choice.why


def test_disks_that_wait_for_a_busy_cpu_are_not_taken_for_slow_ones() -> None:
    seen = found(1000, 4, 16, FAST)
    busy = replace(seen, meanwhile=seen.meanwhile + Load(0, 0.0, starved_s=0.5))
    assert chosen(seen, can_outsource=True).outsource
    choice = chosen(busy, can_outsource=True)
    assert (choice.outsource, choice.cap_bytes_per_s) == (False, 200 * MIB)
    assert "(800 if it had not waited for CPUs)" in choice.why


@pytest.mark.parametrize("starved_s", [0.5, 5.0])
def test_slow_disks_are_slow_on_a_busy_machine_too(starved_s: float) -> None:
    seen = found(1000, 4, 16, SLOW)
    busy = replace(seen, meanwhile=seen.meanwhile + Load(0, 0.0, starved_s))
    assert chosen(busy, can_outsource=True).outsource


def test_without_a_replacement_it_is_mirrored_as_gently_as_can_be() -> None:
    choice = chosen(found(1000, 4, 40, SLOW), can_outsource=False)
    assert (choice.outsource, choice.cap_bytes_per_s) == (False, 15 * MIB)
    assert "want of a replacement" in choice.why


@pytest.mark.parametrize(
    ("seen", "cap"),
    [(found(1000, 4, 8, FAST), 240 * MIB), (found(1000, 4, 4, FAST), 0), (found(0, 0, 0, FAST), 0)],
)
def test_what_is_asked_for_is_done_and_gently_where_a_guest_would_notice(seen: Headroom, cap: int) -> None:
    choice = chosen(seen, can_outsource=False, wanted=True)
    assert (choice.outsource, choice.cap_bytes_per_s) == (True, cap)
