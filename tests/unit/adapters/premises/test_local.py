"""What this machine's premises say of files, and that a remembered digest never outlives its file."""

from __future__ import annotations

import hashlib
import os
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
    assert LocalPremises(StorageRule()).file_digests([kernel, missing]) == {kernel: digest(b"K")}


@pytest.mark.parametrize("settled", [True, False], ids=["long unchanged", "written just now"])
def test_a_changed_file_has_another_digest_even_with_its_old_size_and_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settled: bool
) -> None:
    if settled:
        monkeypatch.setattr(local, "_GRAIN_NS", -1)
    premises, file = LocalPremises(StorageRule()), tmp_path / "kernel"
    file.write_bytes(b"before")
    before = file.stat()
    assert premises.file_digests([str(file)]) == {str(file): digest(b"before")}
    if settled:
        time.sleep(0.02)  # past the grain of the file system's clock
    file.write_bytes(b"after!")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert premises.file_digests([str(file)]) == {str(file): digest(b"after!")}


def test_a_file_that_stays_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_GRAIN_NS", -1)
    premises, file = LocalPremises(StorageRule()), tmp_path / "kernel"
    file.write_bytes(b"K")
    first = premises.file_digests([str(file)])
    monkeypatch.setattr(hashlib, "file_digest", None)
    assert premises.file_digests([str(file)]) == first


@pytest.mark.parametrize("kind", ["fifo", "device", "directory"])
def test_what_is_no_file_is_neither_read_nor_waited_for(tmp_path: Path, kind: str) -> None:
    paths = {"fifo": tmp_path / "fifo", "device": Path("/dev/zero"), "directory": tmp_path}
    os.mkfifo(tmp_path / "fifo")
    named = [str(paths[kind])]
    assert LocalPremises(StorageRule()).file_digests(named) == {}
    assert LocalPremises(StorageRule()).disk_sizes(named) == {}


def test_a_link_out_of_the_storage_is_outside_and_nothing_is_opened_for_that(tmp_path: Path) -> None:
    storage, secret = tmp_path / "storage", tmp_path / "secret"
    storage.mkdir()
    secret.touch()
    (storage / "disk").touch()
    (storage / "link").symlink_to(secret)
    (storage / "dots").symlink_to("../secret")
    premises = LocalPremises(StorageRule((PurePosixPath(storage.resolve()),)))
    named = [str(storage / name) for name in ("disk", "none-yet", "link", "dots", "../secret")]
    assert premises.outside(named, ()) == tuple(named[2:])
    assert premises.outside((), named) == tuple(named[2:])


def test_firmware_of_the_distribution_may_be_read_and_is_no_disk() -> None:
    code = "/usr/share/OVMF/OVMF_CODE_4M.fd"
    for premises in (LocalPremises(StorageRule()), LocalPremises(StorageRule((PurePosixPath("/srv"),)))):
        assert premises.outside([code], ()) == ()
        assert premises.outside((), [code]) == (code,)
        assert premises.outside([code], [code]) == (code,)


def test_a_device_is_judged_by_the_name_that_does_not_change() -> None:
    """/dev/stdout is a link to /proc/self/fd/1 on every machine."""
    premises = LocalPremises(StorageRule((PurePosixPath("/dev"),)))
    assert premises.outside((), ["/dev/stdout"]) == ()
    for way_out in ("/dev/../etc/shadow", "/dev/fd/../../etc/shadow"):
        assert premises.outside((), [way_out]) == (way_out,)
