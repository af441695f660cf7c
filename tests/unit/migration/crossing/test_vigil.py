"""Work while watching."""

from __future__ import annotations

import asyncio

import pytest

from korora.errors import IntegrityError, PeerError, ToolError
from korora.migration.crossing.vigil import while_watching


async def _after(seconds: float, result: str) -> str:
    await asyncio.sleep(seconds)
    return result


async def _fail(seconds: float, reason: str) -> None:
    await asyncio.sleep(seconds)
    raise RuntimeError(reason)


def test_the_work_is_done_though_a_watch_returns_early() -> None:
    assert asyncio.run(while_watching(_after(0.05, "done"), _after(0.01, "no news"))) == "done"


def test_a_watch_that_raises_ends_the_work_at_once() -> None:
    with pytest.raises(RuntimeError, match="the peer left"):
        asyncio.run(while_watching(_after(30, "done"), _fail(0.01, "the peer left")))


def test_the_watchs_reason_counts_when_the_work_fails_of_it() -> None:
    with pytest.raises(RuntimeError, match="cause"):
        asyncio.run(while_watching(_fail(0.0, "symptom"), _fail(0.0, "cause")))


def test_a_change_on_the_way_is_told_at_once_though_the_peer_may_have_a_reason_too() -> None:
    async def opened_a_forged_frame() -> None:
        raise IntegrityError("a frame was changed")

    with pytest.raises(IntegrityError, match="a frame was changed"):
        asyncio.run(while_watching(opened_a_forged_frame(), _fail(0.05, "the peer left")))


def test_a_lost_peer_is_told_by_the_peers_own_reason() -> None:
    async def lost_the_connection() -> None:
        raise PeerError("the connection ended")

    with pytest.raises(RuntimeError, match="its disk is full"):
        asyncio.run(while_watching(lost_the_connection(), _fail(0.05, "its disk is full")))


def test_a_stall_is_told_by_who_saw_it() -> None:
    async def waited_in_vain() -> None:
        raise PeerError("the other host was silent for 30 s", kind="stalled")

    with pytest.raises(PeerError, match="was silent"):
        asyncio.run(while_watching(waited_in_vain(), _fail(0.05, "the source cut the connection")))


def test_watches_do_not_outlive_the_work() -> None:
    async def story() -> int:
        await while_watching(_after(0.01, "done"), _after(30, "never"))
        return len(asyncio.all_tasks())

    assert asyncio.run(story()) == 1


def test_a_failure_that_the_caller_calls_a_symptom_waits_for_the_peers_word() -> None:
    async def broken() -> None:
        raise ToolError("the stream failed", kind="stream-failed")

    with pytest.raises(RuntimeError, match="what was wrong"):
        asyncio.run(
            while_watching(broken(), _fail(0.01, "what was wrong"), symptoms=frozenset({"stream-failed"}))
        )
    with pytest.raises(ToolError, match="the stream failed"):
        asyncio.run(while_watching(broken(), _fail(0.01, "what was wrong")))
