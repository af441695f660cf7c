"""Guest memory is ready before the stream: all of it there, nothing of it changed, little of it ours."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from korora.adapters.hypervisor import prefault, window
from korora.adapters.hypervisor.window import Window
from korora.errors import ToolError

MIB = 2**20
SIZE = 40 * MIB - 8192  # neither whole windows nor whole huge pages
MAPS_IT = """
import mmap, sys
held = mmap.mmap(int(sys.argv[1]), int(sys.argv[2]))
print("mapped", flush=True)
sys.stdin.read()
"""
MAKES_READY = """
import os, resource
from korora.adapters.hypervisor import prefault
size = 256 << 20
fd = os.memfd_create("memory-backend-memfd")
os.ftruncate(fd, size)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
prefault.make_ready(os.getpid(), fd, size)
assert os.fstat(fd).st_blocks * 512 == size
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.fixture
def ram() -> Iterator[int]:
    fd = os.memfd_create("memory-backend-memfd")
    os.ftruncate(fd, SIZE)
    yield fd
    os.close(fd)


@pytest.fixture
def holder(ram: int) -> Iterator[int]:
    """Another process that maps it, and has touched none of it."""
    words = [sys.executable, "-c", MAPS_IT, str(ram), str(SIZE)]
    with subprocess.Popen(words, pass_fds=[ram], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"mapped\n"
        yield process.pid
        process.kill()


def allocated(fd: int) -> int:
    return os.fstat(fd).st_blocks * 512


def resident(pid: int, fd: int) -> int:
    """Bytes of the file in the page table of the process (smaps)."""
    text = Path(f"/proc/{pid}/smaps").read_text()
    entries = re.findall(
        rf"^[0-9a-f-]+ \S+ \S+ \S+ {os.fstat(fd).st_ino} .*?^Rss: +(\d+) kB", text, re.M | re.S
    )
    assert entries
    return sum(map(int, entries)) * 1024


def test_all_of_it_is_allocated_and_zero(ram: int, holder: int) -> None:
    prefault.make_ready(holder, ram, SIZE)
    assert allocated(ram) == SIZE
    assert os.pread(ram, SIZE, 0) == bytes(SIZE)


def test_what_has_arrived_meanwhile_stays(ram: int, holder: int) -> None:
    places = (0, 2 * MIB - 3, 17 * MIB + 5, SIZE - 4)
    for place in places:
        os.pwrite(ram, b"here", place)
    prefault.make_ready(holder, ram, SIZE)
    assert [os.pread(ram, 4, place) for place in places] == [b"here"] * 4
    assert allocated(ram) == SIZE


def test_it_is_in_the_page_table_of_whoever_maps_it(ram: int, holder: int) -> None:
    assert resident(holder, ram) == 0
    prefault.make_ready(holder, ram, SIZE)
    assert resident(holder, ram) >= SIZE // prefault.FAULT_AROUND_BYTES * 4096  # the least a read enters


@pytest.mark.parametrize("missing", [(Window, "collapse"), (Window, "show"), (prefault, "_enter")])
def test_without_huge_pages_or_a_way_into_the_process_it_is_allocated_all_the_same(
    ram: int, holder: int, missing: tuple[object, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def refuses(*of: object) -> bool:
        asked.append(of)
        return False

    monkeypatch.setattr(*missing, refuses)
    prefault.make_ready(holder, ram, SIZE)
    assert allocated(ram) == SIZE
    assert len(asked) == 1  # a refusal is not asked for again


def test_for_a_process_that_ends_meanwhile_nothing_more_is_allocated(
    ram: int, holder: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter = prefault._enter

    def ends(pid: int, addresses: range) -> bool:
        entered = enter(pid, addresses)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return entered

    monkeypatch.setattr(prefault, "_enter", ends)
    prefault.make_ready(holder, ram, SIZE)
    assert allocated(ram) == window.WINDOW_BYTES


def test_memory_that_is_not_there_is_said(ram: int, holder: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(ToolError) as caught:
        prefault.make_ready(holder, ram, SIZE)
    assert caught.value.kind == "no-memory"
    assert caught.value.remedy


def test_much_memory_needs_little_of_ours() -> None:
    """In a process of its own: the most that one ever had says nothing once something else had more."""
    done = subprocess.run([sys.executable, "-c", MAKES_READY], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 48 * 1024
