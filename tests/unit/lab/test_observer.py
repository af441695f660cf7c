"""What the observer makes of ticks."""

import socket
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from korora.errors import ToolError
from korora.lab.observer import MAGIC, TICK, Observer, Tick, judge, parse_tick

GUEST = ("10.78.1.1", 9701)


def datagram(sequence: int, boot: int = 7, flags: int = 3) -> bytes:
    return TICK.pack(MAGIC, flags, boot, sequence, sequence * 10**7, 0, 5, 1, 9, bytes(8), bytes(8), 4, 0)


def ticks(numbers: list[int], boot: int = 7, period_s: float = 0.01) -> list[Tick]:
    made = [parse_tick(datagram(n, boot), GUEST, at * period_s) for at, n in enumerate(numbers)]
    return [tick for tick in made if tick]


def test_a_tick_says_what_the_guest_put_in() -> None:
    tick = parse_tick(datagram(3, flags=2), GUEST, 1.5)
    assert tick is not None
    assert (tick.sequence, tick.boot, tick.arrived_s, tick.pages_verified) == (3, 7, 1.5, 5)
    assert (tick.tpm_works, tick.secret_intact, tick.disk_present) == (False, True, False)


@given(st.binary(max_size=200))
def test_other_datagrams_are_no_ticks(junk: bytes) -> None:
    assert parse_tick(junk, GUEST, 0.0) is None or (len(junk) == TICK.size and junk.startswith(MAGIC))


def test_the_downtime_is_the_largest_gap_less_the_period() -> None:
    steady = ticks(list(range(10)))
    late = [replace(t, arrived_s=t.arrived_s + 0.25) if t.sequence >= 6 else t for t in steady]
    worst = judge(late).worst
    assert worst.downtime_s == pytest.approx(0.25)
    assert (worst.last_before, worst.first_after) == (5, 6)


def test_lost_doubled_and_reordered_ticks_are_counted_apart() -> None:
    report = judge(ticks([0, 1, 1, 4, 3, 5]))
    assert (report.lost, report.doubled, report.reordered) == (1, 1, 1)


@given(st.permutations(list(range(12))), st.sets(st.integers(1, 10)))
def test_what_is_lost_does_not_depend_on_the_order_of_arrival(order: list[int], gone: set[int]) -> None:
    assert judge(ticks([n for n in order if n not in gone])).lost == len(gone)


def test_a_reboot_starts_the_numbers_anew() -> None:
    report = judge(ticks([50, 51, 52]) + [replace(t, arrived_s=9.0) for t in ticks([0, 1, 2], boot=8)])
    assert (report.reboots, report.lost, report.reordered) == (1, 0, 0)


def test_too_few_ticks_are_an_error_not_a_figure() -> None:
    with pytest.raises(ToolError):
        judge(ticks([1]))


def test_the_observer_hears_ticks_and_asks_for_reports() -> None:
    with Observer("127.0.0.1", 0) as observer, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as guest:
        guest.bind(("127.0.0.1", 0))
        guest.settimeout(60)
        begin = time.monotonic()
        for number in range(3):
            guest.sendto(datagram(number), observer.address)
        observer.wait_for_tick(deadline_s=60, after_s=begin - 1)

        import threading

        def answer() -> None:
            question, asker = guest.recvfrom(100)
            guest.sendto(question + b' {"errors": 0}', asker)

        threading.Thread(target=answer, daemon=True).start()
        assert observer.report("127.0.0.1", deadline_s=60) == {"errors": 0}
        assert all(begin - 5 < tick.arrived_s < time.monotonic() + 5 for tick in observer.ticks())


def test_a_silent_guest_is_reported_as_such() -> None:
    with Observer("127.0.0.1", 0) as observer, pytest.raises(ToolError) as silent:
        observer.wait_for_tick(deadline_s=0.1)
    assert silent.value.kind == "no-ticks"
