"""Where something may lie in the log of XFS, NTFS or HFS+ alone, that is told: nobody plays these."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import hfs
from fakes.mounts import mounted
from fakes.volumes import at_one_moment, blank, files_of, problems_of, run, walked
from korora.adapters.filesystem import hfs_log, ntfs_log
from korora.adapters.filesystem.xfs_log import BLOCK_BYTES, Log

UNKNOWN = "what is in its log alone is not known"
CYCLES = [(), ("-c", "2"), ("-c", "9"), ("-c", "7", "-s", "4096"), ("-c", "7", "-s", "65536")]


class InMemory:
    def __init__(self, content: bytes) -> None:
        self.content = content
        self.size = len(content)

    def read(self, offset: int, length: int) -> bytes:
        return self.content[offset : offset + length]


def xfs(folder: Path) -> Path:
    image = blank(folder / "xfs.raw", 320)
    run("mkfs.xfs", "-q", "-f", image)
    return image


def state(image: Path) -> str:
    """By XFS's own tools."""
    return run("xfs_logprint", "-t", image).partition("state: ")[2].split()[0]


def problem_words(content: bytes) -> list[str]:
    return [one.problem for one in problems_of(walked(content))]


@pytest.mark.parametrize("options", CYCLES)
def test_the_log_of_an_unmounted_xfs_is_clean_however_often_it_went_round(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    image = xfs(tmp_path)
    if options:
        run("xfs_db", "-x", "-c", " ".join(("logformat", *options)), image)
    assert state(image) == "<CLEAN>"
    assert problem_words(image.read_bytes()) == []


def test_a_mounted_xfs_is_unknown_until_it_is_unmounted(tmp_path: Path) -> None:
    image, content = next(one for one in written_to(tmp_path) if b"/new" not in files_of(walked(one[1])))
    copy = tmp_path / "copy"
    copy.write_bytes(content)
    assert state(copy) == "<DIRTY>"
    [words] = problem_words(content)
    assert words.startswith(UNKNOWN)
    assert state(image) == "<CLEAN>"
    told = walked(image.read_bytes())
    assert (problems_of(told), [*files_of(told)]) == ([], [b"/new"])


def test_a_volume_of_a_test_is_unmounted_though_a_sandbox_began_in_the_meantime(tmp_path: Path) -> None:
    image = xfs(tmp_path)
    command = ["unshare", "--mount", "sh", "-c", "echo begun; exec sleep 100"]
    with ExitStack() as until:
        with mounted(image, tmp_path / "at") as root:
            sandbox = until.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE))
            until.callback(sandbox.kill)
            assert sandbox.stdout is not None
            assert sandbox.stdout.readline() == b"begun\n"
            (root / "new").write_bytes(b"new")
            run("sync", "-f", root)
        assert state(image) == "<CLEAN>"


def written_to(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Unmounted, and as it was before. The kernel may put what is in the log into its place at any time."""
    for number in range(10):
        image = xfs(folder)
        with mounted(image, folder / f"at{number}") as root:
            descriptor = os.open(root / "new", os.O_WRONLY | os.O_CREAT)
            os.write(descriptor, b"new")
            os.fsync(descriptor)
            os.close(descriptor)
            content = at_one_moment(image)
        yield image, content


def log_of(*records: bytes, cycle: int = 1, blocks: int = 64, before: int = 0) -> Log:
    """Records from the beginning on, and the cycle before behind them."""
    written = b"".join(records)
    rest = blocks - len(written) // BLOCK_BYTES
    return Log(InMemory(written + (struct.pack(">I", before) + bytes(508)) * rest), 0, blocks)


def record(*operations: int, cycle: int = 1, data: int = 1, flags: int = 0x20, size: int = 32 << 10) -> bytes:
    header = bytearray((size + (32 << 10) - 1) // (32 << 10) * BLOCK_BYTES)
    struct.pack_into(">IIII", header, 0, 0xFEEDBABE, cycle, 2, data * BLOCK_BYTES)
    struct.pack_into(">I", header, 40, len(operations) or 1)
    struct.pack_into(">I", header, 320, size)
    for at in range(BLOCK_BYTES, len(header), BLOCK_BYTES):
        struct.pack_into(">I", header, at, cycle)
    body = bytearray((struct.pack(">I", cycle) + bytes(508)) * data)
    body[9] = flags
    return bytes(header + body)


def test_only_a_last_record_that_says_so_makes_a_log_clean() -> None:
    assert log_of(record()).is_clean()
    assert log_of(record(flags=0, data=5), record()).is_clean()
    assert log_of(record(cycle=8), cycle=8, before=7).is_clean()
    assert log_of(record(size=64 << 10)).is_clean()
    assert log_of(record(flags=0, data=62)).is_clean() is False
    assert not log_of(record(flags=0)).is_clean()
    assert not log_of(record(), record(flags=0, data=3)).is_clean()
    assert not log_of(record(1, 2)).is_clean()
    assert not log_of(record(), struct.pack(">I", 1) + bytes(508)).is_clean()  # something came after it
    assert not log_of().is_clean()
    assert not log_of(record(cycle=8), before=3).is_clean()


def test_a_log_that_is_full_ends_where_it_begins() -> None:
    assert log_of(record(flags=0, data=61), record(), blocks=64).is_clean()
    assert not log_of(record(flags=0, data=63), blocks=64).is_clean()


def test_a_log_that_reaches_beyond_the_disk_is_an_error() -> None:
    with pytest.raises(OSError, match="beyond"):
        Log(InMemory(record()), 0, 64).is_clean()


@given(st.binary(min_size=2048, max_size=2048), st.integers(1, 4))
def test_whatever_lies_in_a_log_ends_in_an_answer(content: bytes, blocks: int) -> None:
    assert Log(InMemory(content), 0, blocks).is_clean() in {True, False}


# -- NTFS --------------------------------------------------------------------------------------------------

NOBODY, SOMEBODY, CLEAN = 0xFFFF, 0, 2


def area(number: int, opened: int, flags: int, magic: bytes = b"RSTR") -> bytes:
    page = struct.pack("<4s12xIIH", magic, 4096, 4096, 48).ljust(48, b"\0")
    return (page + struct.pack("<QHHHH", number, 1, NOBODY, opened, flags)).ljust(4096, b"\0")


def in_log(content: bytes) -> Any:
    entry = SimpleNamespace(read_random=lambda at, length: content[at : at + length])
    return SimpleNamespace(open_meta=lambda inode: {2: entry}[inode])


def test_a_log_of_ntfs_is_clean_where_nobody_has_it_open_or_it_was_closed() -> None:
    assert ntfs_log.is_clean(in_log(b"\xff" * 8192))
    assert ntfs_log.is_clean(in_log(area(1, NOBODY, 0) * 2))
    assert ntfs_log.is_clean(in_log(area(1, SOMEBODY, CLEAN) * 2))
    assert ntfs_log.is_clean(in_log(area(1, SOMEBODY, 0) + area(2, NOBODY, 0)))
    assert not ntfs_log.is_clean(in_log(area(1, SOMEBODY, 0) * 2))
    assert not ntfs_log.is_clean(in_log(area(3, SOMEBODY, 0) + area(2, NOBODY, 0)))
    assert not ntfs_log.is_clean(in_log(area(1, NOBODY, 0, b"RCRD") * 2))
    assert not ntfs_log.is_clean(in_log(area(1, NOBODY, 0)[:50]))
    assert not ntfs_log.is_clean(in_log(b""))


@given(st.binary(max_size=100))
def test_whatever_lies_in_a_log_of_ntfs_ends_in_an_answer(content: bytes) -> None:
    assert ntfs_log.is_clean(in_log(content)) in {True, False}


def test_an_ntfs_that_is_open_is_unknown(tmp_path: Path) -> None:
    image = blank(tmp_path / "ntfs.raw", 24)
    run("mkfs.ntfs", "-q", "-F", "-Q", image)
    content = bytearray(image.read_bytes())
    assert problem_words(bytes(content)) == []
    log = content.index(b"\xff" * 65536)
    content[log : log + 8192] = area(1, SOMEBODY, 0) * 2
    [words] = problem_words(bytes(content))
    assert words.startswith(UNKNOWN)


# -- HFS+ --------------------------------------------------------------------------------------------------


def test_an_hfs_without_a_journal_or_with_an_empty_one_is_clean() -> None:
    assert problem_words(hfs.volume()) == []
    for order in "<>":
        empty = hfs.volume(hfs.HAS_JOURNAL, hfs.info(), hfs.journal(512, 512, order))
        assert problem_words(empty) == []
    assert problem_words(hfs.volume(hfs.HAS_JOURNAL, hfs.info(hfs.IN_ITSELF | hfs.NOT_BEGUN))) == []


@pytest.mark.parametrize(
    ("info", "journal"),
    [
        (hfs.info(), hfs.journal(512, 1024)),
        (hfs.info(), hfs.journal(1024, 512, ">")),
        (hfs.info(), b""),
        (hfs.info(hfs.ELSEWHERE), hfs.journal(512, 512)),
        (b"", hfs.journal(512, 512)),
    ],
    ids=["something", "something, wrapped", "none", "elsewhere", "nowhere"],
)
def test_an_hfs_whose_journal_has_something_or_is_not_there_is_unknown(info: bytes, journal: bytes) -> None:
    [words] = problem_words(hfs.volume(hfs.HAS_JOURNAL, info, journal))
    assert words.startswith(UNKNOWN)


@pytest.mark.parametrize("end", [512, 1024])
def test_an_hfs_in_a_wrapper_is_looked_at(end: int) -> None:
    inside = hfs.volume(hfs.HAS_JOURNAL, hfs.info(), hfs.journal(512, end))
    head = struct.pack(">2s18xI4xH94x2sHH", b"BD", 8192, 9, b"H+", 2, len(inside) // 8192)
    content = (bytes(1024) + head).ljust(9 * 512 + 2 * 8192, b"\0") + inside
    assert hfs_log.is_clean(InMemory(content)) is (end == 512)
    assert [words.startswith(UNKNOWN) for words in problem_words(content)] == [True] * (end != 512)


def test_an_hfs_whose_journal_lies_beyond_its_end_is_unknown() -> None:
    far = hfs.info()[:36] + struct.pack(">Q", 1 << 62) + hfs.info()[44:]
    [words] = problem_words(hfs.volume(hfs.HAS_JOURNAL, far))
    assert "beyond" in words


@given(st.binary(max_size=200))
def test_whatever_lies_in_a_log_of_hfs_ends_in_an_answer(content: bytes) -> None:
    for one in (hfs.volume(hfs.HAS_JOURNAL, content), hfs.volume(hfs.HAS_JOURNAL, hfs.info(), content)):
        try:
            assert hfs_log.is_clean(InMemory(one)) in {True, False}
        except OSError as error:
            assert "beyond" in str(error)
