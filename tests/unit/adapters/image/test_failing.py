"""A disk that QEMU serves and that gives an error somewhere: that block alone cannot be read."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from korora.adapters.image.qemu_nbd import QemuImages
from korora.migration.crossing.disks.unreadable import DiskUnreadableError, narrowed
from korora.model.image import NbdExport
from korora.ports.image import UnreadableError

BLOCK = 4096
BAD = 5
WITHIN_S = 60.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    if not shutil.which("qemu-storage-daemon"):
        pytest.skip("qemu-storage-daemon is not installed")
    (tmp_path / "disk").write_bytes(b"x" * (64 * BLOCK))
    error = (
        f"inject-error.0.event=none,inject-error.0.errno=5,inject-error.0.iotype=read,"
        f"inject-error.0.sector={BAD * BLOCK // 512}"
    )
    blockdev = f"driver=blkdebug,node-name=d,image.driver=file,image.filename={tmp_path}/disk,{error}"
    words = ["--blockdev", blockdev, "--nbd-server", f"addr.type=unix,addr.path={tmp_path}/nbd"]
    words += ["--export", "nbd,id=e,node-name=d,name=d"]
    process = subprocess.Popen(["qemu-storage-daemon", *words])
    try:
        limit = time.monotonic() + WITHIN_S
        while not (tmp_path / "nbd").exists():
            assert process.poll() is None
            assert time.monotonic() < limit
            time.sleep(0.01)
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def served(tmp_path: Path, server: subprocess.Popen[bytes]) -> NbdExport:
    assert server.poll() is None
    return NbdExport(tmp_path / "nbd", "d")


@pytest.mark.parametrize("snapshot", [False, True])
def test_what_can_be_read_is_read_after_an_error_too(served: NbdExport, snapshot: bool) -> None:
    unreadable = []
    with QemuImages().open_export(replace(served, snapshot=snapshot)) as image:
        for block in range(64):
            try:
                assert list(image.each([(block * BLOCK, BLOCK)], bytes)) == [b"x" * BLOCK]
            except UnreadableError as error:
                assert not error.unserved
                unreadable.append((error.offset, error.length))
        assert [one.length for one in image.extents()] == [64 * BLOCK]
    assert unreadable == [(BAD * BLOCK, BLOCK)]


def test_a_server_that_is_gone_is_not_taken_for_a_disk_that_fails(
    served: NbdExport, server: subprocess.Popen[bytes]
) -> None:
    with QemuImages().open_export(served) as image:
        assert list(image.each([(0, BLOCK)], len)) == [BLOCK]
        server.kill()
        server.wait()
        for _ in range(2):
            with pytest.raises(UnreadableError) as gone:
                list(image.each([(0, BLOCK)], len))
            assert gone.value.unserved
            told = narrowed(image, "b", gone.value)
            assert not isinstance(told, DiskUnreadableError)
            assert told.kind == "disk-unserved"
