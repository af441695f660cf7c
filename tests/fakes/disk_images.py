"""Disk images made by qemu-img, and what their roots must be by the bytes alone."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path
from typing import Final

from fakes.image import MemoryImage
from korora.agents.integrity.disks.content import digest
from korora.model.image import Format
from korora.model.image_record import ImageRecord
from korora.wiring.images import digested, looked_at

MIB: Final = 1 << 20


def disk_content(size: int = 8 * MIB, seed: int = 1) -> bytes:
    """Some data, much of nothing, and data at the end."""
    noise = random.Random(seed)
    content = bytearray(size)
    content[: 300 * 1024] = noise.randbytes(300 * 1024)
    content[3 * MIB + 4608 : 3 * MIB + 70_000] = noise.randbytes(70_000 - 4608)
    content[4 * MIB : 4 * MIB + 9] = b"text text"
    content[-4096:] = noise.randbytes(4096)
    return bytes(content)


def qemu_img(*words: str | Path) -> None:
    subprocess.run(["qemu-img", *map(str, words)], check=True, capture_output=True, timeout=120)


def encrypted(path: Path) -> None:
    """QEMU measures first how fast it hashes, and gives up now and then: it is asked again."""
    options = "encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10"
    words = ["create", "--object", "secret,id=key,data=abc", "-f", "qcow2", "-o", options, str(path), "8M"]
    for _ in range(50):
        done = subprocess.run(["qemu-img", *words], capture_output=True, check=False, timeout=120)
        if b"CPU usage" not in done.stderr:
            break
    done.check_returncode()


def converted(raw: Path, name: str, which: str, *options: str) -> Path:
    path = raw.with_name(name)
    qemu_img("convert", "-f", "raw", "-O", which, *options, raw, path)
    return path


def root_of(content: bytes) -> str:
    return digest(MemoryImage(content), lambda _: None)


def measured(path: Path, declared: Format | None = None, *allowed: Path) -> ImageRecord:
    return digested(looked_at(path, declared, allowed), lambda _: None)
