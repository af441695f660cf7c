"""The table of contents: a migration as each side lives it, one phase after another.

Whatever fails before `commit` is undone, and the VM runs on at the source; after it, the VM is the
destination's (docs/PROTOCOL.md, "Ownership"). Before each phase the rules are asked for the procedures that
it is made of (docs/POLICY.md): there is no other way into one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

from korora.migration.monitor import Monitor, Step
from korora.model.progress import Phase
from korora.policy.machine.language.vocabulary import Procedure

Tell = Callable[[Phase, Callable[[], Awaitable[None]]], Awaitable[None]]


class Source(Protocol):
    """The host that has the VM, and lets it go."""

    @property
    def monitor(self) -> Monitor: ...

    async def authorize(self) -> None: ...
    async def attest(self) -> None: ...
    async def agree(self) -> None: ...
    async def baseline(self) -> None: ...
    async def transfer(self) -> None: ...
    async def switch_over(self) -> None: ...
    async def verify(self) -> None: ...
    async def commit(self) -> None: ...
    async def wipe(self) -> None: ...
    async def receipt(self) -> None: ...


class Destination(Protocol):
    """The host that is asked to take the VM."""

    @property
    def monitor(self) -> Monitor: ...

    @property
    def dry_run(self) -> bool:
        """Known after `agree`: the source only wanted the prechecks."""
        ...

    async def attest(self) -> None: ...
    async def agree(self) -> None: ...
    async def baseline(self) -> None: ...
    async def transfer(self) -> None: ...
    async def verify(self) -> None: ...
    async def commit(self) -> None: ...
    async def receipt(self) -> None: ...


async def depart(source: Source, tell: Tell) -> None:
    play = _under(source.monitor, tell)
    await play(Phase.AUTHORIZE, source.authorize, Procedure.SUBMIT, Procedure.AUTHORIZE)
    await play(Phase.ATTEST, source.attest, Procedure.CHALLENGE, Procedure.ATTEST)
    await play(Phase.AGREE, source.agree, Procedure.AGREE)
    await play(Phase.BASELINE, source.baseline, Procedure.BASELINE)
    await play(Phase.TRANSFER, source.transfer, Procedure.TRANSFER)
    await play(Phase.SWITCHOVER, source.switch_over, Procedure.SWITCHOVER, Procedure.MEASURE)
    await play(Phase.VERIFY, source.verify, Procedure.VERIFY, Procedure.ACCEPT)
    await play(Phase.COMMIT, source.commit, Procedure.RELEASE, Procedure.RUN)
    await play(Phase.WIPE, source.wipe, Procedure.WIPE)
    await play(Phase.RECEIPT, source.receipt, Procedure.RECEIPT)


async def arrive(destination: Destination, tell: Tell) -> None:
    play = _under(destination.monitor, tell)
    await play(Phase.ATTEST, destination.attest, Procedure.CHALLENGE, Procedure.ATTEST)
    await play(Phase.AGREE, destination.agree, Procedure.SUBMIT, Procedure.AUTHORIZE, Procedure.AGREE)
    if destination.dry_run:
        return
    await play(Phase.BASELINE, destination.baseline, Procedure.BASELINE)
    await play(Phase.TRANSFER, destination.transfer, Procedure.TRANSFER, Procedure.SWITCHOVER)
    await play(Phase.VERIFY, destination.verify, Procedure.MEASURE, Procedure.VERIFY, Procedure.ACCEPT)
    await play(Phase.COMMIT, destination.commit, Procedure.RELEASE, Procedure.RUN)
    await play(Phase.RECEIPT, destination.receipt, Procedure.RECEIPT)


class _Play(Protocol):
    async def __call__(self, phase: Phase, step: Step, *procedures: Procedure) -> None: ...


def _under(monitor: Monitor, tell: Tell) -> _Play:
    async def play(phase: Phase, step: Step, *procedures: Procedure) -> None:
        await tell(phase, partial(monitor.around, step, *procedures))

    return play
