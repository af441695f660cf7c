"""Faults at numbered points of a story, and daemons that die there without a last word.

Every call of a port is a *point*, named `host:port.method#n` (its n-th time). A run without faults records
them; later runs put a fault at one. A daemon that died can do nothing any more: each of its ports raises
`PowerCutError`, which nothing of Korora catches, so no cleanup reaches the world.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from enum import StrEnum
from typing import Any

from korora.errors import PeerError, ToolError
from korora.model.identity import Secret
from korora.protocol.messages import decode

DAEMON: ContextVar[Daemon | None] = ContextVar("DAEMON", default=None)


class PowerCutError(BaseException):
    """This daemon is dead: nothing it does reaches the world."""


class Fault(StrEnum):
    FAIL = "fail"  # the call does nothing and raises ToolError; a message is lost, and its connection
    FAIL_AFTER = "fail-after"  # it is done, but its answer is lost; a message arrives, then the line is cut
    CRASH = "crash"  # the daemon dies before it
    CRASH_AFTER = "crash-after"  # the daemon dies after it


Deed = Callable[[], object]


def possible(point: str, fault: Fault) -> bool:
    """Whether it can happen there, as the ports promise."""
    step = point.split(":")[1]
    if step.startswith(("hear", "dial")):
        return fault in {Fault.FAIL, Fault.CRASH}
    if step.startswith("tpm.forget") and fault is Fault.FAIL:  # then the TPM keeps it, until it is reset
        return False
    if step.startswith(("journal", "hypervisor.start")):  # their ports promise that a failure left nothing
        return fault is not Fault.FAIL_AFTER
    return True


class Plan:
    """What shall happen where; and what did happen."""

    def __init__(self) -> None:
        self.faults: dict[str, Fault] = {}
        self.deeds: dict[str, Deed] = {}  # run before the point, once
        self.passed: list[str] = []
        self._count: Counter[str] = Counter()
        self.fate: Callable[[str], Fault | None] = lambda _point: None  # may add a fault anywhere
        self.quiet = False  # points pass without being counted

    def reach(self, host: str, step: str) -> tuple[Fault | None, Deed | None]:
        if self.quiet:
            return None, None
        self._count[f"{host}:{step}"] += 1
        point = f"{host}:{step}#{self._count[f'{host}:{step}']}"
        self.passed.append(point)
        return self.faults.pop(point, None) or self.fate(point), self.deeds.pop(point, None)


class Daemon:
    """One life of one host's daemon. Tasks that it starts die with it."""

    def __init__(self, host: str, plan: Plan) -> None:
        self.host = host
        self.plan = plan
        self.dead = False
        self.died = asyncio.Event()
        self.on_death: list[Callable[[], None]] = []
        self.tasks: set[asyncio.Task[Any]] = set()
        self._loop = asyncio.get_running_loop()

    def start(self, work: Callable[[], Awaitable[Any]]) -> asyncio.Task[Any]:
        """Run it as this daemon: whatever task it starts is this daemon's."""

        async def run() -> Any:
            return await work()

        token = DAEMON.set(self)
        try:
            return asyncio.create_task(run())
        finally:
            DAEMON.reset(token)

    def over(self, task: asyncio.Task[Any]) -> None:
        """A task has ended. How, nobody asks when the daemon is dead."""
        self.tasks.discard(task)
        if self.dead and not task.cancelled():
            task.exception()

    def kill(self) -> None:
        """SIGKILL. Safe from any thread."""
        if self.dead:
            return
        self.dead = True
        self._loop.call_soon_threadsafe(self._bury)

    async def gone(self) -> None:
        """Until nothing of it is left."""
        await self.died.wait()
        while left := {task for task in self.tasks if not task.done()}:
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=0.05)

    def _bury(self) -> None:
        for last in self.on_death:
            last()
        for task in list(self.tasks):
            task.cancel()
        self.died.set()

    def before(self, step: str) -> Fault | None:
        """Raises what must come instead of the step; returns what must come after it."""
        self._check()
        fault, deed = self.plan.reach(self.host, step)
        if deed is not None:
            deed()
        if fault is Fault.FAIL:
            raise ToolError(f"{step} fails on {self.host}", kind="fault")
        if fault is Fault.CRASH:
            self.kill()
        self._check()
        return fault

    def after(self, step: str, fault: Fault | None) -> None:
        if fault is Fault.FAIL_AFTER:
            raise ToolError(f"the answer to {step} was lost on {self.host}", kind="fault")
        if fault is Fault.CRASH_AFTER:
            self.kill()
        self._check()

    def _check(self) -> None:
        if self.dead:
            raise PowerCutError(self.host)


def note_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """From now on every task knows whose it is."""

    def factory(loop: asyncio.AbstractEventLoop, work: Any, **named: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, **named)
        daemon = DAEMON.get()
        if daemon is not None:
            daemon.tasks.add(task)
            task.add_done_callback(daemon.over)
        return task

    loop.set_task_factory(factory)


class Port:
    """A port as a daemon uses it: every method is a point. What the world starts in it lives on."""

    def __init__(self, daemon: Daemon, name: str, what: Any, *, silent: frozenset[str] = frozenset()) -> None:
        self._daemon = daemon
        self._name = name
        self._what = what
        self._silent = silent  # methods that are no points: they come when they come

    def __getattr__(self, method: str) -> Any:
        if self._daemon.dead:
            raise PowerCutError(self._daemon.host)
        found = getattr(self._what, method)
        if not inspect.ismethod(found):
            return self._wrapped(found)
        if inspect.isasyncgenfunction(found):
            return lambda *given: self._each(found(*given))
        if inspect.iscoroutinefunction(found):
            return lambda *given, **named: self._later(method, found, given, named)
        return lambda *given, **named: self._now(method, found, given, named)

    def _now(self, method: str, found: Any, given: Any, named: Any) -> Any:
        fault = self._before(method)
        answer = found(*given, **named)
        self._daemon.after(f"{self._name}.{method}", fault)
        return self._wrapped(answer)

    async def _later(self, method: str, found: Any, given: Any, named: Any) -> Any:
        fault = self._before(method)
        token = DAEMON.set(None)
        try:
            answer = await found(*given, **named)
        finally:
            DAEMON.reset(token)
        self._daemon.after(f"{self._name}.{method}", fault)
        return self._wrapped(answer)

    async def _each(self, answers: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for answer in answers:
            self._daemon.after("", None)
            yield answer

    def _before(self, method: str) -> Fault | None:
        if method in self._silent or _watching_boots():
            self._daemon.after("", None)
            return None
        return self._daemon.before(f"{self._name}.{method}")

    def _wrapped(self, answer: Any) -> Any:
        kind = type(answer).__name__
        if kind not in _PORTS:
            return answer
        return Port(self._daemon, _PORTS[kind], answer, silent=frozenset({"stream_status", "close"}))


_PORTS = {"FakeMachine": "machine", "FakeVtpm": "vtpm", "FakeMemory": "memory"}


def _watching_boots() -> bool:
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return False
    return task is not None and task.get_name().startswith("boots of")


class Line:
    """The connection between two channel ends."""

    def __init__(self) -> None:
        self.ends: list[MemoryChannel] = []

    def cut(self) -> None:
        """Both sides see it, after what had arrived before."""
        for end in self.ends:
            end.inbox.put_nowait(None)
            end.closed = True


class MemoryChannel:
    """One end of a control channel between two daemons. Implements `ports.channel.Channel`."""

    def __init__(
        self, daemon: Daemon, line: Line, peer: str, own: bytes, theirs: bytes, secret: bytes
    ) -> None:
        self._daemon = daemon
        self._line = line
        self._secret = secret
        self.peer: Any = peer
        self.own_certificate = own
        self.peer_certificate = theirs
        self.tls_version = "TLSv1.3"
        self.tls_group = "X25519MLKEM768"
        self.inbox: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.closed = False
        self.change: Callable[[bytes], bytes] = lambda message: message  # the peer lies: a test's man inside
        line.ends.append(self)

    @property
    def _other(self) -> MemoryChannel:
        return next(end for end in self._line.ends if end is not self)

    def export_key(self, label: str, context: bytes, length: int = 32) -> Secret:
        return Secret(hashlib.shake_256(self._secret + label.encode() + b"\0" + context).digest(length))

    async def send(self, message: bytes) -> None:
        try:
            fault = self._daemon.before(f"say {_kind(message)}")
        except ToolError as lost:
            self._line.cut()
            raise PeerError(lost.message, kind="gone") from lost
        if self.closed:
            raise PeerError(f"the connection to {self.peer} is gone", kind="gone")
        await asyncio.sleep(0)
        self._other.inbox.put_nowait(self.change(message))
        if fault is Fault.FAIL_AFTER:
            self._line.cut()
        elif fault is Fault.CRASH_AFTER:
            self._daemon.kill()
            raise PowerCutError(self._daemon.host)

    async def receive(self, deadline_s: float | None = None) -> bytes:
        try:
            async with asyncio.timeout(deadline_s):
                message = await self.inbox.get()
        except TimeoutError as error:
            raise PeerError(f"host {self.peer} said nothing", kind="silent") from error
        if message is None:
            self.inbox.put_nowait(None)
            raise PeerError(f"the connection to {self.peer} is gone", kind="gone")
        try:
            self._daemon.before(f"hear {_kind(message)}")
        except ToolError as lost:
            self._line.cut()
            raise PeerError(lost.message, kind="gone") from lost
        return message

    async def close(self) -> None:
        self._line.cut()


def _kind(message: bytes) -> str:
    return type(decode(message)).__name__
