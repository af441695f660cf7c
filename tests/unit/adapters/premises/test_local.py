"""What this machine's premises say of files, and that a remembered digest never outlives its file."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
import time
from pathlib import Path, PurePosixPath

import pytest

from korora.adapters.premises import local
from korora.adapters.premises.local import LocalPremises
from korora.policy.storage import StorageRule


def digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def test_a_file_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "kernel").write_bytes(b"K")
    kernel, missing = str(tmp_path / "kernel"), str(tmp_path / "missing")
    assert asyncio.run(LocalPremises(StorageRule()).file_digests([kernel, missing])) == {kernel: digest(b"K")}


@pytest.mark.parametrize("settled", [True, False], ids=["long unchanged", "written just now"])
def test_a_changed_file_has_another_digest_even_with_its_old_size_and_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settled: bool
) -> None:
    if settled:
        monkeypatch.setattr(local, "_GRAIN_NS", -1)
    premises, file = LocalPremises(StorageRule()), tmp_path / "kernel"
    file.write_bytes(b"before")
    before = file.stat()
    assert asyncio.run(premises.file_digests([str(file)])) == {str(file): digest(b"before")}
    if settled:
        time.sleep(0.02)  # past the grain of the file system's clock
    file.write_bytes(b"after!")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert asyncio.run(premises.file_digests([str(file)])) == {str(file): digest(b"after!")}


def test_a_file_that_stays_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_GRAIN_NS", -1)
    premises, file = LocalPremises(StorageRule()), tmp_path / "kernel"
    file.write_bytes(b"K")
    first = asyncio.run(premises.file_digests([str(file)]))
    monkeypatch.setattr(hashlib, "file_digest", None)
    assert asyncio.run(premises.file_digests([str(file)])) == first


def test_a_file_larger_than_anything_that_boots_is_not_read(tmp_path: Path) -> None:
    """A sparse one costs who made it nothing."""
    huge = tmp_path / "kernel"
    with huge.open("wb") as file:
        file.truncate(local.LARGEST_BYTES + 1)
    assert asyncio.run(LocalPremises(StorageRule()).file_digests([str(huge)])) == {}
    assert asyncio.run(LocalPremises(StorageRule()).disk_sizes([str(huge)])) == {
        str(huge): local.LARGEST_BYTES + 1
    }


def test_a_file_is_remembered_once_however_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_GRAIN_NS", -1)
    premises = LocalPremises(StorageRule())
    (tmp_path / "kernel").write_bytes(b"K")
    names = [f"{tmp_path}{'/.' * dots}/kernel" for dots in range(50)]
    assert asyncio.run(premises.file_digests(names)) == dict.fromkeys(names, digest(b"K"))
    assert len(premises._digests) == 1


def test_however_many_ask_a_few_files_are_read_at_once_and_the_loop_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another host may ask as often as it likes. Whoever has stopped waiting takes no turn."""
    go_on, lock, started = threading.Event(), threading.Lock(), threading.Semaphore(0)
    reading, most, begun = 0, 0, 0

    def slow(file: object, kind: str) -> hashlib._Hash:
        nonlocal reading, most, begun
        with lock:
            reading, begun = reading + 1, begun + 1
            most = max(most, reading)
        started.release()
        assert go_on.wait(60)
        with lock:
            reading -= 1
        return hashlib.sha256()

    monkeypatch.setattr(hashlib, "file_digest", slow)
    (tmp_path / "kernel").write_bytes(b"K")
    named = [str(tmp_path / "kernel")]

    async def story() -> None:
        premises = LocalPremises(StorageRule())
        asking = [asyncio.create_task(premises.file_digests(named)) for _ in range(8)]
        try:
            for _ in range(local.LOOKS_AT_ONCE):
                assert await asyncio.to_thread(started.acquire, timeout=60)
            gone = asking.pop()
            gone.cancel()
            await asyncio.wait([gone])
        finally:
            go_on.set()
        assert [list(answer) for answer in await asyncio.gather(*asking)] == [named] * 7
        assert gone.cancelled()

    asyncio.run(story())
    assert most == local.LOOKS_AT_ONCE
    assert begun == 7


@pytest.mark.parametrize("kind", ["fifo", "device", "directory"])
def test_what_is_no_file_is_neither_read_nor_waited_for(tmp_path: Path, kind: str) -> None:
    paths = {"fifo": tmp_path / "fifo", "device": Path("/dev/zero"), "directory": tmp_path}
    os.mkfifo(tmp_path / "fifo")
    named = [str(paths[kind])]
    assert asyncio.run(LocalPremises(StorageRule()).file_digests(named)) == {}
    assert asyncio.run(LocalPremises(StorageRule()).disk_sizes(named)) == {}


def test_a_link_out_of_the_storage_is_outside_and_nothing_is_opened_for_that(tmp_path: Path) -> None:
    storage, secret = tmp_path / "storage", tmp_path / "secret"
    storage.mkdir()
    secret.touch()
    (storage / "disk").touch()
    (storage / "link").symlink_to(secret)
    (storage / "dots").symlink_to("../secret")
    premises = LocalPremises(StorageRule((PurePosixPath(storage.resolve()),)))
    named = [str(storage / name) for name in ("disk", "none-yet", "link", "dots", "../secret")]
    assert asyncio.run(premises.outside(named, ())) == tuple(named[2:])
    assert asyncio.run(premises.outside((), named)) == tuple(named[2:])


def test_firmware_of_the_distribution_may_be_read_and_is_no_disk() -> None:
    code = "/usr/share/OVMF/OVMF_CODE_4M.fd"
    for premises in (LocalPremises(StorageRule()), LocalPremises(StorageRule((PurePosixPath("/srv"),)))):
        assert asyncio.run(premises.outside([code], ())) == ()
        assert asyncio.run(premises.outside((), [code])) == (code,)
        assert asyncio.run(premises.outside([code], [code])) == (code,)


def test_a_device_is_judged_by_the_name_that_does_not_change() -> None:
    """/dev/stdout is a link to /proc/self/fd/1 on every machine."""
    premises = LocalPremises(StorageRule((PurePosixPath("/dev"),)))
    assert asyncio.run(premises.outside((), ["/dev/stdout"])) == ()
    for way_out in ("/dev/../etc/shadow", "/dev/fd/../../etc/shadow"):
        assert asyncio.run(premises.outside((), [way_out])) == (way_out,)
