"""Work while watching: the first watch that raises ends the work with its reason."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from korora.errors import KororaError, PeerError

T = TypeVar("T")
SYMPTOMS: Final = frozenset({"stream-failed"})
"""The hypervisor here only sees that the other one left, also when that one was given forged state."""
_MOMENT_S: Final = 3.0  # a peer that is busy undoing may be slow to say why
_FIRST_HAND: Final = frozenset({"stalled"})  # this side's clock said so; the peer only saw this side leave


async def while_watching(
    work: Coroutine[Any, Any, T],
    *watches: Coroutine[Any, Any, object],
    symptoms: frozenset[str] = frozenset(),
) -> T:
    """The work's result. A watch that returns is no news; one that raises cancels the work.

    When the work fails because the peer left, or with a kind of `symptoms`, the watches get a moment to say
    why: their reason is nearer to the cause. Any other failure of the work is this side's own to tell, at
    once: the peer is waiting for it.
    """
    working = asyncio.create_task(work)
    watching = {asyncio.create_task(watch) for watch in watches}
    try:
        while not working.done():
            done, _ = await asyncio.wait({working, *watching}, return_when=asyncio.FIRST_COMPLETED)
            for watch in done & watching:
                watching.discard(watch)
                watch.result()
        if _may_be_a_symptom(working.exception(), symptoms):
            for watch in await _first_of(watching):
                watch.result()
        return working.result()
    finally:
        for task in (working, *watching):
            task.cancel()
        await asyncio.gather(working, *watching, return_exceptions=True)


def _may_be_a_symptom(failure: BaseException | None, symptoms: frozenset[str]) -> bool:
    if isinstance(failure, KororaError):
        left = isinstance(failure, PeerError) and failure.kind not in _FIRST_HAND
        return left or failure.kind in symptoms
    return failure is not None


async def _first_of(watching: set[asyncio.Task[object]]) -> set[asyncio.Task[object]]:
    if not watching:
        return set()
    done, _ = await asyncio.wait(watching, timeout=_MOMENT_S, return_when=asyncio.FIRST_COMPLETED)
    return done
