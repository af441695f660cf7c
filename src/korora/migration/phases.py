"""The table of contents: a migration as each side lives it, one phase after another.

Whatever fails before `commit` is undone, and the VM runs on at the source; after it, the VM is the
destination's (docs/PROTOCOL.md, "Ownership").
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from korora.model.progress import Phase

Tell = Callable[[Phase, Callable[[], Awaitable[None]]], Awaitable[None]]


class Source(Protocol):
    """The host that has the VM, and lets it go."""

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
    await tell(Phase.AUTHORIZE, source.authorize)
    await tell(Phase.ATTEST, source.attest)
    await tell(Phase.AGREE, source.agree)
    await tell(Phase.BASELINE, source.baseline)
    await tell(Phase.TRANSFER, source.transfer)
    await tell(Phase.SWITCHOVER, source.switch_over)
    await tell(Phase.VERIFY, source.verify)
    await tell(Phase.COMMIT, source.commit)
    await tell(Phase.WIPE, source.wipe)
    await tell(Phase.RECEIPT, source.receipt)


async def arrive(destination: Destination, tell: Tell) -> None:
    await tell(Phase.ATTEST, destination.attest)
    await tell(Phase.AGREE, destination.agree)
    if destination.dry_run:
        return
    await tell(Phase.BASELINE, destination.baseline)
    await tell(Phase.TRANSFER, destination.transfer)
    await tell(Phase.VERIFY, destination.verify)
    await tell(Phase.COMMIT, destination.commit)
    await tell(Phase.RECEIPT, destination.receipt)
