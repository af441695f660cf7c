"""What the API asks of inspections and flags: implements host.services.Inspections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from korora.errors import IntegrityError, KororaError, RefusedError, UsageError
from korora.model.flag import Flag
from korora.model.identity import OperatorName, VmName
from korora.model.inspection import Inspection
from korora.ports.inspector import Told
from korora.protocol import flag as flags
from korora.supervision.guests import Guests
from korora.supervision.inspection import dossier
from korora.supervision.inspection.examiner import Examiner, Subject
from korora.supervision.inspection.resolving import Resolver, known_flag

Event = Mapping[str, Any]
HEARTBEAT_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class FlagsTold:
    """`flags`: (VM, flag), open ones first, the newest of each first. `unreadable`: (VM, why) of those whose
    record cannot be read."""

    flags: Sequence[tuple[VmName, Flag]]
    unreadable: Sequence[tuple[VmName, IntegrityError]] = ()


class Inspections:
    """All methods belong on the daemon's event loop."""

    def __init__(self, guests: Guests, examiner: Examiner, resolver: Resolver) -> None:
        self._guests = guests
        self._examiner = examiner
        self._resolver = resolver

    def inspect(self, vm: str) -> AsyncIterator[Event]:
        async def work(told: Told) -> Event:
            with self._guests.looking_into(vm) as (definition, directory, live):
                seen = await self._examiner.inspect(Subject(definition, directory, live), told)
            return {"inspection": seen.report, "flags": seen.open_flags}

        return _events(work)

    def verify(self, vm: str) -> AsyncIterator[Event]:
        async def work(told: Told) -> Event:
            with self._guests.looking_into(vm) as (definition, directory, live):
                return {
                    "verification": await self._examiner.verify(Subject(definition, directory, live), told)
                }

        return _events(work)

    def report(self, vm: str) -> Inspection | None:
        return dossier.read_report(self._guests.known_directory(vm))

    def flags(self, by: OperatorName | None = None) -> FlagsTold:
        found: list[tuple[VmName, Flag]] = []
        unreadable: list[tuple[VmName, IntegrityError]] = []
        for vm in self._guests.names():
            if not (self._resolver.may(by, "observe", vm) or self._resolver.may(by, "resolve", vm)):
                continue
            try:
                record = dossier.read_flags(self._guests.known_directory(vm), vm)
            except IntegrityError as error:
                unreadable.append((vm, error))
            else:
                found += [(vm, flag) for flag in record.flags]
        found.sort(key=lambda one: (not one[1].is_open, -one[1].raised_at, one[0], one[1].id))
        return FlagsTold(found, unreadable)

    def original(self, vm: str, flag: str, by: OperatorName | None = None) -> bytes:
        directory = self._guests.known_directory(vm)
        if not self._resolver.may(by, "resolve", VmName(vm)):
            raise RefusedError(
                f"no policy lets {by} have originals of {vm}",
                kind="not-allowed",
                remedy="a policy for the action resolve gives that right",
            )
        found = known_flag(dossier.read_flags(directory, VmName(vm)), flag)
        path = dossier.original(directory, found.id)
        if not path.is_file():
            raise UsageError(
                f"no original is kept of flag {found.id[:8]}: {found.original.left or 'it is not here'}",
                kind="no-original",
                remedy="what was flagged lies where the flag says",
            )
        return path.read_bytes()

    def resolve(self, envelope: bytes) -> Flag:
        """RefusedError busy or moving while somebody else has the VM."""
        vm = flags.peek(envelope).vm
        directory = self._guests.known_directory(vm)
        self._guests.refuse_busy(vm)
        return self._resolver.take(envelope, directory)


async def _events(work: Callable[[Told], Awaitable[Event]]) -> AsyncIterator[Event]:
    """What it tells, then its result, as they come. Whoever stops listening ends the work."""
    waiting: asyncio.Queue[Event] = asyncio.Queue()
    task = asyncio.ensure_future(work(lambda words: waiting.put_nowait({"told": words})))
    task.add_done_callback(lambda _: waiting.put_nowait({}))
    last: Event = {"told": "looks into the VM"}
    try:
        while True:
            try:
                event = await asyncio.wait_for(waiting.get(), HEARTBEAT_S)
            except TimeoutError:
                yield last  # so that whoever listens knows that somebody is there
                continue
            if not event:
                break
            yield event
            last = event
        yield await task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, KororaError):
            await task
