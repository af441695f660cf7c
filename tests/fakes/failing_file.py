"""A file on a disk that fails: QEMU's storage daemon shows it (FUSE), and answers some of it with EIO."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

STARTS_WITHIN_S = 60.0


def skip_without_fuse() -> None:
    if os.geteuid() != 0 or not Path("/dev/fuse").exists() or not shutil.which("qemu-storage-daemon"):
        pytest.skip("no file that fails can be made: root, FUSE and qemu-storage-daemon are needed")


@contextmanager
def failing(path: Path, *offsets: int, requests: str = "read", seen_by: int | None = None) -> Iterator[None]:
    """At `path` a file of the content that is there, without the sectors at these offsets (in bytes), as long
    as this lasts; what is written goes to the content. `requests`: "read" or "write" fail there. `seen_by`: a
    process, whose view of the file system has it; else one's own.
    """
    skip_without_fuse()
    below = path.with_name(f"{path.name}.below")
    path.rename(below)
    path.touch()
    blockdev = f"driver=blkdebug,node-name=disk,image.driver=file,image.filename={below}"
    for number, offset in enumerate(offsets):
        error = {"event": "none", "iotype": requests, "errno": "5", "sector": str(offset // 512)}
        blockdev += "".join(f",inject-error.{number}.{key}={value}" for key, value in error.items())
    export = f"type=fuse,id=file,node-name=disk,mountpoint={path},writable=on"
    pid = os.getpid() if seen_by is None else seen_by
    enter = ["nsenter", "--target", str(pid), "--mount"]
    daemon = ["qemu-storage-daemon", "--blockdev", blockdev, "--export", export]
    process = subprocess.Popen([*enter, *daemon])
    try:
        limit = time.monotonic() + STARTS_WITHIN_S
        while f" {path} " not in Path(f"/proc/{pid}/mountinfo").read_text():
            assert process.poll() is None
            assert time.monotonic() < limit
            time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait()
        subprocess.run([*enter, "umount", "--lazy", str(path)], check=False, capture_output=True)
        path.unlink(missing_ok=True)
        below.rename(path)
