"""The containers of a running VM's disks: judged beside the program that holds them, or unknown and why."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fakes.disk_images import qemu_img
from korora.adapters.inspector.process import ProcessInspector
from korora.model.flag import FlagKind
from korora.model.image import Layer
from korora.model.inspection import Check, Disposition, Examined, Looked
from korora.ports.inspector import DiskSource, Order

MIB = 1 << 20
CHECKS = dict.fromkeys(Check, Disposition.OFF) | dict.fromkeys(
    (Check.CONTAINERS, Check.DISKS, Check.UNKNOWN), Disposition.FLAG
)


@contextmanager
def held(disk: Mapping[str, object], socket: Path) -> Iterator[None]:
    """Open for writing, as a VM's QEMU has it, and shown at a socket."""
    command = ["qemu-nbd", "--persistent", "--shared=8", "--socket", str(socket), f"json:{json.dumps(disk)}"]
    process = subprocess.Popen([*command, "--cache=writeback"], stdin=subprocess.DEVNULL)
    try:
        for _ in range(600):
            if socket.exists() or process.poll() is not None:
                break
            time.sleep(0.05)
        assert socket.exists()
        yield
    finally:
        process.kill()
        process.wait(30)


@dataclass(slots=True)
class World:
    """A VM that runs, over an overlay in `folder`."""

    folder: Path
    undo: ExitStack = field(default_factory=ExitStack)

    @property
    def base(self) -> Path:
        return self.folder / "base.raw"

    @property
    def over(self) -> Path:
        return self.folder / "over.qcow2"

    @property
    def defined(self) -> tuple[Layer, ...]:
        return (Layer(str(self.over), "qcow2"), Layer(str(self.base), "raw"))

    def runs(self) -> None:
        base = {"driver": "raw", "file": {"driver": "file", "filename": str(self.base)}, "read-only": True}
        over = {"driver": "qcow2", "file": {"driver": "file", "filename": str(self.over)}, "backing": base}
        self.undo.enter_context(held(over, self.folder / "nbd"))

    def source(self, opened: tuple[Layer, ...] | None = None, /, **changed: object) -> DiskSource:
        fields = {
            "name": "disk0",
            "format": "qcow2",
            "path": str(self.over),
            "backing": self.defined[1:],
            "running": True,
            "socket": str(self.folder / "nbd"),
            "opened": self.defined if opened is None else opened,
        }
        return DiskSource(**fields | changed)  # type: ignore[arg-type]

    def inspected(self, *disks: DiskSource, allow: tuple[str, ...] = ()) -> Examined:
        output = self.folder / "out"
        output.mkdir(exist_ok=True)
        order = Order(vm="web", checks=CHECKS, disks=disks, output=str(output), allow=allow)
        return asyncio.run(ProcessInspector().inspect(order, lambda _: None))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    made.base.write_bytes(b"b" * MIB)
    qemu_img("create", "-q", "-f", "qcow2", "-b", made.base, "-F", "raw", made.over)
    with made.undo:
        yield made


def containers(found: Examined) -> Looked:
    return next(one for one in found.looked if one.check is Check.CONTAINERS)


def reasons(found: Examined, kind: FlagKind) -> list[str]:
    return [one.reason for one in found.found if one.kind is kind]


def test_the_container_of_a_disk_that_is_in_use_is_judged(world: World) -> None:
    world.runs()
    found = world.inspected(world.source())
    looked = containers(found)
    assert (looked.examined, looked.unknown, found.found) == (1, 0, ())
    assert looked.words.endswith("disk0: judged")
    assert found.disks[0].root is not None
    assert (found.disks[0].format, found.disks[0].size) == ("qcow2", MIB)


def test_a_header_that_names_a_file_of_the_host_is_found_while_the_vm_runs(world: World) -> None:
    world.runs()
    # As it would be opened once the VM is started anew, whatever the one that runs has open.
    secret = world.folder / "secret.raw"
    secret.write_bytes(b"s" * MIB)
    qemu_img("rebase", "-q", "-u", "-U", "-f", "qcow2", "-b", secret, "-F", "raw", copy_of(world.over))
    world.over.write_bytes(copy_of(world.over).read_bytes())
    found = world.inspected(world.source())
    (reason,) = reasons(found, FlagKind.CONTAINER)
    assert reason.startswith("backing: ")
    assert str(secret) in reason
    assert found.disks[0].root is not None  # of what the VM sees: QEMU has the one open that is defined


def copy_of(path: Path) -> Path:
    copy = path.with_suffix(".copy")
    if not copy.exists():
        copy.write_bytes(path.read_bytes())
    return copy


@pytest.mark.parametrize(
    "opened",
    [
        lambda world: (Layer(str(world.over), "raw"),),
        lambda world: (Layer("/dev/zero", "qcow2"), *world.defined[1:]),
        lambda world: (*world.defined, Layer("/etc/shadow", "raw")),
        lambda world: (Layer(str(world.over), "qcow2", "/etc/shadow"), *world.defined[1:]),
    ],
    ids=["another format", "another file", "a file beneath", "another file for its data"],
)
def test_what_qemu_has_open_otherwise_than_defined_is_found(
    world: World, opened: Callable[[World], tuple[Layer, ...]]
) -> None:
    world.runs()
    found = world.inspected(world.source(opened(world)))
    assert reasons(found, FlagKind.CONTAINER)
    assert all(one.startswith("open: ") for one in reasons(found, FlagKind.CONTAINER))


def test_a_path_by_a_link_is_the_file_that_it_leads_to(world: World) -> None:
    world.runs()
    link = world.folder / "link"
    link.symlink_to(world.over)
    found = world.inspected(world.source(path=str(link)))
    assert (containers(found).examined, found.found) == (1, ())


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"path": ""}, "does not name it"),
        ({"opened": ()}, "QEMU does not say"),
        ({"path": "/nowhere/disk.qcow2"}, "/nowhere/disk.qcow2"),
    ],
    ids=["not defined", "graph not told", "file not there"],
)
def test_a_container_that_cannot_be_judged_is_unknown_and_its_content_is_read(
    world: World, changed: dict[str, object], why: str
) -> None:
    world.runs()
    found = world.inspected(world.source(None, **changed))
    (reason,) = reasons(found, FlagKind.UNREAD)
    assert why in reason
    assert (containers(found).examined, containers(found).unknown) == (0, 1)
    assert containers(found).words.endswith("disk0: unknown")
    assert found.disks[0].root is not None


def test_a_header_that_is_broken_meanwhile_is_unknown(world: World) -> None:
    world.runs()
    with world.over.open("r+b") as file:
        file.write(bytes(512))
    found = world.inspected(world.source())
    (reason,) = reasons(found, FlagKind.UNREAD)
    assert "not in qcow2 format" in reason
    assert containers(found).unknown == 1


def test_a_disk_of_the_definition_that_the_running_vm_has_not_is_unknown_to_every_check(world: World) -> None:
    world.runs()
    gone = world.source(name="gone", socket="")
    found = world.inspected(world.source(), gone)
    assert [one.place.disk for one in found.found] == ["gone"]
    assert "runs without it" in found.found[0].reason
    assert {one.check: one.unknown for one in found.looked} == {
        Check.CONTAINERS: 1,
        Check.DISKS: 1,
        Check.UNKNOWN: 1,
    }
