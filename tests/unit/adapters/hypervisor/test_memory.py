"""Guest memory as a file: proved clean only when it is, wiped for good, and never all in our own memory."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from korora.adapters.hypervisor import memory, window
from korora.adapters.hypervisor.memory import LIMITS, BackendFile
from korora.adapters.hypervisor.window import Window
from korora.errors import IntegrityError, ToolError

MIB = 2**20
SIZE = 16 * MIB


@pytest.fixture
def ram() -> Iterator[int]:
    """A memfd named as QEMU names its own, held by this very process."""
    fd = os.memfd_create("memory-backend-memfd")
    os.ftruncate(fd, SIZE)
    yield fd
    os.close(fd)


def of_this_process(size: int = SIZE) -> BackendFile:
    found = BackendFile.of(os.getpid(), size)
    assert found is not None
    return found


def test_untouched_memory_is_clean(ram: int) -> None:
    proof = of_this_process().prove_clean()
    assert (proof.clean, proof.allocated_bytes, proof.size_bytes) == (True, 0, SIZE)


@pytest.mark.parametrize("offset", [0, 5 * MIB + 3, SIZE - 1])
def test_a_single_written_byte_is_seen(ram: int, offset: int) -> None:
    os.pwrite(ram, b"\0", offset)
    assert not of_this_process().prove_clean().clean


def test_faulting_in_allocates_everything_and_leaves_zeros(ram: int) -> None:
    of_this_process().fault_in()
    assert os.fstat(ram).st_blocks * 512 == SIZE
    assert os.pread(ram, MIB, 3 * MIB) == bytes(MIB)


def test_a_wipe_leaves_no_page_and_says_how_much_there_was(ram: int) -> None:
    os.pwrite(ram, b"secret" * 1000, 2 * MIB)
    os.pwrite(ram, b"s", SIZE - 1)
    step = of_this_process().wipe()
    assert step.verified
    assert step.bytes == SIZE
    assert os.fstat(ram).st_blocks == 0
    assert b"secret" not in os.pread(ram, SIZE, 0)
    assert of_this_process().prove_clean().clean


def test_every_allocated_piece_is_overwritten_before_it_is_given_back(
    ram: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.pwrite(ram, b"x" * SIZE, 0)
    monkeypatch.setattr(memory, "_punch", lambda *_: None)
    with pytest.raises(IntegrityError):  # the pages are still there, but …
        of_this_process().wipe()
    assert os.pread(ram, SIZE, 0) == bytes(SIZE)  # … hold nothing any more


def test_a_byte_that_survives_is_an_integrity_error(ram: int, monkeypatch: pytest.MonkeyPatch) -> None:
    os.pwrite(ram, b"x", 6 * MIB)
    monkeypatch.setattr(memory, "_write_zeros", lambda *_: None)
    with pytest.raises(IntegrityError) as caught:
        of_this_process().wipe()
    assert caught.value.kind == "wipe-failed"


def test_memory_that_its_process_has_cut_off_is_an_error_and_no_signal(
    ram: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.pwrite(ram, b"x" * SIZE, 0)
    opened = window.opened

    @contextmanager
    def cut_off() -> Iterator[Window]:
        with opened() as view:
            os.ftruncate(ram, MIB)
            yield view

    monkeypatch.setattr(window, "opened", cut_off)
    with pytest.raises(IntegrityError) as caught:
        of_this_process().wipe()
    assert caught.value.kind == "wipe-failed"


def test_wiping_much_memory_needs_little_of_ours() -> None:
    size = 256 * MIB
    fd = os.memfd_create("memory-backend-memfd")
    try:
        os.ftruncate(fd, size)
        of_this_process(size).fault_in()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        of_this_process(size).wipe()
        grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    finally:
        os.close(fd)
    assert grown_kib < 48 * 1024


def test_memory_of_another_size_or_kind_is_not_taken_for_the_guests(ram: int) -> None:
    assert BackendFile.of(os.getpid(), SIZE + MIB) is None
    other = os.memfd_create("tcg-jit")
    os.ftruncate(other, 3 * MIB)
    assert BackendFile.of(os.getpid(), 3 * MIB) is None
    os.close(other)
    assert BackendFile.of(2**22 + 1, SIZE) is None


def test_a_recycled_pid_is_not_taken_for_the_guests_process(ram: int) -> None:
    found = of_this_process()
    impostor = BackendFile(found.pid, found.start_ticks + 1, found.descriptor, SIZE)
    for use in (impostor.prove_clean, impostor.fault_in, impostor.wipe):
        with pytest.raises(ToolError) as caught:
            use()
        assert caught.value.kind == "vm-process-gone"


def test_the_limits_of_a_wipe_are_said() -> None:
    assert any("swap" in limit for limit in LIMITS)
    assert any("ROM" in limit for limit in LIMITS)
