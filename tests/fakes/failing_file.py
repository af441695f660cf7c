"""A file on a disk that fails or is slow: QEMU's storage daemon shows it (FUSE), and answers some of it with
EIO, or takes its time."""

from __future__ import annotations

import json
import os
import shutil
import socket
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
    blockdev = f"driver=blkdebug,node-name=disk,image.driver=file,image.filename={below(path)}"
    for number, offset in enumerate(offsets):
        error = {"event": "none", "iotype": requests, "errno": "5", "sector": str(offset // 512)}
        blockdev += "".join(f",inject-error.{number}.{key}={value}" for key, value in error.items())
    with _shown(path, ["--blockdev", blockdev], seen_by):
        yield


class Storage:
    """What a slow file lies on. `control`: our end of its monitor's socket."""

    def __init__(self, control: socket.socket) -> None:
        control.settimeout(STARTS_WITHIN_S)
        self._lines = control.makefile("rw")
        self._greeted = False

    def gives(self, *, read_bytes_per_s: int, write_bytes_per_s: int) -> None:
        """From now on, and takes, so much and no more."""
        limits = {"bps-read": read_bytes_per_s, "bps-write": write_bytes_per_s}
        if not self._greeted:
            assert "QMP" in json.loads(self._lines.readline())
            self._asked("qmp_capabilities")
            self._greeted = True
        self._asked("qom-set", path="/objects/storage", property="limits", value=limits)

    def _asked(self, command: str, **arguments: object) -> None:
        self._lines.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._lines.flush()
        answer = json.loads(self._lines.readline())
        assert "return" in answer, answer


@contextmanager
def slow(path: Path, *, read_bytes_per_s: int, write_bytes_per_s: int) -> Iterator[Storage]:
    """At `path` a file of the content that is there, on storage that gives and takes no more."""
    ours, its = socket.socketpair()
    words = ["--chardev", f"socket,id=control,fd={its.fileno()}", "--monitor", "chardev=control"]
    words += ["--object", "throttle-group,id=storage"]
    node = "driver=throttle,node-name=disk,throttle-group=storage"
    words += ["--blockdev", f"{node},file.driver=file,file.filename={below(path)}"]
    with ours, its, _shown(path, words, None, its.fileno()):
        storage = Storage(ours)
        storage.gives(read_bytes_per_s=read_bytes_per_s, write_bytes_per_s=write_bytes_per_s)
        yield storage


def below(path: Path) -> Path:
    """Where the content is meanwhile."""
    return path.with_name(f"{path.name}.below")


@contextmanager
def _shown(path: Path, words: list[str], seen_by: int | None, *inherited: int) -> Iterator[None]:
    """A node named `disk` as the file. `inherited`: descriptors that the daemon has as well."""
    skip_without_fuse()
    path.rename(below(path))
    path.touch()
    export = f"type=fuse,id=file,node-name=disk,mountpoint={path},writable=on"
    pid = os.getpid() if seen_by is None else seen_by
    enter = ["nsenter", "--target", str(pid), "--mount"]
    daemon = ["qemu-storage-daemon", *words, "--export", export]
    process = subprocess.Popen([*enter, *daemon], pass_fds=inherited)
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
        below(path).rename(path)
