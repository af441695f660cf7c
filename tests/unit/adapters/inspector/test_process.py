"""An inspector in its own process: whatever becomes of it, the daemon hears an answer or an error."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from korora.adapters.inspector import process
from korora.adapters.inspector.process import ProcessInspector
from korora.errors import KororaError, RefusedError, ToolError
from korora.model.inspection import Check, Disposition, Examined
from korora.ports.inspector import Order

ANSWER = '{"answer": {"looked": []}}'


def order(folder: Path, within_s: float = 30.0) -> Order:
    checks = dict.fromkeys(Check, Disposition.REPORT)
    return Order(vm="web", checks=checks, disks=(), output=str(folder), within_s=within_s)


@pytest.fixture
def inspect(tmp_path: Path) -> Callable[..., Examined]:
    """With a program in the worker's place; what is told goes to `told`."""

    def inspected(program: str, told: list[str] | None = None, within_s: float = 30.0) -> Examined:
        command = (sys.executable, "-c", program)
        hear = told.append if told is not None else (lambda _: None)
        return asyncio.run(ProcessInspector(command).inspect(order(tmp_path, within_s), hear))

    return inspected


def test_what_is_told_is_heard_and_the_answer_comes_last(inspect: Callable[..., Examined]) -> None:
    told: list[str] = []
    found = inspect(f"""print('{{"told": "one"}}'); print('{{"told": "two"}}'); print('{ANSWER}')""", told)
    assert (told, found.looked) == (["one", "two"], ())


def test_an_error_is_the_error_that_it_was(inspect: Callable[..., Examined]) -> None:
    said = '{"error": {"exit_code": 3, "kind": "image-refused", "message": "no", "remedy": "do"}}'
    with pytest.raises(RefusedError) as refused:
        inspect(f"print('{said}')")
    assert (refused.value.kind, refused.value.remedy) == ("image-refused", "do")


@pytest.mark.parametrize(
    "program",
    [
        "pass",
        "raise SystemExit('a last word')",
        "import os; os.kill(os.getpid(), 9)",
        "print('noise')",
        "print('{}')",
        "print('[]')",
        "print('{\"answer\": 5}')",
        "print('{\"error\": {}}')",
        "import sys; sys.stdout.buffer.write(b'\\xff\\n')",
        "print('{\"told\": \"x\"}', end='')",
    ],
)
def test_whatever_else_becomes_of_it_is_an_error(inspect: Callable[..., Examined], program: str) -> None:
    with pytest.raises(ToolError) as failed:
        inspect(program)
    assert failed.value.kind == "inspection"


def test_its_last_word_is_told(inspect: Callable[..., Examined]) -> None:
    with pytest.raises(ToolError, match="a last word"):
        inspect("raise SystemExit('a last word')")


def test_a_worker_that_complains_without_end_is_not_kept_waiting(inspect: Callable[..., Examined]) -> None:
    program = f"import sys; sys.stderr.write('x' * 3_000_000); print('{ANSWER}')"
    assert inspect(program).looked == ()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pids: str) -> bool:
    """Now or in a moment: only the first is waited for where it is ended; the kernel sees to the rest."""
    end = time.monotonic() + 30
    while any(alive(int(pid)) for pid in pids.split()):
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


SLEEPS = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print('{"told": "%d %d"}' % (os.getpid(), child.pid), flush=True)
time.sleep(600)
"""


def test_one_that_does_not_end_in_time_is_ended_with_all_that_it_started(
    inspect: Callable[..., Examined], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "GRACE_S", 0.0)
    told: list[str] = []
    with pytest.raises(ToolError, match="did not end within"):
        inspect(SLEEPS, told, 2.0)
    assert gone(told[0])


def test_one_that_is_cancelled_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    told: list[str] = []

    async def story() -> None:
        command = (sys.executable, "-c", SLEEPS)
        task = asyncio.ensure_future(ProcessInspector(command).inspect(order(tmp_path), told.append))
        while not told:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(story())
    assert gone(told[0])


def test_an_order_that_the_worker_does_not_understand_is_an_error(tmp_path: Path) -> None:
    broken = Order(vm="web", checks={}, disks=(), output=str(tmp_path))
    with pytest.raises(KororaError) as failed:
        asyncio.run(ProcessInspector().inspect(broken, lambda _: None))
    assert failed.value.kind == "inspection"
