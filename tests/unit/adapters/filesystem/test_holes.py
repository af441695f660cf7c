"""Files with holes cost what lies on the disk, or are unknown at once; never is there a digest of a part."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from fakes.mounts import mounted
from korora.adapters.filesystem import contents as reading
from korora.adapters.filesystem.contents import TOO_MANY_ZEROS, Contents
from korora.adapters.filesystem.disk import Disk
from korora.adapters.filesystem.holes import HOLES_BYTES, TREE, Room
from korora.adapters.filesystem.sandboxed import SandboxedFiles
from korora.adapters.filesystem.walker import told_of
from korora.model.files import Begun, Done, Ended, Entire, FileRecord, Piece, Problem, Told
from korora.model.image import Format, ImageFiles
from korora.protocol.content_tree import CHUNK_BYTES, ContentTree, leaf

MIB: Final = 1 << 20
TIB: Final = 1 << 40
LONGEST: Final = 2**63 - 1
IN_TIME_S: Final = 120.0
CLUSTER: Final = 4096


def run(*command: str | Path) -> None:
    subprocess.run([*map(str, command)], check=True, capture_output=True, text=True, timeout=120)


def empty(image: Path, mebibytes: int) -> Path:
    with image.open("wb") as file:
        file.truncate(mebibytes * MIB)
    return image


def sparse(path: Path, size: int, **data: bytes) -> None:
    """`data`: at_NUMBER, what stands at that byte."""
    with path.open("wb") as file:
        file.truncate(size)
        for at, what in data.items():
            file.seek(int(at.removeprefix("at_")))
            file.write(what)


def tree_of(size: int, *data: tuple[int, bytes]) -> str:
    """Chunk by chunk, where data stands in one chunk each."""
    tree = ContentTree()
    for at, what in data:
        number = at // CHUNK_BYTES
        tree.add_zeros(number - tree.count)
        chunk = bytearray(CHUNK_BYTES)
        chunk[at % CHUNK_BYTES : at % CHUNK_BYTES + len(what)] = what
        tree.add(leaf(chunk))
    tree.add_zeros(size // CHUNK_BYTES - tree.count)
    if size % CHUNK_BYTES:
        tree.add(leaf(bytes(size % CHUNK_BYTES)))
    return TREE + tree.root(size).removeprefix("blake3:")


def walked(image: Path) -> dict[bytes, FileRecord]:
    return {one.path: one for one in all_of(image) if isinstance(one, FileRecord)}


def all_of(image: Path) -> list[Told]:
    told = list(SandboxedFiles(within_s=IN_TIME_S).walk(ImageFiles(image, Format.RAW)))
    assert isinstance(told[-1], Done), told[-1]
    return told


def given_out(image: Path) -> dict[bytes, tuple[bytes, str]]:
    """What engines get of each file, and why it is not all."""
    found: dict[bytes, tuple[bytes, str]] = {}
    now, data = b"", b""
    for one in SandboxedFiles(within_s=IN_TIME_S).walk(
        ImageFiles(image, Format.RAW), pieces=True, digests=False
    ):
        match one:
            case Begun():
                now, data = one.path, b""
            case Piece():
                data += one.data
            case Ended():
                found[now] = data, one.problem
            case Entire():
                found[one.path] = one.data, ""
    return found


# -- by the bytes alone -----------------------------------------------------------------------------------


class Holed:
    """A file of some chunks, each of data or a hole, and what was read of it."""

    def __init__(self, chunks: list[bool], rest: int) -> None:
        self.size = len(chunks) * CHUNK_BYTES + rest
        self.content = b"".join(
            bytes([number % 255 + 1]) * CHUNK_BYTES if data else bytes(CHUNK_BYTES)
            for number, data in enumerate(chunks)
        ) + bytes([7] * rest)
        self._chunks = chunks
        self.in_holes = 0

    def holes(self) -> Iterator[tuple[int, int]]:
        """In pieces, as file systems have them."""
        for number, data in enumerate(self._chunks):
            if not data:
                for at in range(0, CHUNK_BYTES, 300_000):
                    yield number * CHUNK_BYTES + at, min(300_000, CHUNK_BYTES - at)

    def read(self, offset: int, length: int) -> bytes:
        self.in_holes += self._chunks[offset // CHUNK_BYTES :][:1] != [True]
        return self.content[offset : offset + length]

    def tree(self) -> str:
        tree = ContentTree()
        for at in range(0, self.size, CHUNK_BYTES):
            tree.add(leaf(self.content[at : at + CHUNK_BYTES]))
        return TREE + tree.root(self.size).removeprefix("blake3:")


@given(st.lists(st.booleans(), min_size=2, max_size=8), st.integers(0, 3000), st.booleans())
def test_a_long_file_has_the_tree_of_its_bytes_whoever_takes_them(
    chunks: list[bool], rest: int, given: bool
) -> None:
    file = Holed(chunks, rest)
    told: list[Told] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "LONG_BYTES", MIB)
        contents = Contents((), 1, told.append if given else None)
        digests, problem = contents.digested(file.read, file.size, b"/a", file.holes)
    assert (digests, problem) == ((file.tree(), None, None), "")
    if given:
        assert b"".join(one.data for one in told if isinstance(one, Piece)) == file.content
    else:
        assert file.in_holes <= bool(rest)


def test_what_is_out_of_order_or_fails_is_a_problem_and_no_digest() -> None:
    def fails() -> Iterator[tuple[int, int]]:
        yield 0, CHUNK_BYTES
        raise OSError("torn")

    for holes in (lambda: [(CHUNK_BYTES, CHUNK_BYTES), (0, CHUNK_BYTES)], fails):
        for size in (3 * MIB, TIB):
            told: list[Told] = []
            for tell in (None, told.append):
                digests, problem = Contents((), 1, tell).digested(lambda _, n: bytes(n), size, b"/a", holes)
                assert digests == (None, None, None)
                assert problem
            assert [type(one) for one in told] == [Begun, Ended]
            assert told[-1] == Ended(problem)


def test_the_zeros_that_are_read_are_counted_for_all_files_of_a_disk() -> None:
    room = Room(left=5 * MIB)
    answers = []
    for volume in (1, 2):
        for _ in range(2):
            contents = Contents((), volume, room=room)
            answers.append(contents.digested(lambda _, n: bytes(n), 2 * MIB, b"/a", lambda: [(0, 2 * MIB)]))
    whole = blake3(bytes(2 * MIB)).hexdigest()
    assert [digests[0] for digests, _ in answers] == [whole, whole, None, None]
    assert [problem for _, problem in answers] == ["", "", TOO_MANY_ZEROS, TOO_MANY_ZEROS]


def test_what_stands_before_the_first_hole_is_given_out_and_then_it_is_unknown() -> None:
    told: list[Told] = []
    contents = Contents((), 1, told.append, digests=False, room=Room(left=0))
    head = b"\x07" * 2 * MIB
    answer = contents.digested(
        lambda offset, length: head[offset : offset + length], 9 * MIB, b"/a", lambda: [(2 * MIB, 7 * MIB)]
    )
    assert answer == ((None, None, None), TOO_MANY_ZEROS)
    assert b"".join(one.data for one in told if isinstance(one, Piece)) == head
    assert told[-1] == Ended(TOO_MANY_ZEROS)


# -- in file systems --------------------------------------------------------------------------------------


def test_ext4_with_a_file_of_terabytes_is_told_at_once(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    sparse(root / "log", TIB // 2, at_300000000000=b"last")
    sparse(root / "huge", 15 * TIB)
    (root / "note").write_bytes(b"hello")
    image = empty(tmp_path / "ext4.img", 64)
    run("mke2fs", "-q", "-t", "ext4", "-d", root, image)
    found = walked(image)
    assert found[b"/log"].blake3 == tree_of(TIB // 2, (300_000_000_000, b"last"))
    assert (found[b"/log"].sha256, found[b"/log"].problem) == (None, "")
    assert found[b"/note"].blake3 == blake3(b"hello").hexdigest()
    # The library that tells of its extended attributes has a bound of its own, and says so.
    assert found[b"/huge"].problem == "" or "attributes" in found[b"/huge"].problem
    assert given_out(image) == {
        b"/log": (b"", TOO_MANY_ZEROS),
        b"/huge": (b"", TOO_MANY_ZEROS),
        b"/note": (b"hello", ""),
    }


def test_btrfs_with_a_file_of_exabytes_is_told_at_once(tmp_path: Path) -> None:
    image = empty(tmp_path / "btrfs.img", 256)
    run("mkfs.btrfs", "-q", image)
    with mounted(image, tmp_path / "at") as at:
        sparse(at / "huge", LONGEST)
        sparse(at / "some", 1 << 50, at_562949953421312=b"data")
        (at / "note").write_bytes(b"hello")
    found = walked(image)
    assert found[b"/huge"].blake3 == tree_of(LONGEST)
    assert found[b"/some"].blake3 == tree_of(1 << 50, (1 << 49, b"data"))
    assert {one.problem for one in found.values()} == {""}
    out = given_out(image)
    assert out[b"/note"] == (b"hello", "")
    assert {out[b"/huge"], out[b"/some"]} == {(b"", TOO_MANY_ZEROS)}


def test_xfs_with_a_file_of_exabytes_is_told_at_once_or_unknown(tmp_path: Path) -> None:
    image = empty(tmp_path / "xfs.img", 400)
    run("mkfs.xfs", "-q", image)
    with mounted(image, tmp_path / "at") as at:
        sparse(at / "some", TIB, at_500000000000=b"data")
        sparse(at / "huge", LONGEST)
        (at / "note").write_bytes(b"hello")
    told = all_of(image)
    found = {one.path: one for one in told if isinstance(one, FileRecord)}
    assert found[b"/some"].blake3 == tree_of(TIB, (500_000_000_000, b"data"))
    assert found[b"/note"].blake3 == blake3(b"hello").hexdigest()
    # The library gives such a name nobody: which entry it is stands in the problem.
    assert b"/huge" in found or any("entry" in one.problem for one in told if isinstance(one, Problem))
    assert given_out(image)[b"/some"] == (b"", TOO_MANY_ZEROS)


def test_many_files_of_holes_are_no_more_work_than_a_few(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    each = HOLES_BYTES // 2 + CHUNK_BYTES
    for number in range(20):
        sparse(root / f"{number:02}", each)
    image = empty(tmp_path / "ext4.img", 64)
    run("mke2fs", "-q", "-t", "ext4", "-d", root, image)
    descriptor = os.open(image, os.O_RDONLY)
    try:
        disk = Disk(lambda offset, length: os.pread(descriptor, length, offset), 64 * MIB)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("korora.adapters.filesystem.walker.Room", lambda: Room(left=each - 1))
            files = [one for one in told_of(disk, ()) if isinstance(one, FileRecord) and one.kind == "file"]
    finally:
        os.close(descriptor)
    assert {one.problem for one in files} == {TOO_MANY_ZEROS}
    assert {one.blake3 for one in files} == {None}


@pytest.mark.parametrize(
    ("kind", "size"),
    [("ext4", 1 << 40), *((kind, size) for kind in ("ext2", "ext4") for size in (LONGEST, 2**64 - 1))],
)
def test_a_size_of_ext_that_cannot_be_is_a_problem_at_once(tmp_path: Path, kind: str, size: int) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "note").write_bytes(b"hello" * 50_000)
    image = empty(tmp_path / "ext.img", 64)
    run("mke2fs", "-q", "-t", kind, "-b", "1024", "-d", root, image)
    run("debugfs", "-w", "-R", f"sif note size {size:#x}", image)
    found = walked(image)[b"/note"]
    if size == 1 << 40:  # that can be: all but its beginning is a hole
        content = (b"hello" * 50_000).ljust(CHUNK_BYTES, b"\x00")
        assert (found.blake3, found.problem) == (tree_of(size, (0, content)), "")
        return
    assert (found.blake3, found.sha256) == (None, None)
    assert found.problem


# -- NTFS -------------------------------------------------------------------------------------------------


def attributes(record: bytes) -> Iterator[tuple[int, int, str]]:
    """(where, length, name) of each content in a record of NTFS's table."""
    (at,) = struct.unpack_from("<H", record, 0x14)
    while (kind := struct.unpack_from("<I", record, at)[0]) != 0xFFFFFFFF:
        (length,) = struct.unpack_from("<I", record, at + 4)
        count, offset = record[at + 9], struct.unpack_from("<H", record, at + 10)[0]
        name = record[at + offset : at + offset + 2 * count].decode("utf-16-le")
        if kind == 0x80:
            yield at, length, name
        at += length


def with_a_hole(image: Path, name: str, stream: str, clusters: int) -> None:
    """Before the content of that stream. It must be the last in the file's record."""
    whole = bytearray(image.read_bytes())
    start = struct.unpack_from("<Q", whole, 0x30)[0] * CLUSTER
    wanted = name.encode("utf-16-le")
    place = next(
        at
        for at in range(start, start + 200 * 1024, 1024)
        if whole[at : at + 4] == b"FILE" and wanted in whole[at : at + 1024]
    )
    record = whole[place : place + 1024]
    at, length, _ = next(one for one in attributes(bytes(record)) if one[2] == stream)
    (runs,) = struct.unpack_from("<H", record, at + 32)
    count = struct.unpack_from("<Q", record, at + 24)[0] + 1
    listed = bytes([4]) + struct.pack("<I", clusters) + bytes(record[at + runs : at + length]) + bytes(3)
    grown = runs + len(listed) + -(runs + len(listed)) % 8
    new = bytearray(record[at : at + runs] + listed).ljust(grown, b"\x00")
    size = (clusters + count) * CLUSTER
    struct.pack_into("<I", new, 4, grown)
    struct.pack_into("<Q", new, 24, clusters + count - 1)
    struct.pack_into("<QQQ", new, 40, size, size, size)
    end = record[at + length : at + length + 8]
    record[at : at + grown + 8] = new + end
    struct.pack_into("<I", record, 0x18, at + grown + 8)
    del record[1024:]
    numbers, usn = struct.unpack_from("<H", record, 4)[0], None
    usn = record[numbers : numbers + 2]
    for one in (1, 2):  # what was written at the ends of sectors goes where it is kept
        ends = slice(one * 512 - 2, one * 512)
        if record[ends] != usn:
            record[numbers + 2 * one : numbers + 2 * one + 2] = record[ends]
            record[ends] = usn
    whole[place : place + 1024] = record
    image.write_bytes(whole)


@pytest.fixture
def ntfs(tmp_path: Path) -> Path:
    (tmp_path / "content").write_bytes(b"0123456789abcdef" * 4096)
    image = empty(tmp_path / "ntfs.img", 16)
    run("mkntfs", "-q", "-F", "-f", image)
    for name in ("/plain", "/streamed"):
        run("ntfscp", image, tmp_path / "content", name)
    run("ntfscp", "-N", "beside", image, tmp_path / "content", "/streamed")
    return image


def test_a_hole_that_fits_in_ntfs_is_read_as_zeros(ntfs: Path) -> None:
    with_a_hole(ntfs, "plain", "", 512)
    with_a_hole(ntfs, "streamed", "beside", 512)
    found = walked(ntfs)
    held = b"0123456789abcdef" * 4096
    for path in (b"/plain", b"/streamed:beside"):
        assert found[path].blake3 == blake3(bytes(512 * CLUSTER) + held).hexdigest()
    assert {one.problem for one in found.values()} == {""}


@pytest.mark.parametrize(("name", "stream"), [("plain", ""), ("streamed", "beside")])
@pytest.mark.parametrize("clusters", [5000, 1 << 28, (1 << 31) - 1])
def test_a_file_of_ntfs_of_which_the_reader_leaves_out_content_is_a_problem(
    ntfs: Path, name: str, stream: str, clusters: int
) -> None:
    """A hole longer than the volume: the library tells then that nothing is there, and no more."""
    with_a_hole(ntfs, name, stream, clusters)
    found, out = walked(ntfs), given_out(ntfs)
    path = b"/" + name.encode()
    assert found[path].problem
    assert found[path].blake3 is None
    assert path not in out  # its record alone is told: then it is unknown to every engine
    others = {one.problem for one in found.values() if not one.path.startswith(path)}
    assert others == {""}


def test_a_record_of_ntfs_that_was_not_written_whole_is_a_problem(ntfs: Path) -> None:
    whole = bytearray(ntfs.read_bytes())
    start = struct.unpack_from("<Q", whole, 0x30)[0] * CLUSTER
    place = next(
        at for at in range(start, start + 200 * 1024, 1024) if b"p\0l\0a\0i\0n\0" in whole[at : at + 1024]
    )
    whole[place + 510] ^= 0xFF
    ntfs.write_bytes(whole)
    told = all_of(ntfs)
    found = {one.path: one for one in told if isinstance(one, FileRecord)}
    assert any(isinstance(one, Problem) for one in told) or found[b"/plain"].problem
