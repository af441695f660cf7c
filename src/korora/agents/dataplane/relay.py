"""What both relays share: lanes, threads, the first reason that ends everything, the report.

Promise: the first failure anywhere decides; it closes every socket of this side, wakes `finished()` with its
reason, and thereby ends the other side too. After `abort()` returns nothing is left.
Limit: nothing here knows which side it is.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final

from korora.agents.dataplane.handover import Cut
from korora.agents.dataplane.lane import Lane
from korora.errors import KororaError, ToolError
from korora.model.evidence import StreamRoot

_JOIN_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class RelayReport:
    """Evidence of one side after every authenticated end. Equal on both hosts, field by field.

    `payload_bytes` and `wire_bytes` count both directions; the wire's include preambles, headers and tags.
    """

    roots: tuple[StreamRoot, ...]
    payload_bytes: int
    wire_bytes: int


class Relay:
    """Lanes and their fate. Use SourceRelay or DestinationRelay."""

    def __init__(self, lanes: Sequence[Lane]) -> None:
        if not lanes:
            raise ValueError("a relay needs the keys of at least one stream")
        self._lanes = tuple(lanes)
        self._outcome: Future[RelayReport] = Future()
        self._outcome.set_running_or_notify_cancel()  # so that a cancelled waiter cannot cancel the relay
        self._lock = threading.Lock()
        self._decided = False
        self._threads: list[threading.Thread] = []
        self._loops_left = {lane.keys.stream: 2 for lane in lanes}  # that have not ended well
        self._threads_left = dict(self._loops_left)  # that still may use the sockets

    async def finished(self) -> RelayReport:
        """Wait until every stream has ended in both directions, authenticated.

        Raises the first failure of this side: IntegrityError (something was changed), PeerError (the other
        host ended early or fell silent), ToolError (this host's hypervisor, or `aborted`). Its message names
        stream, direction and frame. All sockets of the relay are closed or closing then.
        There is no deadline for an idle hypervisor: whoever waits decides how long, and aborts.
        """
        return await asyncio.wrap_future(self._outcome)

    def abort(self, why: str) -> None:
        """Close everything now. Threads, sockets and the unix path are gone when it returns.

        Idempotent, and safe from any thread. After success it changes nothing. A thread that is still inside
        the caller's own `connect` is waited for at most two seconds; it ends when `connect` returns.
        """
        self._fail(ToolError(f"the relay was stopped: {why}", kind="aborted"))
        give_up_at = time.monotonic() + _JOIN_S
        with self._lock:
            threads = [thread for thread in self._threads if thread is not threading.current_thread()]
        for thread in threads:
            thread.join(max(0.0, give_up_at - time.monotonic()))

    @property
    def bytes_sent(self) -> int:
        """Payload that went out to the other host so far."""
        return sum(lane.outbound.payload_bytes for lane in self._lanes)

    @property
    def bytes_received(self) -> int:
        """Payload that came in and was delivered so far."""
        return sum(lane.inbound.payload_bytes for lane in self._lanes)

    @property
    def bytes_on_wire(self) -> int:
        """Both directions, with everything Korora adds."""
        return sum(lane.wire_bytes for lane in self._lanes)

    def _run_lane(self, lane: Lane, before: Callable[[Lane], None] | None = None) -> None:
        """Start the two threads of a lane; `before` runs first, in the outbound one."""

        def outbound() -> None:
            if before is not None:
                before(lane)
            lane.outbound.run()

        self._spawn(f"korora-data-{lane.keys.stream}-out", outbound, lane)
        self._spawn(f"korora-data-{lane.keys.stream}-in", lane.inbound.run, lane)

    def _spawn(self, name: str, work: Callable[[], None], lane: Lane | None = None) -> None:
        thread = threading.Thread(target=self._guard, args=(work, lane), name=name, daemon=True)
        with self._lock:
            self._threads.append(thread)
            thread.start()  # under the lock: abort() joins only what runs

    def _guard(self, work: Callable[[], None], lane: Lane | None) -> None:
        try:
            work()
            if lane is not None and self._is_last(lane):
                lane.farewell()
        except Cut:
            pass  # the reason is known already
        except KororaError as failed:
            self._fail(failed)
        except Exception as failed:  # a bug must end the move, not hang it
            self._fail(_broken(failed), cause=failed)
        finally:
            if lane is not None:
                self._leave(lane)

    def _is_last(self, lane: Lane) -> bool:
        with self._lock:
            self._loops_left[lane.keys.stream] -= 1
            return not self._loops_left[lane.keys.stream] and not self._decided

    def _leave(self, lane: Lane) -> None:
        with self._lock:
            self._threads_left[lane.keys.stream] -= 1
            last_of_lane = not self._threads_left[lane.keys.stream]
            succeeded = not self._decided and not any(self._threads_left.values())
            self._decided = self._decided or succeeded
        if last_of_lane:
            lane.close()
        if succeeded:
            self._conclude()

    def _conclude(self) -> None:
        try:
            self._outcome.set_result(self._report())
        except Exception as failed:  # a bug must end the move, not hang it
            self._outcome.set_exception(_broken(failed))

    def _fail(self, reason: KororaError, cause: Exception | None = None) -> None:
        with self._lock:
            if self._decided:
                return
            self._decided = True
        reason.__cause__ = reason.__cause__ or cause
        self._cut()
        self._outcome.set_exception(reason)

    def _cut(self) -> None:
        """Wake every thread. Sockets are closed as the threads leave."""
        for lane in self._lanes:
            lane.cut()

    def _report(self) -> RelayReport:
        roots = tuple(root for lane in self._lanes for root in lane.evidence())
        return RelayReport(roots, self.bytes_sent + self.bytes_received, self.bytes_on_wire)


def _broken(failed: Exception) -> KororaError:
    return KororaError(f"the relay broke: {failed!r}", kind="bug")
