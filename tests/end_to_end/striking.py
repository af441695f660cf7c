"""A man in the middle who waits for one message of a move to another host, and does something then.

He counts TLS records: he sees no more of messages than that.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from end_to_end.records import Strike
from end_to_end.travelling import HOSTS, Traveller
from korora.lab.forwarder import Forwarder
from korora.lab.layout import LabHost
from korora.lab.site import configuration_through
from korora.lab.tampering import Action, Direction

THERE, BACK = Direction.FORWARD, Direction.RETURN

# Which record of the control channel carries what, for a guest without a variable store.
CLIENT_HELLO, MANIFEST, RELEASE, DRAFT, FILED = 1, 11, 12, 13, 16
HELLO, ANSWER, READY, ACCEPT, RUNNING, COUNTERSIGNED = 10, 12, 13, 15, 16, 17


@contextmanager
def strike_at(
    walker: Traveller,
    direction: Direction,
    record: int,
    then: Callable[[], None] = lambda: None,
    how: Action | None = Action.CUT,
    to: LabHost | None = None,
) -> Iterator[Path]:
    """The way to the other host breaks (or what `how` says) when that record comes, after `then` was done."""
    there, layout = to or walker.other(), walker.lab.layout
    strike = Strike(direction, record, then, how)
    target = (there.ip, int(there.address.rpartition(":")[2]))
    listen = (layout.switch_ip, 0)
    with Forwarder(listen, target, inside=walker.lab.inside, editors=strike.editor) as forwarder:
        address = "{}:{}".format(*forwarder.address)
        yield configuration_through(layout, layout.hosts(HOSTS), {there.name: address}, "strike")
    assert strike.done, strike.seen


@dataclass(frozen=True, slots=True)
class Hold:
    """A message that waits: `reached` when it has come, and it goes on after `go_on`."""

    config: Path
    reached: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)


@contextmanager
def held_at(walker: Traveller, direction: Direction, record: int) -> Iterator[Hold]:
    """The message of that record waits in the middle, and nothing is broken."""
    hold = Hold(Path())

    def wait() -> None:
        hold.reached.set()
        hold.go_on.wait(300)

    with strike_at(walker, direction, record, wait, how=None) as config:
        try:
            yield Hold(config, hold.reached, hold.go_on)
        finally:
            hold.go_on.set()
