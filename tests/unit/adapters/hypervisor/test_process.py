"""Processes that outlive the daemon: started apart, known without doubt, ended and reaped."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from korora.adapters.hypervisor.process import (
    Process,
    ProcessRecord,
    Spawned,
    boot_id,
    end,
    is_alive,
    last_words,
    read_record,
    spawn,
    start_ticks,
    write_record,
)
from korora.adapters.hypervisor.qmp import connect_once
from korora.errors import ToolError

SLEEP = ["-c", "import time; time.sleep(60)"]


def _connected(path: Path) -> socket.socket:
    limit = time.monotonic() + 60
    while True:
        try:
            return connect_once(path)
        except (FileNotFoundError, ConnectionRefusedError):
            assert time.monotonic() < limit
            time.sleep(0.01)


def started(directory: Path, *, args: list[str] | None = None) -> Spawned:
    return spawn(sys.executable, args or SLEEP, directory, directory / "qemu.log", ())


def told(spawned: Spawned) -> ProcessRecord:
    return ProcessRecord(spawned.pid, spawned.start_ticks, boot_id(), "", incoming=True, may_have_run=False)


def run(story: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await story()

    asyncio.run(bounded())


def test_a_spawned_process_has_its_own_session_and_directory(tmp_path: Path) -> None:
    async def story() -> None:
        spawned = started(tmp_path)
        process = Process(spawned.pid)
        try:
            assert os.getsid(spawned.pid) == spawned.pid != os.getsid(0)
            assert Path(f"/proc/{spawned.pid}/cwd").readlink() == tmp_path
        finally:
            await end(process)

    run(story)


def test_an_ended_process_is_reaped_at_once(tmp_path: Path) -> None:
    async def story() -> None:
        spawned = started(tmp_path)
        process = Process(spawned.pid)
        os.kill(spawned.pid, signal.SIGKILL)
        assert await process.wait(5)
        assert not Path(f"/proc/{spawned.pid}").exists()
        assert process.is_gone
        await end(process)

    run(story)


def test_letting_go_ends_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        spawned = started(tmp_path)
        process = Process(spawned.pid)
        process.release()
        process.release()
        process.kill()
        with pytest.raises(ToolError):
            await process.wait(0.1)
        assert start_ticks(spawned.pid) == spawned.start_ticks
        await end(Process(spawned.pid))

    run(story)


def test_a_record_tells_a_living_process_from_a_recycled_pid_and_another_boot(tmp_path: Path) -> None:
    async def story() -> None:
        spawned = started(tmp_path)
        record = told(spawned)
        assert is_alive(record)
        assert not is_alive(msgspec.structs.replace(record, start_ticks=record.start_ticks + 1))
        assert not is_alive(msgspec.structs.replace(record, boot_id="another"))
        await end(Process(spawned.pid))
        assert not is_alive(record)

    run(story)


def test_a_zombie_is_not_alive(tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    try:
        assert start_ticks(pid) is None
    finally:
        os.waitpid(pid, 0)


def test_a_record_is_read_back_and_a_damaged_one_is_none(tmp_path: Path) -> None:
    record = ProcessRecord(1, 2, "b", 'name = "a"', incoming=False, may_have_run=True)
    write_record(tmp_path, record)
    assert read_record(tmp_path) == record
    for damage in (b"", b"{", b'{"pid": "x"}', b"\xff"):
        (tmp_path / "process.json").write_bytes(damage)
        assert read_record(tmp_path) is None
    assert read_record(tmp_path / "nowhere") is None


def test_a_program_that_is_not_there_is_a_tool_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(ToolError) as caught:
        spawn("/no/such/qemu", [], tmp_path, tmp_path / "log", ())
    assert caught.value.kind == "no-qemu"
    assert caught.value.remedy


def test_a_file_that_cannot_be_written_is_a_tool_error_and_the_record_stays(tmp_path: Path) -> None:
    record = ProcessRecord(1, 2, "b", 'name = "a"', incoming=True, may_have_run=False)
    write_record(tmp_path, record)
    (tmp_path / "process.json.new").mkdir()
    with pytest.raises(ToolError) as caught:
        write_record(tmp_path, msgspec.structs.replace(record, may_have_run=True))
    assert caught.value.kind == "state-directory"
    assert str(tmp_path / "process.json") in caught.value.message
    assert read_record(tmp_path) == record
    (tmp_path / "qemu.log").mkdir()
    with pytest.raises(ToolError) as caught:
        started(tmp_path)
    assert caught.value.kind == "state-directory"


def test_the_last_words_are_those_since_the_start(tmp_path: Path) -> None:
    (tmp_path / "qemu.log").write_text("an old failure\n")
    since = (tmp_path / "qemu.log").stat().st_size
    assert last_words(tmp_path, since) == ""
    with (tmp_path / "qemu.log").open("a") as log:
        log.write("\n".join(f"line {n}" for n in range(9)))
    assert last_words(tmp_path, since) == "line 4 | line 5 | line 6 | line 7 | line 8"


def test_that_it_waits_for_its_monitors_client_is_not_among_the_last_words(tmp_path: Path) -> None:
    words = [
        "qemu-system-x86_64",
        "-nodefaults",
        "-display",
        "none",
        "-qmp",
        f"unix:{tmp_path}/qmp,server=on,wait=on",
        "-blockdev",
        "driver=file,node-name=a,filename=/nowhere",
    ]
    with (tmp_path / "qemu.log").open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log)
    try:
        with _connected(tmp_path / "qmp"):
            process.wait(60)
    finally:
        process.kill()
        process.wait()
    assert "waiting for connection" in (tmp_path / "qemu.log").read_text()
    assert last_words(tmp_path).startswith("qemu-system-x86_64: -blockdev")
