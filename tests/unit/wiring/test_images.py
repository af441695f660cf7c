"""A digest that is broken off goes on to the same root; one of another state of the image is not used."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fakes.disk_images import MIB, converted, disk_content, root_of
from korora.errors import KororaError, RefusedError, UsageError
from korora.wiring.images import Progress, digested, looked_at

CONTENT = disk_content(24 * MIB)


class BrokenOffError(Exception):
    pass


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    path.write_bytes(CONTENT)
    return path


def stopped_at(chunks: int) -> object:
    def tell(progress: Progress) -> None:
        if progress.count >= chunks:
            raise BrokenOffError

    return tell


def broken_off(path: Path, kept: Path, chunks: int) -> None:
    with pytest.raises(BrokenOffError):
        digested(looked_at(path), stopped_at(chunks), kept)  # type: ignore[arg-type]
    assert kept.exists()


@pytest.mark.parametrize("chunks", [1, 2, 3, 13, 24])
@pytest.mark.parametrize("which", ["raw", "qcow2"])
def test_a_digest_that_was_broken_off_goes_on_to_the_same_root(which: str, chunks: int, disk: Path) -> None:
    path, kept = converted(disk, f"copy.{which}", which), disk.with_name("state")
    broken_off(path, kept, chunks)
    told: list[Progress] = []
    assert digested(looked_at(path), told.append, kept).root == root_of(CONTENT)
    assert all(one.count > chunks for one in told)
    assert not kept.exists()


def test_a_state_of_another_image_or_of_an_older_content_is_not_used(disk: Path) -> None:
    kept, other = disk.with_name("state"), disk.with_name("other.raw")
    broken_off(disk, kept, 10)
    other.write_bytes(bytes(24 * MIB))
    state = kept.read_bytes()
    assert digested(looked_at(other), lambda _: None, kept).root == root_of(bytes(24 * MIB))
    kept.write_bytes(state)
    seen = disk.stat()
    with disk.open("r+b") as file:
        file.write(b"changed")
    os.utime(disk, ns=(seen.st_atime_ns, seen.st_mtime_ns))  # as if it had not been written
    assert digested(looked_at(disk), lambda _: None, kept).root == root_of(b"changed" + CONTENT[7:])


def test_every_damage_to_a_state_is_an_error_or_changes_nothing(disk: Path) -> None:
    kept = disk.with_name("state")
    broken_off(disk, kept, 13)
    whole, image = kept.read_bytes(), looked_at(disk)
    told = 0
    for at in range(0, len(whole), 23):
        kept.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(UsageError) as refused:
            digested(image, lambda _: None, kept)
        assert refused.value.kind == "bad-state"
        told += 1
    assert told > 10


@pytest.mark.parametrize(
    "text",
    [b"", b"null", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"state":{},"sum":"x"}', b'{"state":[],"sum":1}'],
)
def test_what_was_never_put_aside_is_an_error(text: bytes, disk: Path) -> None:
    kept = disk.with_name("state")
    kept.write_bytes(text)
    with pytest.raises(UsageError) as refused:
        digested(looked_at(disk), lambda _: None, kept)
    assert refused.value.kind == "bad-state"


def test_a_place_where_nothing_can_be_put_aside_is_refused_before_the_work(disk: Path) -> None:
    os.mkfifo(disk.with_name("pipe"))
    told: list[Progress] = []
    for kept in (disk.parent, disk.with_name("gone") / "state", disk.with_name("pipe")):
        with pytest.raises(UsageError) as refused:
            digested(looked_at(disk), told.append, kept)
        assert refused.value.kind == "bad-state"
    assert told == []


def test_an_image_that_is_written_while_it_is_read_has_no_digest(disk: Path) -> None:
    def writing(progress: Progress) -> None:
        if progress.count == 10:
            with disk.open("r+b") as file:
                file.write(b"x")

    with pytest.raises(RefusedError) as refused:
        digested(looked_at(disk), writing)
    assert refused.value.kind == "image-changed"


def test_what_was_put_aside_names_the_image_by_the_kernels_words(disk: Path) -> None:
    kept = disk.with_name("state")
    broken_off(disk, kept, 3)
    state = json.loads(kept.read_text())["state"]
    assert state["count"] >= 3
    assert state["identity"]["files"][0]["inode"] == disk.stat().st_ino
    with pytest.raises(KororaError):
        looked_at(kept.with_name("gone.raw"))
