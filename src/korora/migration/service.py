"""All migrations of one host: those it begins, those it takes in, and those that a crash left open."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

import structlog

from korora.errors import KororaError, RefusedError, UsageError
from korora.migration import outcome
from korora.migration.checking import check
from korora.migration.conversation import DEADLINE_S, Conversation
from korora.migration.destination import Arrival
from korora.migration.phases import arrive, depart
from korora.migration.recovery import Settlement
from korora.migration.setting import Setting
from korora.migration.source import Departure
from korora.migration.teller import Event, Teller
from korora.model.ownership import Status
from korora.model.plan import Finding
from korora.ports.channel import Channel
from korora.protocol import messages

_REMEMBERED: Final = 100
log = structlog.get_logger("korora.migration")


class _Running:
    """One departure and who tells of it."""

    def __init__(self, departure: Departure, teller: Teller) -> None:
        self.departure = departure
        self.teller = teller
        self.task: asyncio.Task[None] | None = None


class Migrations:
    """Implements host.services.Migrations, and answers other hosts (`welcome`)."""

    def __init__(self, setting: Setting, *, channels: int = 0) -> None:
        self._at = setting
        self._channels = channels
        self._known: dict[str, _Running] = {}
        self._arrivals: set[asyncio.Task[None]] = set()
        self.settlement = Settlement(setting, self._moving)

    # -- what the API asks ------------------------------------------------------------------------------

    def begin(self, request_envelope: bytes, address: str | None) -> str:
        teller = Teller(self._at.clock)
        departure = Departure(self._at, teller, request_envelope, address, channels=self._channels)
        if departure.file.request.source != self._at.host:
            raise RefusedError(
                f"the request names {departure.file.request.source} as source; this is {self._at.host}",
                kind="request-mismatch",
                remedy=f"send it to the daemon of {departure.file.request.source}",
            )
        running, name = _Running(departure, teller), secrets.token_hex(8)
        self._known[name] = running
        self._forget_old()
        running.task = asyncio.create_task(self._depart(running), name=f"migration-{name}")
        return name

    def list(self) -> Sequence[Mapping[str, Any]]:
        return [
            {
                "id": name,
                "vm": running.departure.file.request.vm,
                "destination": running.departure.file.request.destination,
                "phase": running.teller.phase,
                "outcome": running.teller.outcome,
            }
            for name, running in self._known.items()
        ]

    def events(self, id: str) -> AsyncIterator[Mapping[str, Any]]:  # noqa: A002
        return self._of(id).teller.events()

    async def cancel(self, id: str) -> None:  # noqa: A002
        """Stop it, unless the VM was released already; either way its outcome says where the VM runs."""
        running = self._of(id)
        if running.task is not None and not running.departure.released:
            running.task.cancel()

    async def check(self, vm: str, destination: str, address: str | None) -> Sequence[Finding]:
        return await check(self._at, vm, destination, address)

    # -- what other hosts ask ---------------------------------------------------------------------------

    async def welcome(self, channel: Channel) -> None:
        """One conversation with another host, from its first message to its end."""
        conversation = Conversation(channel)
        first, body = await conversation.expect_with_body(messages.Message, DEADLINE_S)
        if not isinstance(first, messages.Hello):
            await self.settlement.answer(conversation, first)
            return
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 a coroutine runs in a task
        self._arrivals.add(task)
        try:
            await self._arrive(conversation, (first, body))
        finally:
            self._arrivals.discard(task)

    async def start(self) -> None:
        await self.settlement.start()

    async def stop(self) -> None:
        """Cancel what can be cancelled; what was released is left to the next start."""
        await self.settlement.stop()
        for running in self._known.values():
            if running.task is not None and not running.departure.released:
                running.task.cancel()
        tasks = [running.task for running in self._known.values() if running.task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- inside -----------------------------------------------------------------------------------------

    async def _depart(self, running: _Running) -> None:
        departure, teller = running.departure, running.teller
        error: BaseException | None = None
        try:
            await depart(departure, teller)
        except (Exception, asyncio.CancelledError) as failure:
            error = failure
        try:
            await departure.close(error)
        except KororaError as problem:
            log.error("undo failed", vm=departure.file.request.vm, kind=problem.kind, error=problem.message)
        await teller.finish(await self._outcome(departure, error))

    async def _outcome(self, departure: Departure, error: BaseException | None) -> Event:
        file = departure.file
        if error is None:
            return outcome.completed(self._at, file)
        if not isinstance(error, KororaError | asyncio.CancelledError):
            log.exception("migration broke", exc_info=error)
        if departure.released and file.running is None:
            match await self.settlement.settle_soon(file.request.vm):
                case Status.WIPED:
                    return outcome.completed_late(self._at, file)
                case Status.OWNER:
                    return outcome.failed(self._at, file, error, released=False)
                case _:
                    error = outcome.in_doubt(self._at, file, error)
        return outcome.failed(self._at, file, error, released=departure.released)

    async def _arrive(self, conversation: Conversation, first: tuple[messages.Hello, bytes]) -> None:
        arrival = Arrival(
            self._at,
            Teller(self._at.clock),
            conversation,
            first,
            arriving=lambda: len(self._arrivals) - 1,
            keep=self.settlement.keep,
        )
        error: BaseException | None = None
        try:
            await arrive(arrival, arrival.tell)
        except (Exception, asyncio.CancelledError) as failure:
            error = failure
            words = failure.message if isinstance(failure, KororaError) else repr(failure)
            log.warning("arrival ended", peer=conversation.channel.peer, error=words)
            if not isinstance(failure, KororaError | asyncio.CancelledError):
                log.exception("arrival broke", exc_info=failure)
        await arrival.close(error)

    def _of(self, name: str) -> _Running:
        running = self._known.get(name)
        if running is None:
            raise UsageError(f"no migration {name} is known here", kind="unknown-migration")
        return running

    def _moving(self, vm: str) -> bool:
        """Whether a live conversation is about this VM, so that recovery keeps out of it."""
        return any(
            running.departure.file.request.vm == vm and running.teller.outcome is None
            for running in self._known.values()
        )

    def _forget_old(self) -> None:
        over = [name for name, running in self._known.items() if running.teller.outcome is not None]
        for name in over[: max(0, len(over) - _REMEMBERED)]:
            del self._known[name]
