"""An inspector in a process of its own: what a hostile disk does to it, it does not do to the daemon.

The order goes in as JSON; out come lines of JSON: {"told": words}, and last {"answer": …} or {"error": …}.
Promise: it ends with the order, with its deadline or when it is cancelled, and everything that it started
with it. Limit: it has the daemon's rights; what reads images and file systems below it has none.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

import msgspec

from korora.errors import KororaError, ToolError, error_of
from korora.model.inspection import Compared, Examined
from korora.ports.inspector import Order, Told

T = TypeVar("T")
WORKER: Final = "korora.wiring.inspection.worker"
GRACE_S: Final = 30.0
_LINE_MAX_BYTES: Final = 64 << 20
_WORDS: Final = 300


@dataclass(frozen=True, slots=True)
class ProcessInspector:
    """Implements `ports.inspector.Inspector`."""

    command: tuple[str, ...] = (sys.executable, "-m", WORKER)

    async def inspect(self, order: Order, told: Told) -> Examined:
        return await self._asked("inspect", order, told, Examined)

    async def compare(self, order: Order, told: Told) -> Compared:
        return await self._asked("compare", order, told, Compared)

    async def _asked(self, deed: Literal["inspect", "compare"], order: Order, told: Told, kind: type[T]) -> T:
        process = await asyncio.create_subprocess_exec(
            *self.command,
            deed,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=_LINE_MAX_BYTES,
            start_new_session=True,  # so that all of it can be ended
        )
        try:
            async with asyncio.timeout(order.within_s + GRACE_S):
                return await _conversed(process, msgspec.json.encode(order), told, kind)
        except TimeoutError as late:
            raise _failed(f"it did not end within {order.within_s:.0f} s") from late
        finally:
            await _end(process)


async def _conversed(process: asyncio.subprocess.Process, order: bytes, told: Told, kind: type[T]) -> T:
    assert process.stdin is not None  # noqa: S101  they are pipes
    assert process.stdout is not None  # noqa: S101
    assert process.stderr is not None  # noqa: S101
    words = asyncio.create_task(_last_words(process.stderr))
    try:
        with suppress(ConnectionError):
            process.stdin.write(order)
            await process.stdin.drain()
        process.stdin.close()
        async for line in process.stdout:
            said: dict[str, Any] = msgspec.json.decode(line)
            if "told" in said:
                told(str(said["told"])[:_WORDS])
            elif "answer" in said:
                return msgspec.convert(said["answer"], kind)
            else:
                raise _as_error(said["error"])
        raise _failed(f"it ended without an answer: {await words or 'and without a word'}")
    except (msgspec.MsgspecError, ValueError, KeyError, TypeError) as error:
        raise _failed(f"its answer cannot be read: {error}") from error
    finally:
        words.cancel()


async def _last_words(stream: asyncio.StreamReader) -> str:
    """The end of what it complained of; it is never kept waiting for a reader."""
    said = b""
    while piece := await stream.read(65536):
        said = (said + piece)[-4096:]
    lines = said.decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:_WORDS] if lines else ""


async def _end(process: asyncio.subprocess.Process) -> None:
    """With everything that it started and that stayed in its session."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def _as_error(said: dict[str, Any]) -> KororaError:
    return error_of(said["exit_code"], said["kind"], said["message"], said["remedy"], None)


def _failed(problem: str) -> ToolError:
    return ToolError(
        f"the VM could not be looked into: {problem}",
        kind="inspection",
        remedy="see the daemon's log, and look by hand: korora image digest, korora files digest",
    )
