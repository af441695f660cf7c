"""Measure how fast Korora looks into disks, against what people use, in turns on the same bytes.

Compared as whole commands, their start included: `korora image digest` with `nbdcopy` of that image to
nowhere and with the same bytes through `sha256sum`; `korora files digest` of a Debian root image with `find |
xargs sha256sum` of the tree it was made of; `korora scan --image` of that image with `clamdscan` of the tree,
both by the same clamd with the same signatures: the machine's if it has some, else as many that were made up
(`bench/signatures.py`); and once more with Korora's own handful, with which clamd does hardly more than read.
A ratio above 1: Korora is faster. The peak of memory of a scan is of Korora's processes, the sandboxes' among
them and clamd not.
The root is `debootstrap`'s if it can be had, or a copy of this machine's /usr/share (said in the report).
Run: script/bench inspect [--gib 4] [--runs 3] [--json FILE] [--folder FOLDER] [--quick]
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

import msgspec
from bench import machine as this_machine
from bench.memory import peaks_mib
from bench.signatures import made_up

from korora.adapters.scanner.clamav import ClamAv
from korora.adapters.scanner.clamd_process import Clamd, ClamdLimits, start
from korora.adapters.scanner.signature_folder import KORORAS_OWN, signatures
from korora.wiring.scanning import SYSTEM_SIGNATURES

T = TypeVar("T")
MIB: Final = 1 << 20
FORMATS: Final = ("raw", "qcow2")
ON_DISK: Final = Path("/var/tmp")  # noqa: S108  a folder with a new name is made in it
FEW: Final = ", few signatures"
GOALS: Final = {
    "image_vs_nbdcopy": 0.7,
    "image_vs_sha256sum": 1.3,
    "files_vs_sha256sum": 0.5,
    "scan_vs_clamdscan": 0.9,
}


class Timed(msgspec.Struct, frozen=True):
    """Wall-clock seconds."""

    median: float
    least: float
    most: float


class Report(msgspec.Struct, frozen=True):
    machine: this_machine.Machine
    runs: int
    image_mib: int
    tree: str
    tree_mib: int
    tree_files: int
    signatures: int
    seconds: dict[str, Timed]
    ratios: dict[str, float]
    peak_mib: dict[str, float]
    goals: dict[str, bool]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="script/bench inspect")
    parser.add_argument("--gib", type=float, default=4.0, help="of random content in the image (4)")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--folder", type=Path, default=ON_DISK, help=f"for the images ({ON_DISK})")
    parser.add_argument("--quick", action="store_true", help="a small image, one run: does it work at all?")
    asked = parser.parse_args(arguments)
    if asked.runs < 1 or asked.gib <= 0:
        parser.error("--runs and --gib are more than nothing")
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        Path(folder).chmod(0o755)  # clamd reads signatures there, and is not root
        report = measured(
            Path(folder), 32 if asked.quick else int(asked.gib * 1024), 1 if asked.quick else asked.runs,
            small=asked.quick,
        )  # fmt: skip
    print(told(report))
    if asked.json:
        asked.json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    return 0


def measured(folder: Path, mebibytes: int, runs: int, *, small: bool) -> Report:
    description = this_machine.describe()
    images = _images(folder, mebibytes)
    tree, called = _tree(folder, small=small)
    disk = _disk_of(folder, tree)
    ways: dict[str, Callable[[], float]] = {}
    for form, path in images.items():
        export = ["--", "[", "qemu-nbd", "-r", "-f", form, str(path), "]"]
        ways[f"image digest, {form}"] = lambda path=path: _timed([*_korora(), "image", "digest", str(path)])  # type: ignore[misc]
        ways[f"nbdcopy, {form}"] = lambda export=export: _timed(["nbdcopy", *export, "null:"])  # type: ignore[misc]
        ways[f"sha256sum, {form}"] = lambda export=export: _timed(
            ["nbdcopy", *export, "-"], then=["sha256sum"]
        )  # type: ignore[misc]
    ways["files digest"] = lambda: _timed([*_korora(), "files", "digest", str(disk)])
    ways["find and sha256sum"] = lambda: _timed(
        ["find", str(tree), "-xdev", "-type", "f", "-print0"], then=["xargs", "-0", "sha256sum"]
    )
    scan, other = _scans(folder, tree, disk)
    many = _many_signatures(folder)
    for note, known in (("", many), (FEW, KORORAS_OWN)):
        ways |= {
            f"scan of the image{note}": lambda known=known: _by_clamd(  # type: ignore[misc]
                folder, known, lambda: _timed(scan, may_end={0, 5, 6})
            ),
            f"clamdscan of the tree{note}": lambda known=known: _by_clamd(  # type: ignore[misc]
                folder, known, lambda: _timed(other, may_end={0, 1})
            ),
        }
    times, memory = _in_turns(ways, runs), _by_clamd(folder, many, lambda: peaks_mib(scan))
    return _report(description, runs, mebibytes, (tree, called), many, times, memory)


def _in_turns(ways: dict[str, Callable[[], float]], runs: int) -> dict[str, list[float]]:
    times = {name: [] for name in ways}  # type: dict[str, list[float]]
    for way in ways.values():
        way()  # once, unmeasured: everything is in memory then
    for _ in range(runs):
        for name, way in ways.items():
            times[name].append(way())
    return times


def _scans(folder: Path, tree: Path, disk: Path) -> tuple[list[str], list[str]]:
    """ClamAV alone, which opens archives itself: by Korora, and by its own command at its fastest."""
    scan = [*_korora(), "scan", "--image", str(disk), "--config", str(folder / "scan.toml")]
    conf = str(folder / "clamd.conf")
    other = ["clamdscan", "--multiscan", "--fdpass", "--quiet", "--config-file", conf, str(tree)]
    return scan, other


def _many_signatures(folder: Path) -> Path:
    there = signatures(SYSTEM_SIGNATURES)
    return there.folder if there else made_up(folder / "signatures", besides=KORORAS_OWN)


def _by_clamd(folder: Path, known: Path, measure: Callable[[], T]) -> T:
    """By a fresh clamd each time, for it remembers what it called clean."""
    with _clamd(known) as clamd:
        (folder / "scan.toml").write_text(
            f"parallel = {2 * (os.cpu_count() or 1)}\n[clamav]\nsocket = '{clamd.socket}'\n"
            "[yara]\nused = false\n[archives]\nopened = false\n"
        )
        (folder / "clamd.conf").write_text(f"LocalSocket {clamd.socket}\n")
        return measure()


@contextmanager
def _clamd(known: Path) -> Iterator[Clamd]:
    clamd = start(known, ClamdLimits(), lambda socket: ClamAv(socket).answers())
    try:
        yield clamd
    finally:
        clamd.end()


def _report(
    description: this_machine.Machine,
    runs: int,
    mebibytes: int,
    origin: tuple[Path, str],
    known: Path,
    times: dict[str, list[float]],
    memory: dict[str, float],
) -> Report:
    medians = {name: statistics.median(of) for name, of in times.items()}
    ratios = {
        "image_vs_nbdcopy": min(
            medians[f"nbdcopy, {one}"] / medians[f"image digest, {one}"] for one in FORMATS
        ),
        "image_vs_sha256sum": min(
            medians[f"sha256sum, {one}"] / medians[f"image digest, {one}"] for one in FORMATS
        ),
        "files_vs_sha256sum": medians["find and sha256sum"] / medians["files digest"],
        "scan_vs_clamdscan": medians["clamdscan of the tree"] / medians["scan of the image"],
        "scan_vs_clamdscan_few_signatures": (
            medians[f"clamdscan of the tree{FEW}"] / medians[f"scan of the image{FEW}"]
        ),
    }
    tree, called = origin
    sizes = [path.stat().st_size for path in tree.rglob("*") if path.is_file() and not path.is_symlink()]
    return Report(
        machine=msgspec.structs.replace(description, load_after=this_machine.load()),
        runs=runs,
        image_mib=mebibytes,
        tree=called,
        tree_mib=sum(sizes) // MIB,
        tree_files=len(sizes),
        signatures=there.count if (there := signatures(known)) else 0,
        seconds={name: _seconds(of) for name, of in times.items()},
        ratios={name: round(ratio, 2) for name, ratio in ratios.items()},
        peak_mib={"of any process": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024, 1)}
        | {f"scan of the image, {name}": mib for name, mib in memory.items()},
        goals={name: ratios[name] >= goal for name, goal in GOALS.items()},
    )


def _seconds(of: list[float]) -> Timed:
    return Timed(round(statistics.median(of), 3), round(min(of), 3), round(max(of), 3))


# -- what is looked at ---------------------------------------------------------------------------------------


def _images(folder: Path, mebibytes: int) -> dict[str, Path]:
    """Random content with a hole as large behind it, in each format."""
    raw = folder / "disk.raw"
    with raw.open("wb") as file:
        for _ in range(mebibytes):
            file.write(os.urandom(MIB))
        file.truncate(mebibytes * MIB)
    made = {"raw": raw, "qcow2": folder / "disk.qcow2"}
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, made["qcow2"]], check=True)
    return made


def _tree(folder: Path, *, small: bool) -> tuple[Path, str]:
    root = folder / "root"
    if not small and shutil.which("debootstrap"):
        command = ["debootstrap", "--variant=minbase", "bookworm", str(root)]
        if subprocess.run(command, capture_output=True, check=False, timeout=900).returncode == 0:
            _remove_special_files(root)
            return root, "debootstrap --variant=minbase bookworm"
        shutil.rmtree(root, ignore_errors=True)
    source = Path("/usr/share/doc" if small else "/usr/share")
    shutil.copytree(source, root, symlinks=True)
    return root, f"a copy of {source}"


def _remove_special_files(tree: Path) -> None:
    """For them clamdscan ends as if it had failed."""
    for path in tree.rglob("*"):
        if not (path.is_symlink() or path.is_file() or path.is_dir()):
            path.unlink()


def _disk_of(folder: Path, tree: Path) -> Path:
    disk = folder / "root.img"
    used = sum(path.lstat().st_size for path in tree.rglob("*"))
    with disk.open("wb") as file:
        file.truncate(2 * used + 256 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-d", tree, disk], check=True)
    return disk


def _korora() -> list[str]:
    return [str(Path(sys.executable).with_name("korora"))]


def _timed(command: list[str], then: list[str] | None = None, *, may_end: Collection[int] = (0,)) -> float:
    """`may_end`: a scanner's codes that say what it found, and not that it failed."""
    began = time.perf_counter()
    if then is None:
        done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
        if done.returncode not in may_end:
            raise subprocess.CalledProcessError(done.returncode, command)
    else:
        first = subprocess.Popen(command, stdout=subprocess.PIPE)
        subprocess.run(then, stdin=first.stdout, check=True, stdout=subprocess.DEVNULL)
        if first.wait():
            raise subprocess.CalledProcessError(first.returncode, command)
    return time.perf_counter() - began


def told(report: Report) -> str:
    lines = ["| what | s |", "| --- | --- |"]
    lines += [f"| {name} | {one.median} ({one.least}–{one.most}) |" for name, one in report.seconds.items()]
    lines.append(f"\n{report.tree}: {report.tree_files:,} files, {report.tree_mib} MiB")
    lines.append(f"{report.signatures:,} signatures")
    for name, ratio in report.ratios.items():
        met = "reached" if report.goals.get(name) else "MISSED"
        lines.append(f"{name}={ratio}" + (f" (goal {GOALS[name]}: {met})" if name in GOALS else ""))
    lines += [f"peak of memory, {name}: {mib} MiB" for name, mib in report.peak_mib.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
