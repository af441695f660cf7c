"""What has come is found for the VMs of its tenant and nobody else's; a store that fails fails nobody."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from korora.adapters.store.store import FolderStore
from korora.model.identity import VmName
from korora.model.store_settings import StoreSettings
from korora.model.stored import SHARED, Added, Scope, TenantName
from korora.protocol.content_tree import CHUNK_BYTES
from korora.protocol.dedup.names import UNIT_BYTES, name_of
from korora.supervision.contents import Refer, StoreContents
from korora.wiring.content_store import refer

NOISE = random.Random(8).randbytes(2 * CHUNK_BYTES)
RED, BLUE = TenantName("red"), TenantName("blue")
WITHIN_S = 60.0


def settings(folder: Path, **more: object) -> StoreSettings:
    tenants = {RED: ("red-*",), BLUE: ("blue-*",)}
    return StoreSettings(folder / "store", tenants=tenants, **more)  # type: ignore[arg-type]


@contextmanager
def opened(told: StoreSettings, refer: Refer = refer) -> Iterator[StoreContents]:
    made = StoreContents(told, lambda: FolderStore(told.folder, told.bounds), refer)
    try:
        yield made
    finally:
        made.close()


def until(holds: Callable[[], bool]) -> None:
    limit = time.monotonic() + WITHIN_S
    while not holds():
        assert time.monotonic() < limit
        time.sleep(0.02)


def learnt(there: StoreContents) -> None:
    """Parts are found as soon as they were named: the last one comes last."""
    until(lambda: has(there, "red-1", NOISE[-UNIT_BYTES:]))


def image(folder: Path, content: bytes = NOISE) -> Path:
    path = folder / "disk.raw"
    path.write_bytes(content)
    return path


def has(there: StoreContents, vm: str, part: bytes = NOISE[:UNIT_BYTES]) -> bool:
    with there.pins(VmName(vm)) as pins:
        return pins.pin([name_of(part)]) == [True]


def test_what_arrived_is_found_for_its_tenants_vms_alone(tmp_path: Path) -> None:
    with opened(settings(tmp_path)) as there:
        assert not there.shares(VmName("red-1"))
        there.learn(VmName("red-1"), [image(tmp_path)])
        learnt(there)
        assert there.shares(VmName("red-2"))
        assert has(there, "red-2")
        assert has(there, "red-2", NOISE[:CHUNK_BYTES])
        for other in ("blue-1", "nobodys"):
            assert not there.shares(VmName(other))
            assert not has(there, other)


def test_what_is_shared_is_found_for_everybody(tmp_path: Path) -> None:
    told = settings(tmp_path)
    store = FolderStore(told.folder, told.bounds)
    store.keep(SHARED, Path("template"), [NOISE[:CHUNK_BYTES]])
    store.close()
    with opened(told) as there:
        for vm in ("red-1", "blue-1", "nobodys"):
            assert there.shares(VmName(vm))
            assert has(there, vm)


@pytest.mark.parametrize("why", ["nobody's", "turned off", "closed"])
def test_nothing_is_learnt_of_a_vm_that_is_nobodys_or_where_it_is_turned_off(
    tmp_path: Path, why: str
) -> None:
    told = settings(tmp_path, session_bytes=0 if why == "turned off" else 1 << 20)
    with opened(told) as there:
        if why == "closed":
            there.close()
        there.learn(VmName("nobodys" if why == "nobody's" else "red-1"), [image(tmp_path)])
        assert there._thread is None
        assert not there.shares(VmName("red-1"))
        assert not told.folder.exists()


def test_what_cannot_be_learnt_keeps_nothing_else_from_it(tmp_path: Path) -> None:
    with opened(settings(tmp_path)) as there:
        there.learn(VmName("red-1"), [tmp_path / "gone.raw", image(tmp_path)])
        until(lambda: there.shares(VmName("red-1")))


@pytest.mark.parametrize("removed", ["store", "store/tenant-red"])
def test_a_store_may_be_removed_under_the_daemon_and_what_comes_then_is_learnt(
    tmp_path: Path, removed: str
) -> None:
    with opened(settings(tmp_path)) as there:
        there.learn(VmName("red-1"), [image(tmp_path)])
        learnt(there)
        shutil.rmtree(tmp_path / removed)
        assert not there.shares(VmName("red-1"))
        there.learn(VmName("red-1"), [image(tmp_path)])
        learnt(there)
        assert there.shares(VmName("red-1"))


def test_a_store_that_cannot_be_had_shares_nothing(tmp_path: Path) -> None:
    told = settings(tmp_path)
    (told.folder / "tenant-red").mkdir(parents=True)
    (told.folder / "tenant-red" / "index.db").mkdir()
    with opened(told) as there:
        assert not there.shares(VmName("red-1"))


def test_what_is_shared_and_cannot_be_had_keeps_no_tenant_from_its_own(tmp_path: Path) -> None:
    told = settings(tmp_path)
    with opened(told) as there:
        there.learn(VmName("red-1"), [image(tmp_path)])
        learnt(there)
        there.close()
    (told.folder / "shared" / "index.db").mkdir(parents=True)
    with opened(told) as there:
        assert there.shares(VmName("red-1"))
        assert has(there, "red-1")


def test_closing_ends_what_is_being_learnt(tmp_path: Path) -> None:
    begun: list[Scope] = []

    def endless(_: object, scope: Scope, __: Path, tell: Callable[[object], None]) -> Added:
        begun.append(scope)
        while True:
            tell(None)
            time.sleep(0.01)

    with opened(settings(tmp_path), endless) as there:
        there.learn(VmName("red-1"), [image(tmp_path)] * 2)
        until(lambda: bool(begun))
        there.close()
        assert there._thread is not None
        assert not there._thread.is_alive()
    assert begun == [Scope(RED)]


def test_what_changed_since_is_not_found_any_more(tmp_path: Path) -> None:
    with opened(settings(tmp_path)) as there:
        path = image(tmp_path)
        there.learn(VmName("red-1"), [path])
        learnt(there)
        with path.open("r+b") as file:
            file.write(bytes(UNIT_BYTES))
        assert not has(there, "red-1")
        assert has(there, "red-1", NOISE[UNIT_BYTES : 2 * UNIT_BYTES])
