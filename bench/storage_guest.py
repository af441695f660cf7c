"""A guest under the load of bench/storage_load.c, watched from outside by what it says on its console."""

from __future__ import annotations

import gzip
import json
import os
import re
import stat
import statistics
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from korora.errors import ToolError
from korora.lab.guest import image

MIB: Final = 1 << 20
READY_S: Final = 180.0
_SAID: Final = re.compile(rb"load \d+ (\d+) (\d+) (\d+) (\d+) (\d+) (\d+) (\d+)\r?\n")
_WRITTEN: Final = re.compile(rb"written\r?\n")
_LOOKS_EVERY_S: Final = 0.05


class Load(msgspec.Struct, frozen=True):
    """Of a stretch of time: requests a second, and the medians of each second's latencies, in ms."""

    iops: float
    p50_ms: float
    p99_ms: float
    read_p50_ms: float = 0.0
    read_p99_ms: float = 0.0
    write_p50_ms: float = 0.0
    write_p99_ms: float = 0.0


class Said(NamedTuple):
    """A second of the guest's: when it was seen, and in which file; latencies in µs, in the order of Load."""

    when: float
    file: Path
    requests: int
    latencies: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Boot:
    """The lab's kernel and initrd, with the load in the place of the lab's program."""

    kernel: Path
    initrd: Path

    @staticmethod
    def made(folder: Path) -> Boot:
        program = folder / "load"
        source = Path(__file__).with_name("storage_load.c")
        subprocess.run(["gcc", "-O2", "-static", "-pthread", "-o", program, source, "-lm"], check=True)
        guest = image.guest_image()
        ours = b"".join(image.cpio([("korora-guest", stat.S_IFREG | 0o755, program.read_bytes())]))
        initrd = folder / "initrd"
        initrd.write_bytes(gzip.decompress(guest.initrd.read_bytes()) + ours)
        return Boot(guest.kernel, initrd)

    def words(self, more: str) -> str:
        """TOML; `more` on the kernel's command line."""
        return (
            f"[boot]\nkernel = {json.dumps(str(self.kernel))}\ninitrd = {json.dumps(str(self.initrd))}\n"
            f'command_line = "console=ttyS0 quiet {more}"\n'
        )


def definition(name: str, disk: Path, accelerator: str, boot: Boot | None, more: str = "") -> str:
    """TOML, of a VM without a vTPM; with nothing to boot it only has the disk."""
    return (
        f'name = "{name}"\nmemory = "256M"\naccelerator = "{accelerator}"\n{boot.words(more) if boot else ""}'
        f"[vtpm]\nenabled = false\n"
        f'[[disks]]\nname = "system"\npath = {json.dumps(str(disk))}\nformat = "raw"\n'
    )


def random_disk(path: Path, mebibytes: int) -> Path:
    """Without a hole or a zero."""
    with path.open("wb") as disk:
        for _ in range(mebibytes):
            disk.write(os.urandom(MIB))
    return path


class Console:
    """What the guest says, in whichever of these files, from now on; each line with the time it was seen."""

    def __init__(self, *files: Path) -> None:
        self._files = files
        self._seen: list[Said] = []
        self._written = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()

    def wait_for_load(self, after_s: float = 0.0) -> None:
        """Until it has said something later than this moment (monotonic seconds)."""
        _until(lambda: any(said.when > after_s for said in self._seen))

    def wait_for_writing(self) -> None:
        """Until a guest that writes rarely has written once more."""
        now = time.monotonic()
        _until(lambda: self._written > now)

    def last(self, file: Path) -> float:
        """When it last said something in this file (monotonic seconds); 0.0: never."""
        return max((said.when for said in self._seen if said.file == file), default=0.0)

    def seconds(self, began: float, ended: float) -> list[Said]:
        return [said for said in self._seen if began < said.when <= ended]

    def between(self, began: float, ended: float) -> Load:
        """All requests that it told of in this time, by its length: a pause counts in full."""
        told = self.seconds(began, ended)
        if not told:
            return Load(0.0, 0.0, 0.0)
        medians = [
            round(statistics.median(one) / 1000, 2) for one in zip(*(s.latencies for s in told), strict=True)
        ]
        return Load(round(sum(said.requests for said in told) / (ended - began), 1), *medians)

    def _watch(self) -> None:
        read = dict.fromkeys(self._files, 0)
        whose = dict.fromkeys(self._files, 0)  # the file's inode: a VM that comes back begins another
        while not self._ended.wait(_LOOKS_EVERY_S):
            for file in self._files:
                try:
                    with file.open("rb") as opened:
                        now = os.fstat(opened.fileno())
                        if now.st_ino != whose[file] or now.st_size < read[file]:
                            read[file], whose[file] = 0, now.st_ino
                        opened.seek(read[file])
                        text = opened.read()
                except OSError:
                    continue
                end = text.rfind(b"\n") + 1
                read[file] += end
                if _WRITTEN.search(text[:end]):
                    self._written = time.monotonic()
                for found in _SAID.finditer(text[:end]):
                    requests, *latencies = map(int, found.groups())
                    self._seen.append(Said(time.monotonic(), file, requests, tuple(latencies)))


def _until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + READY_S
    while not true():
        if time.monotonic() > end:
            raise ToolError("the guest says nothing", kind="bench-guest")
        time.sleep(_LOOKS_EVERY_S)
