"""One reading of a disk for digest, engines, indicators; a reader that dies leaves unknown, never clean."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from typing import Final

import pytest
from blake3 import blake3

from fakes.indicators import MemoryIndicators
from fakes.scanner import MemoryScanner
from korora.adapters.filesystem.sandboxed import SandboxedFiles
from korora.agents.integrity.malware.examination import AHEAD, Examination, Limits
from korora.errors import ToolError
from korora.model.files import Begun, Beside, Done, Ended, FileRecord, Piece, Problem, Told, Volume
from korora.model.image import Format, ImageFiles, NbdExport
from korora.model.indicator import Entry, Kind, Provenance
from korora.model.scan import Answer, Rule
from korora.wiring.files_inside import FilesInside
from korora.wiring.indicator_matching import Matching, begun
from korora.wiring.scanning import Engines, Scanned

MIB: Final = 1 << 20
NOWHERE: Final = ImageFiles(Path("/nowhere"), Format.RAW)
VOLUME: Final = Volume(1, 0, MIB, "ext4", files=True)
WITHIN_S: Final = 60.0


class Scripted:
    """A reader that tells what the test says."""

    def __init__(self, *told: Told) -> None:
        self._told = told
        self.walks = 0

    def walk(
        self,
        disk: ImageFiles | NbdExport,
        contents: Sequence[bytes] = (),
        *,
        pieces: bool = False,
        digests: bool = True,
        beside: Sequence[Beside] = (),
        stopped: Callable[[], bool] = lambda: False,
    ) -> Generator[Told, None, None]:
        self.walks += 1
        yield from (one for one in self._told if pieces or not isinstance(one, Begun | Piece | Ended))


class Silent(Scripted):
    """Tells of one file, and then of nothing until it is stopped."""

    def walk(
        self,
        disk: ImageFiles | NbdExport,
        contents: Sequence[bytes] = (),
        *,
        pieces: bool = False,
        digests: bool = True,
        beside: Sequence[Beside] = (),
        stopped: Callable[[], bool] = lambda: False,
    ) -> Generator[Told, None, None]:
        yield from self._told
        while not stopped():
            time.sleep(0.01)


def whole(path: bytes, content: bytes) -> list[Told]:
    return [Begun(1, path, len(content)), Piece(content), Ended(), record(path, content)]


def record(path: bytes, content: bytes, problem: str = "") -> FileRecord:
    digest = None if problem else blake3(content).hexdigest()
    return FileRecord(
        volume=1, path=path, kind="file", mode=0, owner=0, group=0, size=len(content), links=1, blake3=digest,
        problem=problem,
    )  # fmt: skip


def engines(needle: bytes = b"needle") -> Engines:
    limits = Limits(file_s=20, stall_s=10, parallel=2)
    return Engines(Rule.ANY, (), (), Examination([MemoryScanner(needle)], limits=limits))


def matching(value: str = "evil.example") -> Matching:
    store = MemoryIndicators()
    store.write([[Entry(Kind.DOMAIN, value, Provenance("a list"))]])
    return begun(store, 1_800_000_000)


def looked(inside: FilesInside) -> list[Scanned]:
    """All of it; fails, and does not hang, if that never ends."""
    found: list[Scanned] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            found.extend(inside.look())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(WITHIN_S)
    assert not thread.is_alive(), "it hangs"
    if failed:
        raise failed[0]
    return found


def answers(found: Iterable[Scanned]) -> dict[str, Answer]:
    return {one.name: one.verdict.answer for one in found}


def test_one_reading_is_digested_scanned_and_compared() -> None:
    reader = Scripted(VOLUME, *whole(b"/a", b"a needle"), *whole(b"/b", b"see evil.example"), Done(2))
    inside = FilesInside(NOWHERE, engines(), matching(), reader=reader)
    found = looked(inside)
    assert reader.walks == 1
    assert answers(found) == {"volume 1: /a": Answer.INFECTED, "volume 1: /b": Answer.CLEAN}
    assert inside.matching is not None
    comparison = inside.matching.comparison
    assert [(one.path, one.matched) for one in comparison.examined] == [("volume 1: /b", True)]
    assert comparison.files == 2
    assert inside.reading.digest.complete
    assert inside.unread() == []


DIED: Final = Problem("the reader of files", "it ended early")


@pytest.mark.parametrize(
    "told",
    [
        (VOLUME, Begun(1, b"/a", 9), Piece(b"hay"), DIED),
        (
            VOLUME,
            Begun(1, b"/a", 9),
            Piece(b"hay"),
            Ended("broken"),
            record(b"/a", b"hay", "broken"),
            Done(1),
        ),
        (VOLUME, Begun(1, b"/a", 9), Piece(b"hay"), Ended(), record(b"/a", b"hay"), Done(1)),
        (VOLUME, record(b"/a", b"hay"), Done(1)),
    ],
)
def test_a_file_that_broke_off_is_unknown_to_engines_and_indicators(told: tuple[Told, ...]) -> None:
    inside = FilesInside(NOWHERE, engines(), matching(), reader=Scripted(*told))
    assert answers(looked(inside)) == {"volume 1: /a": Answer.UNKNOWN}
    assert inside.matching is not None
    [examined] = inside.matching.comparison.examined
    assert (examined.path, bool(examined.unknown), examined.matched) == ("volume 1: /a", True, False)


def test_what_was_found_before_a_file_broke_off_counts() -> None:
    told = (VOLUME, Begun(1, b"/a", 9 * MIB), Piece(b"evil.example " + bytes(MIB - 13)), Ended("broken"))
    inside = FilesInside(NOWHERE, None, matching(), reader=Scripted(*told, DIED))
    assert looked(inside) == []
    assert inside.matching is not None
    [examined] = inside.matching.comparison.examined
    assert (examined.matched, examined.unknown) == (True, "broken")


@pytest.mark.parametrize(
    ("told", "where"),
    [
        ((VOLUME, DIED), "the reader of files"),
        ((Problem("volume 1 (luks)", "it is encrypted"), Done(0)), "volume 1 (luks)"),
        ((VOLUME, *whole(b"/a", b"hay"), Problem("volume 1: /b", "damaged"), Done(1)), "volume 1: /b"),
        ((VOLUME, Done(0)), "the disk"),
    ],
)
def test_what_is_unknown_beside_single_files_is_told(told: tuple[Told, ...], where: str) -> None:
    inside = FilesInside(NOWHERE, engines(), reader=Scripted(*told))
    looked(inside)
    assert [one.where for one in inside.unread()] == [where]


def test_a_file_that_broke_off_is_not_told_twice() -> None:
    told = (VOLUME, Begun(1, b"/a", 1), Ended("broken"), record(b"/a", b"x", "broken"), Done(1))
    inside = FilesInside(NOWHERE, engines(), reader=Scripted(*told))
    assert len(looked(inside)) == 1
    assert inside.unread() == []


def test_patterns_choose_the_files_and_a_pattern_that_fits_none_is_unknown() -> None:
    told = (VOLUME, *whole(b"/etc/a", b"needle"), *whole(b"/b", b"needle"), Done(2))
    inside = FilesInside(NOWHERE, engines(), matching(), ["/etc/*"], reader=Scripted(*told))
    assert answers(looked(inside)) == {"volume 1: /etc/a": Answer.INFECTED}
    inside = FilesInside(NOWHERE, engines(), paths=["/nothing"], reader=Scripted(*told))
    assert looked(inside) == []
    assert [one.problem for one in inside.unread()] == ["no file in it fits the patterns"]


def test_nothing_is_said_before_the_end() -> None:
    many = 4 * AHEAD  # more than are looked at before the first is taken
    told = (VOLUME, *whole(b"/a", b"x") * many, Done(many))
    inside = FilesInside(NOWHERE, engines(), reader=Scripted(*told))
    with pytest.raises(ToolError):
        inside.unread()
    found = inside.look()
    next(found)
    found.close()  # type: ignore[attr-defined]
    with pytest.raises(ToolError):
        inside.unread()


def test_leaving_while_the_reader_is_silent_does_not_wait_for_it() -> None:
    told = [one for number in range(200) for one in whole(b"/%d" % number, b"hay")]
    inside = FilesInside(NOWHERE, engines(), reader=Silent(VOLUME, *told))

    def leave() -> None:
        found = inside.look()
        next(found)
        found.close()  # type: ignore[attr-defined]

    thread = threading.Thread(target=leave, daemon=True)
    thread.start()
    thread.join(WITHIN_S)
    assert not thread.is_alive()


# -- real disks ----------------------------------------------------------------------------------------------


def made(folder: Path, **files: bytes) -> ImageFiles:
    tree = folder / "tree"
    tree.mkdir()
    for name, content in files.items():
        (tree / name).write_bytes(content)
    image = folder / "disk.img"
    with image.open("wb") as file:
        file.truncate(32 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-d", tree, image], check=True, capture_output=True, timeout=60)
    return ImageFiles(image, Format.RAW)


def test_real_files_are_read_once_for_everybody(tmp_path: Path) -> None:
    large = bytes(3 * MIB) + b"needle" + bytes(2 * MIB + 5) + b" evil.example"
    disk = made(tmp_path, large=large, small=b"hay", empty=b"")
    inside = FilesInside(disk, engines(), matching())
    found = {one.name: one for one in looked(inside)}
    assert {name: (one.verdict.answer.value, one.size) for name, one in found.items()} == {
        "volume 1: /large": ("infected", len(large)),
        "volume 1: /small": ("clean", 3),
        "volume 1: /empty": ("clean", 0),
    }
    assert inside.matching is not None
    [examined] = inside.matching.comparison.examined
    assert (examined.path, examined.size, examined.matches[0].hit.offset) == (
        "volume 1: /large",
        len(large),
        len(large) - len("evil.example"),
    )
    assert inside.reading.files[1, b"/large"].blake3 == blake3(large).hexdigest()
    assert inside.reading.digest.root() is not None


def test_the_digest_is_the_same_whoever_else_takes_part(tmp_path: Path) -> None:
    disk = made(tmp_path, a=b"hay", b=b"needle" * MIB)
    roots = []
    for inside in (FilesInside(disk), FilesInside(disk, engines()), FilesInside(disk, None, matching())):
        looked(inside)
        roots.append(inside.reading.digest.root())
    assert roots[0] is not None
    assert roots == [roots[0]] * 3


def test_a_real_reader_that_is_out_of_time_leaves_the_rest_unknown(tmp_path: Path) -> None:
    inside = FilesInside(made(tmp_path, a=b"hay"), engines(), matching(), reader=SandboxedFiles(within_s=0.0))
    assert looked(inside) == []
    assert [one.problem for one in inside.unread()] == ["it did not end in time"]
    assert not inside.reading.digest.complete


def test_many_small_files_come_all(tmp_path: Path) -> None:
    files = {f"f{number}": b"needle" if number % 7 == 0 else b"hay" for number in range(1500)}
    found = answers(looked(FilesInside(made(tmp_path, **files), engines())))
    assert found == {
        f"volume 1: /{name}": Answer.INFECTED if content == b"needle" else Answer.CLEAN
        for name, content in files.items()
    }


def test_leaving_a_real_reading_early_ends_its_processes(tmp_path: Path) -> None:
    disk = made(tmp_path, **{f"f{number}": bytes(MIB // 10) for number in range(250)})
    found = FilesInside(disk, engines()).look()
    next(found)
    assert running(disk.path)
    found.close()  # type: ignore[attr-defined]
    assert not running(disk.path)


def running(path: Path) -> bool:
    """Whether a process has it on its command line."""
    return subprocess.run(["pgrep", "-f", path], capture_output=True, check=False).returncode == 0
