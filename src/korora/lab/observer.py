"""See the guest from outside: its ticks tell the downtime, its reports what it found in memory and TPM.

The socket lives in the lab's switch namespace; everything else in this process stays where it is.
Limit: the guest ticks every 10 ms, so a gap is known to about one period; the kernel stamps
arrivals, so this process being slow does not widen a gap, while a starved guest does.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

from korora.errors import ToolError

TICK_PERIOD_S = 0.010
OBSERVER_PORT = 9700
GUEST_PORT = 9701
SO_TIMESTAMPNS = 35  # <asm-generic/socket.h>; Python 3.11 has no name for it
TICK = struct.Struct("<4sI7Q8s8sII")
MAGIC = b"KTK1"


@dataclass(frozen=True, slots=True)
class Tick:
    """One datagram of the guest. `arrived_s` is this machine's monotonic clock, `guest_s` the guest's."""

    arrived_s: float
    guest: tuple[str, int]
    boot: int  # drawn at boot: another number is another boot
    sequence: int
    guest_s: float
    tpm_works: bool
    secret_intact: bool
    disk_present: bool
    memory_errors: int
    pages_verified: int
    generation: int
    pages_dirtied: int
    pcr16: str  # first 8 bytes, hex
    nv: str  # first 8 bytes of the NV secret's digest, hex
    disk_checks: int
    disk_errors: int


@dataclass(frozen=True, slots=True)
class Outage:
    """Where the largest gap lies. `downtime_s` is the gap without the period that is always there."""

    downtime_s: float
    began_s: float
    last_before: int
    first_after: int


@dataclass(frozen=True, slots=True)
class TickReport:
    """What became of the ticks of one stretch of time."""

    received: int
    lost: int
    doubled: int
    reordered: int
    reboots: int
    mean_gap_s: float
    p99_gap_s: float
    worst: Outage


def parse_tick(datagram: bytes, guest: tuple[str, int], arrived_s: float) -> Tick | None:
    """None for anything that is not a tick (an answer to a question, a stray datagram)."""
    if len(datagram) != TICK.size or not datagram.startswith(MAGIC):
        return None
    _, flags, boot, sequence, guest_ns, errors, verified, generation, dirtied, pcr16, nv, checks, bad = (
        TICK.unpack(datagram)
    )
    return Tick(
        arrived_s, guest, boot, sequence, guest_ns / 1e9, bool(flags & 1), bool(flags & 2), bool(flags & 4),
        errors, verified, generation, dirtied, pcr16.hex(), nv.hex(), checks, bad,
    )  # fmt: skip


def judge(ticks: list[Tick], period_s: float = TICK_PERIOD_S) -> TickReport:
    """Count and measure; `ticks` in order of arrival, at least two. A reboot starts the numbers anew."""
    if len(ticks) < 2:
        raise ToolError(
            f"{len(ticks)} ticks are too few to judge",
            kind="no-ticks",
            remedy="is the guest running, and korora.observer= right?",
        )
    seen: set[tuple[int, int]] = set()
    doubled = reordered = 0
    highest: dict[int, int] = {}
    for tick in ticks:
        name = (tick.boot, tick.sequence)
        doubled += name in seen
        reordered += name not in seen and tick.sequence < highest.get(tick.boot, -1)
        seen.add(name)
        highest[tick.boot] = max(tick.sequence, highest.get(tick.boot, -1))
    first: dict[int, int] = {}
    for tick in ticks:
        first[tick.boot] = min(tick.sequence, first.get(tick.boot, tick.sequence))
    expected = sum(highest[boot] - first[boot] + 1 for boot in highest)
    gaps = sorted(after.arrived_s - before.arrived_s for before, after in pairwise(ticks))
    return TickReport(
        received=len(ticks),
        lost=expected - len(seen),
        doubled=doubled,
        reordered=reordered,
        reboots=len(highest) - 1,
        mean_gap_s=sum(gaps) / len(gaps),
        p99_gap_s=gaps[int(len(gaps) * 0.99)],
        worst=_worst(ticks, period_s),
    )


def _worst(ticks: list[Tick], period_s: float) -> Outage:
    before, after = max(pairwise(ticks), key=lambda pair: pair[1].arrived_s - pair[0].arrived_s)
    gap = after.arrived_s - before.arrived_s
    return Outage(max(0.0, gap - period_s), before.arrived_s, before.sequence, after.sequence)


class Observer:
    """Listens to the guests of one lab. A context manager; `close` ends its thread and frees the port.

    `bind` makes the socket: `in_namespace(switch, make)` in a lab, or plain `make()` in a test.
    """

    def __init__(
        self,
        address: str,
        port: int = OBSERVER_PORT,
        bind: Callable[[Callable[[], socket.socket]], socket.socket] = lambda make: make(),
    ) -> None:
        self._ticks: list[Tick] = []
        self._ports: dict[str, int] = {}  # where each guest was last heard from
        self._answers: dict[str, dict[str, Any]] = {}
        self._changed = threading.Condition()
        self._questions = int(time.time() * 1000)  # numbers no earlier observer has used
        self._socket = bind(lambda: _udp_socket(address, port))
        self._closing = False
        self._thread = threading.Thread(target=self._listen, name="observer", daemon=True)
        self._thread.start()

    @property
    def address(self) -> tuple[str, int]:
        host, port = self._socket.getsockname()
        return host, port

    def ticks(self, guest_ip: str | None = None, since_s: float = 0.0) -> list[Tick]:
        """Those that arrived since then (this machine's monotonic clock), from one guest or from all."""
        with self._changed:
            return [
                tick
                for tick in self._ticks
                if tick.arrived_s >= since_s and (guest_ip is None or tick.guest[0] == guest_ip)
            ]

    def wait_for_tick(
        self, guest_ip: str | None = None, deadline_s: float = 60.0, after_s: float | None = None
    ) -> Tick:
        """The next tick that arrives after `after_s` (now). ToolError when none comes."""
        start = time.monotonic() if after_s is None else after_s
        limit = time.monotonic() + deadline_s
        with self._changed:
            while True:
                late = [
                    t
                    for t in reversed(self._ticks[-200:])
                    if t.arrived_s > start and guest_ip in (None, t.guest[0])
                ]
                if late:
                    return late[0]
                if not self._changed.wait(limit - time.monotonic()) and time.monotonic() >= limit:
                    raise ToolError(
                        f"no tick from {guest_ip or 'any guest'} in {deadline_s:.0f} s", kind="no-ticks"
                    )

    def judge(self, guest_ip: str | None = None, since_s: float = 0.0) -> TickReport:
        return judge(self.ticks(guest_ip, since_s))

    def report(self, guest_ip: str, deadline_s: float = 60.0) -> dict[str, Any]:
        """Have the guest check everything now, and return what it says (docs/lab.md lists the keys)."""
        with self._changed:
            self._questions += 1
            question = f"report {self._questions}"
        limit = time.monotonic() + deadline_s
        while time.monotonic() < limit:
            self._socket.sendto(question.encode(), (guest_ip, self._ports.get(guest_ip, GUEST_PORT)))
            with self._changed:
                # Asked again each second: the guest answers a repeated question without a new check.
                self._changed.wait_for(lambda: question in self._answers, timeout=1.0)
                if question in self._answers:
                    return self._answers.pop(question)
        raise ToolError(f"the guest {guest_ip} gave no report in {deadline_s:.0f} s", kind="no-report")

    def forget(self) -> None:
        """Drop the ticks so far (a long benchmark holds 100 a second)."""
        with self._changed:
            self._ticks.clear()

    def close(self) -> None:
        self._closing = True
        self._thread.join(timeout=2)
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _listen(self) -> None:
        while not self._closing:
            try:
                datagram, extra, _, sender = self._socket.recvmsg(65536, 128)
            except TimeoutError:
                continue
            except OSError:
                if self._closing:
                    return
                continue  # a guest that is not there yet answers with an ICMP error
            self._take(datagram, sender, _arrival(extra))

    def _take(self, datagram: bytes, sender: tuple[str, int], arrived_s: float) -> None:
        tick = parse_tick(datagram, sender, arrived_s)
        with self._changed:
            if tick is not None:
                self._ticks.append(tick)
                self._ports[sender[0]] = sender[1]
            elif datagram.startswith(b"report "):
                self._keep_answer(datagram)
            self._changed.notify_all()

    def _keep_answer(self, datagram: bytes) -> None:
        word, number, text = datagram.decode("utf-8", "replace").split(" ", 2)
        try:
            self._answers[f"{word} {number}"] = json.loads(text)
        except json.JSONDecodeError:
            self._answers[f"{word} {number}"] = {"unreadable": text}


def _arrival(extra: list[tuple[int, int, bytes]]) -> float:
    """When the kernel took the datagram in, on the monotonic clock; now, if it did not say."""
    now = time.monotonic()
    for level, kind, data in extra:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
            seconds, nanoseconds = struct.unpack("=qq", data)
            return float(now - (time.time() - seconds - nanoseconds / 1e9))
    return now


def _udp_socket(address: str, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    made.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    made.settimeout(0.2)
    made.bind((address, port))
    return made
