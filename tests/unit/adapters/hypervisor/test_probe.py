"""The accelerator is believed only after a guest kernel spoke; the answer is kept as long as it holds."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from korora.adapters.hypervisor.probe import accelerator, facts
from korora.adapters.hypervisor.probe.accelerator import Verdict, newest_kernel, working_accelerator
from korora.adapters.hypervisor.probe.cache import Cache, fingerprint

PANIC = "echo '[    1.0] Kernel panic - not syncing: VFS: Unable to mount root fs' > serial"


def program(directory: Path, script: str) -> str:
    """A stand-in for QEMU: it runs in the probe's directory, where the serial line is a file."""
    path = directory / "qemu"
    path.write_text(f"#!/bin/sh\necho started >> {directory}/starts\n{script}\n")
    path.chmod(0o755)
    return str(path)


def starts(directory: Path) -> int:
    counted = directory / "starts"
    return len(counted.read_text().splitlines()) if counted.exists() else 0


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    path = tmp_path / "vmlinuz-6.1"
    path.write_bytes(b"kernel")
    return path


def asked(qemu: str, tmp_path: Path, kernel: Path | None, deadline_s: float = 5) -> Verdict:
    cache = Cache(tmp_path / "cache")
    return asyncio.run(working_accelerator(qemu, cache, kernel, Path("/dev/null"), deadline_s))


def test_without_a_device_nothing_is_started(tmp_path: Path, kernel: Path) -> None:
    qemu = program(tmp_path, PANIC)
    verdict = asyncio.run(working_accelerator(qemu, Cache(tmp_path), kernel, tmp_path / "no-kvm"))
    assert verdict.name == "tcg"
    assert "no-kvm" in verdict.note
    assert starts(tmp_path) == 0


def test_a_kernel_that_speaks_under_kvm_is_believed_and_remembered(tmp_path: Path, kernel: Path) -> None:
    qemu = program(tmp_path, PANIC)
    assert asked(qemu, tmp_path, kernel).name == "kvm"
    assert asked(qemu, tmp_path, kernel).name == "kvm"
    assert starts(tmp_path) == 1


def test_firmware_that_speaks_and_a_kernel_that_hangs_is_no_kvm(
    tmp_path: Path, kernel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accelerator, "STALL_S", 0.3)
    qemu = program(tmp_path, "echo SeaBIOS > serial; exec sleep 1000")
    began = time.monotonic()
    verdict = asked(qemu, tmp_path, kernel, deadline_s=1000)
    assert verdict.name == "tcg"
    assert "did not run under it" in verdict.note
    assert time.monotonic() - began < 60, "it is not the deadline that ended it"
    assert asked(qemu, tmp_path, kernel) == verdict
    assert starts(tmp_path) == 1


def test_a_kernel_that_talks_for_ever_meets_the_deadline(tmp_path: Path, kernel: Path) -> None:
    qemu = program(tmp_path, "while :; do echo more >> serial; sleep 0.05; done")
    assert asked(qemu, tmp_path, kernel, deadline_s=0.5).name == "tcg"


@pytest.mark.parametrize("script", ["exit 1", "echo rebooting > serial; exit 0", "kill -9 $$"])
def test_a_qemu_that_ends_without_the_kernels_word_is_no_kvm(
    tmp_path: Path, kernel: Path, script: str
) -> None:
    assert asked(program(tmp_path, script), tmp_path, kernel).name == "tcg"


def test_a_qemu_that_is_not_there_is_no_kvm(tmp_path: Path, kernel: Path) -> None:
    assert asked(str(tmp_path / "none"), tmp_path, kernel).name == "tcg"


def test_another_binary_is_tried_anew(tmp_path: Path, kernel: Path) -> None:
    assert asked(program(tmp_path, "exit 1"), tmp_path, kernel).name == "tcg"
    assert asked(program(tmp_path, PANIC + " # repaired"), tmp_path, kernel).name == "kvm"


def test_the_newest_kernel_is_the_one_of_the_highest_version(tmp_path: Path) -> None:
    for name in ("vmlinuz-6.1.0-9", "vmlinuz-6.1.0-56", "vmlinuz-5.10.0-99", "initrd.img-7.0"):
        (tmp_path / name).touch()
    found = newest_kernel(tmp_path)
    assert found is not None
    assert found.name == "vmlinuz-6.1.0-56"
    assert newest_kernel(tmp_path / "none") is None


def test_a_cache_that_cannot_be_written_or_read_is_only_slow(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache = Cache(tmp_path / "file" / "below")
    cache.write("facts", "k", b"x")
    assert cache.read("facts", "k") is None


def test_the_fingerprint_follows_the_program(tmp_path: Path) -> None:
    qemu = program(tmp_path, "exit 0")
    before = fingerprint(qemu)
    assert fingerprint(qemu) == before
    program(tmp_path, "exit 0 # upgraded")
    assert fingerprint(qemu) != before


def test_facts_of_another_version_of_korora_are_asked_anew(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    qemu = program(tmp_path, "exit 1")
    cache.write("facts", fingerprint(qemu), b'{"version": 7}')
    with pytest.raises(Exception, match="QEMU does not start"):
        asyncio.run(facts.qemu_facts(qemu, cache))


def test_a_missing_swtpm_has_no_version(tmp_path: Path) -> None:
    assert asyncio.run(facts.swtpm_version("/no/such/swtpm", Cache(tmp_path))) == ""


def test_swtpm_is_asked_for_its_version_once(tmp_path: Path) -> None:
    swtpm = program(tmp_path, f"echo asked >> {tmp_path}/asked; echo 'TPM emulator version 0.7.1, (c)'")
    cache = Cache(tmp_path / "cache")
    for _ in range(3):
        assert asyncio.run(facts.swtpm_version(swtpm, cache)) == "0.7.1"
    assert (tmp_path / "asked").read_text() == "asked\n"
