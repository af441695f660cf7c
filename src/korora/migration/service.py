"""All migrations of one host: those it begins, those it takes in, and those that a crash left open."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from typing import Any, Final

import structlog

from korora.errors import KororaError, RefusedError, ToolError, UsageError, files_failed, is_of_files
from korora.migration import onlookers
from korora.migration.crossing.first_run import is_there
from korora.migration.destination import Arrival
from korora.migration.greeting import questions
from korora.migration.greeting.checking import check
from korora.migration.greeting.conversation import DEADLINE_S, Conversation
from korora.migration.greeting.reservations import Reservations
from korora.migration.papers import outcome
from korora.migration.phases import arrive, depart
from korora.migration.recovery.settlement import Pace, Settlement
from korora.migration.setting import Setting
from korora.migration.source import Departure
from korora.migration.teller import Event, Teller
from korora.model.identity import OperatorName, VmName
from korora.model.ownership import Status
from korora.model.plan import Finding, Inquiry
from korora.model.question import Question, QuestionId
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
        self.ending = False  # cancelled, or its story is over


class Migrations:
    """Implements host.services.Migrations, and answers other hosts (`welcome`)."""

    def __init__(self, setting: Setting, *, channels: int = 0, pace: Pace | None = None) -> None:
        self._at = setting
        self._channels = channels
        self._known: dict[str, _Running] = {}
        self._arrivals: set[asyncio.Task[None]] = set()
        self._reservations = Reservations()
        self.settlement = Settlement(setting, pace or Pace())

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

    def list(self, by: OperatorName | None = None) -> Sequence[Mapping[str, Any]]:
        return [
            {
                "id": name,
                "vm": running.departure.file.request.vm,
                "destination": running.departure.file.request.destination,
                "phase": running.teller.phase,
                "outcome": running.teller.outcome,
            }
            for name, running in self._known.items()
            if onlookers.may(self._at, running.departure.file.request, "observe", by)
        ]

    def events(self, id: str, by: OperatorName | None = None) -> AsyncIterator[Mapping[str, Any]]:  # noqa: A002
        running = self._of(id)
        onlookers.check(self._at, running.departure.file.request, "observe", by)
        return running.teller.events()

    async def cancel(self, id: str, by: OperatorName | None = None) -> None:  # noqa: A002
        """Stop it, unless the VM was released already; either way its outcome says where the VM runs."""
        running = self._of(id)
        onlookers.asks_to_cancel(self._at, running.departure.file, running.departure.session or "", by)
        # Once, and never while it undoes: what is half undone would stay so.
        if running.task is not None and not running.ending and not running.departure.released:
            running.ending = True
            running.task.cancel()

    async def check(self, asked: Inquiry) -> Sequence[Finding]:
        return await check(self._at, asked)

    def questions(self, by: OperatorName | None = None) -> Sequence[Question]:
        return [one for one in questions.waiting(self._at) if onlookers.may_see(self._at, one.matter, by)]

    def question(self, id: str, by: OperatorName | None = None) -> Question:  # noqa: A002
        question = questions.found(self._at, QuestionId(id))
        if not onlookers.may_see(self._at, question.matter, by):
            raise questions.unknown(self._at, id)  # that there is one is not for everybody to know
        return question

    def answer(self, envelope: bytes) -> Question:
        return questions.take(self._at, envelope)

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
        """Cancel what is under way. What was released is journalled: the next start goes on from there."""
        await self.settlement.stop()
        tasks = [running.task for running in self._known.values() if running.task is not None]
        for task in (*tasks, *self._arrivals):
            task.cancel()
        await asyncio.gather(*tasks, *self._arrivals, return_exceptions=True)

    # -- inside -----------------------------------------------------------------------------------------

    async def _depart(self, running: _Running) -> None:
        departure, teller = running.departure, running.teller
        async with self.settlement.beside(departure):
            error = await self._played(depart(departure, teller))
            running.ending = True
            await self._closed(departure, error)
        await teller.finish(await self._outcome(departure, error))

    async def _played(self, story: Coroutine[Any, Any, None]) -> BaseException | None:
        """How it ended: None, or what stopped it."""
        try:
            await story
        except (Exception, asyncio.CancelledError) as failure:
            if is_of_files(failure):
                log.exception("files of this host", exc_info=failure)
                return files_failed(failure)
            if not isinstance(failure, KororaError | asyncio.CancelledError):
                log.exception("migration broke", exc_info=failure)
            return failure
        return None

    async def _closed(self, story: Departure | Arrival, error: BaseException | None) -> None:
        """Undo, or the journal is gone on from as after a restart: whatever broke, the outcome is told."""
        try:
            await story.close(error)
        except Exception as problem:
            log.exception("undo failed", vm=story.vm, exc_info=problem)
            if story.vm is not None:
                self.settlement.look_again(story.vm)

    async def _outcome(self, departure: Departure, error: BaseException | None) -> Event:
        file = departure.file
        if error is None:
            return outcome.completed(self._at, file)
        if departure.released and file.running is None:
            match await self.settlement.settle_soon(file.request.vm):
                case Status.WIPED:
                    return outcome.completed_late(self._at, file)
                case Status.OWNER:
                    here = await self._is_here(file.request.vm)
                    return outcome.failed(self._at, file, error, released=False, here=here)
                case _:
                    error = outcome.in_doubt(self._at, file, error)
        here = await self._is_here(file.request.vm)
        return outcome.failed(self._at, file, error, released=departure.released, here=here)

    async def _is_here(self, vm: VmName) -> bool:
        """Whether the VM has a process here, as far as can be told: one that does not answer may run."""
        try:
            return await is_there(self._at.guests.live(vm).machine)
        except KororaError as error:
            return isinstance(error, ToolError)

    async def _arrive(self, conversation: Conversation, first: tuple[messages.Hello, bytes]) -> None:
        arrival = Arrival(
            self._at,
            Teller(self._at.clock),
            conversation,
            first,
            reservations=self._reservations,
            keep=self.settlement.keep,
        )
        async with self.settlement.beside(arrival):
            error = await self._played(arrive(arrival, arrival.tell))
            if error is not None:
                words = error.message if isinstance(error, KororaError) else repr(error)
                log.warning("arrival ended", peer=conversation.channel.peer, error=words)
            await self._closed(arrival, error)

    def _of(self, name: str) -> _Running:
        running = self._known.get(name)
        if running is None:
            raise UsageError(f"no migration {name} is known here", kind="unknown-migration")
        return running

    def _forget_old(self) -> None:
        over = [name for name, running in self._known.items() if running.teller.outcome is not None]
        for name in over[: max(0, len(over) - _REMEMBERED)]:
            del self._known[name]
