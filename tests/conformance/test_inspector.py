"""What every inspector must do: the fake in this process, and the real one in a process of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes.inspector import FakeInspector
from korora.adapters.image.qemu_nbd import served
from korora.adapters.inspector.process import ProcessInspector
from korora.model.flag import FlagKind
from korora.model.image import Format, ImageFiles
from korora.model.inspection import Check, Compared, Disposition, Examined
from korora.ports.inspector import DiskSource, Inspector, Order
from korora.protocol.content_tree import CHUNK_BYTES, ContentTree, leaf

MADE: dict[str, Callable[[], Inspector]] = {"fake": FakeInspector, "process": ProcessInspector}
DISKS_ALONE = dict.fromkeys(Check, Disposition.OFF) | {
    Check.DISKS: Disposition.FLAG,
    Check.UNKNOWN: Disposition.REPORT,
}
CONTENT = b"a" * CHUNK_BYTES + bytes(CHUNK_BYTES) + b"b" * 4096


@pytest.fixture(params=list(MADE))
def inspector(request: pytest.FixtureRequest) -> Inspector:
    return MADE[request.param]()


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    path.write_bytes(CONTENT)
    return path


def source(path: Path) -> DiskSource:
    return DiskSource(name="disk0", format="raw", path=str(path))


def order(output: Path, *disks: DiskSource, baseline: str = "") -> Order:
    output.mkdir(exist_ok=True)
    return Order(vm="web", checks=DISKS_ALONE, disks=disks, output=str(output), baseline=baseline)


def inspected(inspector: Inspector, asked: Order) -> Examined:
    return asyncio.run(inspector.inspect(asked, lambda _: None))


def compared(inspector: Inspector, asked: Order) -> Compared:
    return asyncio.run(inspector.compare(asked, lambda _: None))


def root_of(content: bytes) -> str:
    tree = ContentTree()
    for at in range(0, len(content), CHUNK_BYTES):
        tree.add(leaf(content[at : at + CHUNK_BYTES]))
    return tree.root(len(content))


def test_a_disk_has_the_root_of_its_content_and_nothing_is_found(
    inspector: Inspector, disk: Path, tmp_path: Path
) -> None:
    found = inspected(inspector, order(tmp_path / "out", source(disk)))
    (facts,) = found.disks
    assert (facts.name, facts.size, facts.root) == ("disk0", len(CONTENT), root_of(CONTENT))
    assert (found.found, found.dropped) == ((), {})
    assert {one.check for one in found.looked} >= {Check.DISKS}
    assert all(not one.unknown for one in found.looked)


def test_a_disk_that_is_not_there_is_unread_and_no_error(inspector: Inspector, tmp_path: Path) -> None:
    found = inspected(inspector, order(tmp_path / "out", source(tmp_path / "nothing.raw")))
    assert [one.kind for one in found.found] == [FlagKind.UNREAD]
    assert [disk.root for disk in found.disks] == [None]


def test_a_disk_that_somebody_serves_is_read_from_there(
    inspector: Inspector, disk: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "served"
    folder.mkdir()
    with served(ImageFiles(disk, Format.RAW), folder, 5):
        export = DiskSource(name="disk0", format="raw", running=True, socket=str(folder / "nbd"))
        found = inspected(inspector, order(tmp_path / "out", export))
    assert [one.root for one in found.disks] == [root_of(CONTENT)]


def test_a_vm_without_disks_has_nothing_to_find(inspector: Inspector, tmp_path: Path) -> None:
    found = inspected(inspector, order(tmp_path / "out"))
    assert (found.disks, found.found) == ((), ())


def test_a_disk_is_the_same_as_its_baseline_and_a_changed_chunk_is_named(
    inspector: Inspector, disk: Path, tmp_path: Path
) -> None:
    inspected(inspector, order(tmp_path / "out", source(disk)))
    asked = order(tmp_path / "again", source(disk), baseline=str(tmp_path / "out"))
    (same,) = compared(inspector, asked).disks
    assert (same.chunks_same, same.chunks_differ, same.now) == (3, 0, root_of(CONTENT))
    with disk.open("r+b") as file:
        file.seek(CHUNK_BYTES + 5)
        file.write(b"!")
    found = compared(inspector, asked)
    assert (found.disks[0].chunks_same, found.disks[0].chunks_differ) == (2, 1)
    (one,) = found.examined.found
    assert (one.kind, one.place.offset, one.place.length) == (FlagKind.DIFFERS, CHUNK_BYTES, CHUNK_BYTES)
    assert list((tmp_path / "again").iterdir()) == []
