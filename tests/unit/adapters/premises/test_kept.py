"""Kept disks: moved, listed, taken and put back; wiped when dropped; wherever a crash cut it short."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import stat
from pathlib import Path

import pytest
from msgspec.structs import replace

from korora.adapters.premises import kept as kept_module
from korora.adapters.premises.kept import LocalKeptDisks
from korora.model.identity import VmName
from korora.model.kept import KeptDisk

WEB = VmName("web.example")
RECORD = KeptDisk(vm=WEB, uuid="u", name="data", format="raw", size=4096, root="blake3:00", to="b", at=7)
CONTENT = b"what it was" * 400


@pytest.fixture
def kept(tmp_path: Path) -> LocalKeptDisks:
    return LocalKeptDisks(tmp_path / "kept")


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "data.raw"
    path.write_bytes(CONTENT)
    path.chmod(0o664)
    return path


def test_a_disk_is_moved_there_and_is_roots_alone(kept: LocalKeptDisks, disk: Path) -> None:
    asyncio.run(kept.keep(RECORD, disk))
    assert not disk.exists()
    found = kept.of(WEB, "data")
    assert found is not None
    told, image = found
    assert (told.size, told.to, told.used) == (4096, "b", image.stat().st_blocks * 512)
    assert image.read_bytes() == CONTENT
    assert {stat.S_IMODE(path.stat().st_mode) for path in image.parent.iterdir()} == {0o600}
    assert stat.S_IMODE(image.parent.stat().st_mode) == 0o700
    assert kept.all() == [told]
    assert kept.of(WEB, "other") is None


def test_a_folder_that_goes_while_somebody_looks_has_nothing(
    kept: LocalKeptDisks, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(kept.keep(RECORD, disk))
    look = os.scandir

    def gone(path: Path) -> object:
        if Path(path).name == WEB:
            raise FileNotFoundError(errno.ENOENT, "gone", str(path))
        return look(path)

    monkeypatch.setattr(os, "scandir", gone)
    assert kept.all() == []


def test_keeping_is_repeated_after_a_crash_and_replaces_what_was_kept_before(
    kept: LocalKeptDisks, disk: Path
) -> None:
    asyncio.run(kept.keep(RECORD, disk))
    asyncio.run(kept.keep(RECORD, disk))
    disk.write_bytes(b"newer")
    asyncio.run(kept.keep(RECORD, disk))
    (told,) = kept.all()
    found = kept.of(WEB, told.name)
    assert found is not None
    assert found[1].read_bytes() == b"newer"


def test_what_cannot_be_moved_stays_where_it_is(kept: LocalKeptDisks, disk: Path, tmp_path: Path) -> None:
    (tmp_path / "second").hardlink_to(disk)
    link = tmp_path / "link"
    link.symlink_to(disk)
    for path in (disk, link, tmp_path / "nothing"):
        with pytest.raises(OSError, match=r"no file of its own|there is no"):
            asyncio.run(kept.keep(RECORD, path))
    assert disk.read_bytes() == CONTENT
    assert kept.all() == []


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="there is no other file system")
def test_a_disk_on_another_file_system_is_not_kept(kept: LocalKeptDisks, disk: Path) -> None:
    other = Path("/dev/shm") / f"korora-test-{os.getpid()}"
    shutil.copyfile(disk, other)
    try:
        with pytest.raises(OSError, match="another file system"):
            asyncio.run(kept.keep(RECORD, other))
        assert other.read_bytes() == CONTENT
    finally:
        other.unlink()


def test_it_is_taken_and_put_back(kept: LocalKeptDisks, disk: Path, tmp_path: Path) -> None:
    asyncio.run(kept.keep(RECORD, disk))
    there = tmp_path / "vms" / "web" / "data.raw"
    asyncio.run(kept.take(WEB, "data", there))
    assert there.read_bytes() == CONTENT
    assert kept.all() == []
    there.write_bytes(b"partly")
    asyncio.run(kept.put_back(WEB, "data", there))
    asyncio.run(kept.put_back(WEB, "data", there))
    assert not there.exists()
    assert [one.name for one in kept.all()] == ["data"]


def test_what_was_dropped_meanwhile_is_not_put_back(kept: LocalKeptDisks, disk: Path, tmp_path: Path) -> None:
    asyncio.run(kept.keep(RECORD, disk))
    asyncio.run(kept.take(WEB, "data", disk))
    asyncio.run(kept.drop(WEB))
    asyncio.run(kept.put_back(WEB, "data", disk))
    assert disk.exists()
    assert kept.all() == []


def test_it_is_not_taken_over_a_file_that_is_there(kept: LocalKeptDisks, disk: Path, tmp_path: Path) -> None:
    asyncio.run(kept.keep(RECORD, disk))
    disk.write_bytes(b"another's")
    with pytest.raises(FileExistsError):
        asyncio.run(kept.take(WEB, "data", disk))
    assert disk.read_bytes() == b"another's"
    assert len(kept.all()) == 1


def test_dropped_is_wiped_with_what_a_crash_left(kept: LocalKeptDisks, disk: Path, tmp_path: Path) -> None:
    asyncio.run(kept.keep(RECORD, disk))
    stray = tmp_path / "kept" / WEB / "old.image"
    stray.write_bytes(b"without a record")
    steps = asyncio.run(kept.drop(WEB))
    assert [(Path(step.what).name, step.verified) for step in steps] == [
        ("data.image", True),
        ("old.image", True),
    ]
    assert not (tmp_path / "kept" / WEB).exists()
    assert asyncio.run(kept.drop(WEB)) == []


def test_one_disk_of_several_is_dropped_alone(kept: LocalKeptDisks, disk: Path, tmp_path: Path) -> None:
    asyncio.run(kept.keep(RECORD, disk))
    disk.write_bytes(b"another")
    asyncio.run(kept.keep(replace(RECORD, name="root"), disk))
    (step,) = asyncio.run(kept.drop(WEB, "data"))
    assert (Path(step.what).name, step.verified, step.bytes) == ("data.image", True, len(CONTENT))
    assert [one.name for one in kept.all()] == ["root"]
    assert sorted(path.name for path in (tmp_path / "kept" / WEB).iterdir()) == ["root.image", "root.json"]
    assert asyncio.run(kept.drop(WEB, "data")) == []


def test_a_wipe_that_a_crash_cut_short_is_finished_and_nobody_takes_it_meanwhile(
    kept: LocalKeptDisks, disk: Path, tmp_path: Path
) -> None:
    asyncio.run(kept.keep(RECORD, disk))
    image = tmp_path / "kept" / WEB / "data.image"
    image.rename(image.with_suffix(".wiped"))
    assert kept.all() == []
    with pytest.raises(FileNotFoundError):
        asyncio.run(kept.take(WEB, "data", disk))
    (step,) = asyncio.run(kept.finish())
    assert (step.what, step.verified) == (str(image), True)
    assert not image.parent.exists()
    assert asyncio.run(kept.finish()) == []


def test_what_is_kept_anew_beside_a_wipe_that_was_cut_short_stays(
    kept: LocalKeptDisks, disk: Path, tmp_path: Path
) -> None:
    asyncio.run(kept.keep(RECORD, disk))
    image = tmp_path / "kept" / WEB / "data.image"
    image.with_suffix(".wiped").write_bytes(b"half wiped")
    asyncio.run(kept.finish())
    assert [path.name for path in sorted(image.parent.iterdir())] == ["data.image", "data.json"]
    assert image.read_bytes() == CONTENT
    image.with_suffix(".wiped").write_bytes(b"half wiped")
    assert [step.what for step in asyncio.run(kept.drop(WEB))] == [str(image)] * 2
    assert not image.parent.exists()


def test_what_cannot_be_wiped_is_still_kept(
    kept: LocalKeptDisks, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_path: Path) -> None:
        raise OSError(errno.EIO, "the storage fails")

    asyncio.run(kept.keep(RECORD, disk))
    with monkeypatch.context() as broken:
        broken.setattr(kept_module, "wiped", fails)
        with pytest.raises(OSError, match="the storage fails"):
            asyncio.run(kept.drop(WEB, "data"))
    assert [one.name for one in kept.all()] == ["data"]


def test_what_is_taken_while_it_is_dropped_is_never_wiped(kept: LocalKeptDisks, tmp_path: Path) -> None:
    async def story() -> None:
        for number in range(40):
            source, there = tmp_path / "source", tmp_path / f"taken-{number}"
            source.write_bytes(CONTENT)
            await kept.keep(RECORD, source)
            taken, dropped = await asyncio.gather(
                kept.take(WEB, "data", there), kept.drop(WEB, "data"), return_exceptions=True
            )
            assert not isinstance(dropped, BaseException)
            assert (taken is None) == (dropped == []) == there.exists()
            if there.exists():
                assert there.read_bytes() == CONTENT

    asyncio.run(story())


@pytest.mark.parametrize("text", [b"", b"{}", b'{"vm":"other"}', b"\xff"])
def test_a_record_that_cannot_be_read_is_none(kept: LocalKeptDisks, disk: Path, text: bytes) -> None:
    asyncio.run(kept.keep(RECORD, disk))
    found = kept.of(WEB, "data")
    assert found is not None
    found[1].with_suffix(".json").write_bytes(text)
    assert kept.of(WEB, "data") is None
    assert kept.all() == []
