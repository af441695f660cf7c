"""Build the guest's initrd once, from Debian packages and the C program beside this file, and cache it.

Limit: the kernel is Debian's newest installed cloud kernel, as it is (signed: Secure Boot accepts it).
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from korora.errors import ToolError

HERE = Path(__file__).parent
SOURCES = ("guest.h", "main.c", "pattern.c", "disk.c", "eventlog.c", "tpm.c")
BUSYBOX = Path("/bin/busybox")
KERNELS = Path("/boot")  # where Debian installs them
# What q35 guests meet; those that a kernel has built in, or does not know, are simply not listed.
MODULES = (
    "virtio_pci", "virtio_blk", "virtio_net", "virtio_console", "virtio_rng", "virtio-rng",
    "tpm_crb", "tpm_tis", "efivarfs", "button", "evdev",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class GuestImage:
    """What a VM definition boots: absolute paths, readable by every host on this machine."""

    kernel: Path
    initrd: Path


def guest_image(cache: Path | None = None) -> GuestImage:
    """The kernel and the initrd; builds the latter if its inputs changed. ToolError names what is missing."""
    image = image_by_inputs(cache)
    if not image.initrd.exists():
        image.initrd.parent.mkdir(parents=True, exist_ok=True)
        content = build_initrd(modules_of(image.kernel))
        _write_whole(image.initrd, gzip.compress(content, compresslevel=6, mtime=0))
    return image


def image_by_inputs(cache: Path | None = None) -> GuestImage:
    """What `guest_image` gives, without building: the initrd may not exist."""
    kernel = newest_cloud_kernel()
    name = f"guest-{inputs_digest(kernel, modules_of(kernel))[:16]}.img"
    return GuestImage(kernel, (cache or cache_folder()) / name)


def cache_folder() -> Path:
    """$KORORA_CACHE, or ~/.cache/korora."""
    return Path(os.environ.get("KORORA_CACHE") or Path.home() / ".cache" / "korora")


def newest_cloud_kernel(boot: Path = KERNELS) -> Path:
    kernels = sorted(boot.glob("vmlinuz-*-cloud-amd64"), key=_version)
    if not kernels:
        raise ToolError(
            f"no cloud kernel in {boot}",
            kind="no-guest-kernel",
            remedy="apt-get install linux-image-cloud-amd64",
        )
    return kernels[-1]


def release_of(kernel: Path) -> str:
    return kernel.name.removeprefix("vmlinuz-")


def modules_of(kernel: Path) -> list[Path]:
    return modules_in_order(Path("/lib/modules") / release_of(kernel))


def modules_in_order(folder: Path, wanted: tuple[str, ...] = MODULES) -> list[Path]:
    """Files of the wanted modules and of all they need, each behind its own needs."""
    needs = _needs(folder)
    by_name = {Path(file).name.split(".")[0]: file for file in needs}
    ordered: dict[str, None] = {}

    def add(file: str) -> None:
        # modules.dep lists a module's needs with the deepest last.
        for needed in reversed(needs[file]):
            if needed not in ordered:
                add(needed)
        ordered[file] = None

    for name in wanted:
        if name in by_name:
            add(by_name[name])
    return [folder / file for file in ordered]


def inputs_digest(kernel: Path, modules: list[Path]) -> str:
    """Names a cached initrd: another source, kernel or busybox gives another name."""
    digest = hashlib.sha256(kernel.name.encode())
    for path in (*(HERE / name for name in SOURCES), HERE / "init", BUSYBOX, *modules):
        content = _read(path)
        digest.update(f"{path.name}:{len(content)}:".encode() + content)
    return digest.hexdigest()


def build_initrd(modules: list[Path]) -> bytes:
    """A cpio archive (newc): /init, busybox, our program, the modules and their order."""
    entries: list[tuple[str, int, bytes]] = [
        (folder, stat.S_IFDIR | 0o755, b"") for folder in ("bin", "dev", "proc", "sys", "modules")
    ]
    entries += [
        ("init", stat.S_IFREG | 0o755, _read(HERE / "init")),
        ("bin/busybox", stat.S_IFREG | 0o755, _read(BUSYBOX)),
        ("korora-guest", stat.S_IFREG | 0o755, compile_guest()),
        ("modules/order", stat.S_IFREG | 0o644, "".join(f"{m.name}\n" for m in modules).encode()),
    ]
    entries += [(f"modules/{m.name}", stat.S_IFREG | 0o644, _read(m)) for m in modules]
    return b"".join(cpio(entries))


def compile_guest() -> bytes:
    """The static program, compiled now. ToolError carries the compiler's words."""
    with tempfile.TemporaryDirectory(prefix="korora-guest-") as folder:
        program = Path(folder) / "korora-guest"
        sources = [str(HERE / name) for name in SOURCES if name.endswith(".c")]
        command = ["gcc", "-O2", "-std=gnu11", "-Wall", "-static", "-pthread", "-o", str(program), *sources]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        except FileNotFoundError as missing:
            raise ToolError(
                "gcc is not installed", kind="no-compiler", remedy="apt-get install gcc libc6-dev"
            ) from missing
        if done.returncode:
            raise ToolError(
                f"the guest program did not compile: {done.stderr.strip()[-500:]}", kind="guest-build"
            )
        return program.read_bytes()


def _needs(folder: Path) -> dict[str, list[str]]:
    listing = folder / "modules.dep"
    lines = _read(listing).decode().splitlines()
    return {file: rest.split() for file, _, rest in (line.partition(":") for line in lines)}


def cpio(entries: list[tuple[str, int, bytes]]) -> Iterator[bytes]:
    """newc: 13 fields of eight hex digits behind the magic; name and contents padded to four bytes."""
    for inode, (name, mode, content) in enumerate([*entries, ("TRAILER!!!", 0, b"")], start=1):
        path = name.encode() + b"\0"
        fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + path
        yield head + bytes(-len(head) % 4) + content + bytes(-len(content) % 4)


def _version(kernel: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", kernel.name)]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as missing:
        raise ToolError(
            f"cannot read {path}: {missing.strerror}",
            kind="guest-input-missing",
            remedy="apt-get install linux-image-cloud-amd64 busybox-static",
        ) from missing


def _write_whole(path: Path, content: bytes) -> None:
    """Another process sees either no file or the whole one."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, delete=False) as part:
        part.write(content)
    Path(part.name).replace(path)
