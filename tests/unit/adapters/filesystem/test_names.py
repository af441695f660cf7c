"""Names that cannot be, are no text, or are there twice: told, or a problem, and never lost."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.mounts import mounted_by_ntfs_3g
from fakes.volumes import blank, files_of, problems_of, run, walked
from korora.adapters.filesystem import folders

PLAIN = ("one plain", "SLASHNAM", "DUPLICA1", "DUPLICA2", "DOTSDOTS")
Make = Callable[[Path, Sequence[str]], bytes]


def ext4(folder: Path, names: Sequence[str], *options: str) -> bytes:
    root = folder / "root"
    root.mkdir()
    for name in names:
        (root / name).write_bytes(os.fsencode(name))
    image = blank(folder / "ext4.raw", 24)
    run("mkfs.ext4", "-q", *options, "-d", root, image)
    return image.read_bytes()


def xfs(folder: Path, names: Sequence[str]) -> bytes:
    """Names without blanks: such is the language of a prototype."""
    source = folder / "source"
    source.write_bytes(b"content")
    lines = "".join(f"{name.replace(' ', '_')} ---644 0 0 {source}\n" for name in names)
    (folder / "proto").write_text(f"/\n0 0\nd--755 0 0\n{lines}$\n")
    image = blank(folder / "xfs.raw", 320)
    run("mkfs.xfs", "-q", "-p", folder / "proto", image)
    return image.read_bytes()


def ntfs(folder: Path, names: Sequence[str]) -> bytes:
    image = blank(folder / "ntfs.raw", 24)
    run("mkfs.ntfs", "-q", "-F", "-Q", image)
    source = folder / "source"
    for name in names:
        source.write_text(name)
        run("ntfscp", "-f", image, source, name)
    return image.read_bytes()


def fat(folder: Path, names: Sequence[str]) -> bytes:
    image = blank(folder / "fat.raw", 40)
    run("mkfs.vfat", "-F", "16", "-n", "LABEL", image)
    source = folder / "source"
    for name in names:
        source.write_text(name)
        run("mcopy", "-i", image, source, f"::{name}")
    return image.read_bytes()


def wide(text: str) -> bytes:
    return text.encode("utf-16-le", "surrogatepass")


def changed(content: bytes, one: str, other: str) -> bytes:
    """A name for another as long, as this file system writes it."""
    assert len(wide(one)) == len(wide(other))
    if wide(one) in content:
        return content.replace(wide(one), wide(other))
    return content.replace(one.encode(), other.encode())


ALL: list[Make] = [ext4, xfs, ntfs, fat]
# In FAT a long name lies in pieces, of which the first has five letters.
SLASHED: dict[Make, tuple[str, str]] = {fat: ("SLASH", "a/b/c")}
DOTTED: dict[Make, tuple[str, str]] = {fat: ("DOTSD", "../..")}
TWICE: dict[Make, tuple[str, str]] = {fat: ("CA2 lf", "CA1 lf")}


@pytest.mark.parametrize("make", ALL)
def test_names_that_can_be_are_all_told(tmp_path: Path, make: Make) -> None:
    told = walked(make(tmp_path, [f"{name} lfn" for name in PLAIN]))
    assert problems_of(told) == []
    names = {path.replace(b"_", b" ") for path in files_of(told)}
    assert {f"/{name} lfn".encode() for name in PLAIN} <= names


@pytest.mark.parametrize("make", ALL)
@pytest.mark.parametrize("kind", ["a path", "dots"])
def test_a_name_with_a_slash_is_a_problem_and_no_path(tmp_path: Path, make: Make, kind: str) -> None:
    content = make(tmp_path, [f"{name} lfn" for name in PLAIN])
    if kind == "a path":
        one, other = SLASHED.get(make, ("SLASHNAM", "a/b/c/dd"))
    else:
        one, other = DOTTED.get(make, ("DOTSDOTS", "../../.."))
    told = walked(changed(content, one, other))
    assert any("cannot be" in one.problem for one in problems_of(told))
    assert not any(path.count(b"/") > 1 for path in files_of(told) if b"$Extend" not in path)


@pytest.mark.parametrize("make", ALL)
def test_a_second_file_of_a_name_is_a_problem(tmp_path: Path, make: Make) -> None:
    content = make(tmp_path, [f"{name} lfn" for name in PLAIN])
    told = walked(changed(content, *TWICE.get(make, ("DUPLICA2", "DUPLICA1"))))
    assert any("a second file of the name" in one.problem for one in problems_of(told))
    assert sum(b"DUPLICA" in path for path in files_of(told)) == 1


# -- ext4 --------------------------------------------------------------------------------------------------


def test_names_of_ext4_that_are_no_text_are_told_byte_for_byte(tmp_path: Path) -> None:
    names = [os.fsdecode(one) for one in (b"bad\xff\xfe", b"bad\xff\xfd", b"new\nline", b"\x01", b"^", b" ")]
    told = walked(ext4(tmp_path, names))
    assert problems_of(told) == []
    assert set(files_of(told)) == {b"/lost+found", *(b"/" + os.fsencode(name) for name in names)}


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a\0b"], ids=["empty", "itself", "above", "with a zero"])
@pytest.mark.parametrize("options", [(), ("-O", "inline_data")], ids=["in blocks", "in the inode"])
def test_a_file_that_hides_behind_a_name_that_cannot_be_is_a_problem(
    tmp_path: Path, name: bytes, options: tuple[str, ...]
) -> None:
    (tmp_path / "root" / "folder").mkdir(parents=True)
    (tmp_path / "root" / "folder" / "HIDDENFILE").write_bytes(b"here")
    image = blank(tmp_path / "ext4.raw", 24)
    run("mkfs.ext4", "-q", *options, "-d", tmp_path / "root", image)
    content = bytearray(image.read_bytes())
    assert problems_of(walked(bytes(content))) == []
    at = content.index(b"HIDDENFILE")
    content[at - 2] = len(name)
    content[at : at + len(name)] = name
    told = walked(bytes(content))
    assert problems_of(told)
    assert b"/folder/" + name not in files_of(told)


@pytest.mark.parametrize("name", ["$OrphanFiles", "$MBR", "$FAT1", "$FAT2"])
def test_a_guests_file_that_is_named_as_the_library_names_its_own_is_told(tmp_path: Path, name: str) -> None:
    root = tmp_path / "root"
    (root / "below" / name).mkdir(parents=True)
    (root / "below" / name / "file").write_bytes(b"here")
    (root / name).write_bytes(b"here too")
    image = blank(tmp_path / "ext4.raw", 24)
    run("mkfs.ext4", "-q", "-d", root, image)
    told = walked(image.read_bytes())
    assert problems_of(told) == []
    assert {f"/{name}".encode(), f"/below/{name}/file".encode()} <= set(files_of(told))


def test_a_name_of_ext4_that_leads_beyond_all_inodes_is_a_problem(tmp_path: Path) -> None:
    content = bytearray(ext4(tmp_path, PLAIN))
    at = content.index(b"SLASHNAM") - 8
    content[at : at + 4] = b"\xf0\xff\xff\x7f"
    assert problems_of(walked(bytes(content)))


# -- NTFS and FAT ------------------------------------------------------------------------------------------


def test_a_name_of_ntfs_that_is_no_unicode_is_a_problem_and_one_like_what_is_made_of_it_is_none(
    tmp_path: Path,
) -> None:
    content = ntfs(tmp_path, ["SURROGAT", "care^t", "new\nline", "caf\u00e9", "\U0001f427"])
    assert problems_of(walked(content)) == []
    assert {b"/care^t", b"/new\nline", "/caf\u00e9".encode(), "/\U0001f427".encode()} <= set(
        files_of(walked(content))
    )
    for other in ("bad\ud800name", "bad\udfffname", "bad\0name", "badname\ud83d"):
        told = walked(changed(content, "SURROGAT", other))
        assert any("no Unicode" in one.problem for one in problems_of(told)), other
        assert not any(path.startswith(b"/bad") for path in files_of(told))


def test_a_block_of_names_of_ntfs_that_is_damaged_is_a_problem(tmp_path: Path) -> None:
    """The library tells of the names in the other blocks alone."""
    content = ntfs(tmp_path, [f"a file of number {number}" for number in range(60)])
    told = walked(content)
    assert problems_of(told) == []
    assert sum(b"of number" in path for path in files_of(told)) == 60
    lost = 0
    for at in _blocks_of_names(content):
        for change in (0, 24, 1022):  # its magic, its entries, what shows that all of it was written
            damaged = content[: at + change] + b"\xff\xff" + content[at + change + 2 :]
            told = walked(damaged)
            assert problems_of(told)
            lost += sum(b"of number" in path for path in files_of(told)) < 60
    assert lost


def _blocks_of_names(content: bytes) -> Iterator[int]:
    at = content.find(b"INDX(\0")
    while at >= 0:
        if wide("of number") in content[at : at + 4096]:
            yield at
        at = content.find(b"INDX(\0", at + 1)


def test_a_long_name_of_fat_that_is_no_unicode_is_a_problem(tmp_path: Path) -> None:
    content = fat(tmp_path, ["SURROGAT lfn", "care^t lfn", "caf\u00e9 lfn"])
    assert problems_of(walked(content)) == []
    for other in ("bad\ud800n", "bad\udfffn"):
        told = walked(changed(content, "SURRO", other))
        assert any("no Unicode" in one.problem for one in problems_of(told))


def test_a_file_of_fat_whose_short_name_the_library_refuses_is_a_problem(tmp_path: Path) -> None:
    """Linux shows it by its long name."""
    content = fat(tmp_path, ["one plain file"])
    told = walked(content.replace(b"ONEPLA~1", b"ON/../~1"))
    assert problems_of(told)


def test_a_file_of_ntfs_that_is_named_like_anothers_stream_is_a_problem(tmp_path: Path) -> None:
    image = blank(tmp_path / "ntfs.raw", 24)
    run("mkfs.ntfs", "-q", "-F", "-Q", image)
    with mounted_by_ntfs_3g(image, tmp_path / "mounted") as root:
        (root / "file").write_bytes(b"content")
        (root / "file:stream").write_bytes(b"another file")
        os.setxattr(root / "file", "user.stream", b"the stream")
    told = walked(image.read_bytes())
    assert any("a second file of the name" in one.problem for one in problems_of(told))


# -- folders as they lie there ------------------------------------------------------------------------------


@given(st.binary(max_size=4096), st.sampled_from([1024, 2048, 4096]))
def test_whatever_lies_in_a_folder_is_counted_or_breaks_off(content: bytes, block: int) -> None:
    whole = content.ljust(block, b"\0")[: len(content) // block * block or block]
    with suppress(ValueError):
        assert folders.in_ext([whole], block) <= len(whole)
    with suppress(ValueError):
        assert folders.in_inode([content]) <= len(content)
    with suppress(ValueError):
        assert folders.in_fat([content]) <= len(content)
    with suppress(ValueError):
        assert folders.in_exfat([content]) <= len(content)
