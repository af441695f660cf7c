"""What this host has promised to VMs that arrive: a place among the incoming ones, and memory.

A place is taken before the destination looks whether the VM fits, so that of two orders at one time the
second counts the first. Limit: in this process; a restart ends every arrival anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, eq=False)
class Reservation:
    """`owed_bytes` tells how much memory it will still take: none, once the kernel has allocated it."""

    owed_bytes: Callable[[], int]


class Reservations:
    """In the order of their orders."""

    def __init__(self) -> None:
        self._held: list[Reservation] = []

    @contextmanager
    def held(self, owed_bytes: Callable[[], int]) -> Iterator[Reservation]:
        reservation = Reservation(owed_bytes)
        self._held.append(reservation)
        try:
            yield reservation
        finally:
            self._held.remove(reservation)

    def before(self, one: Reservation | None = None) -> tuple[int, int]:
        """(number, bytes still owed) of those that came before it; of all without one."""
        earlier = self._held if one is None else self._held[: self._held.index(one)]
        return len(earlier), sum(reservation.owed_bytes() for reservation in earlier)
