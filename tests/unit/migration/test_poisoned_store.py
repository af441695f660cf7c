"""A whole move to a host whose content store, on its disk, has the right names and other contents."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from fakes.migration_site import LabHost, Site, Tell
from korora.adapters.image.qemu_nbd import QemuImages
from korora.adapters.store.store import FolderStore
from korora.agents.integrity.disks.content import digest
from korora.model.definition import parse_definition
from korora.model.identity import VmName
from korora.model.image import Format, ImageFiles
from korora.model.storage import ALL, DisksAsked, StorageMode
from korora.model.store_settings import StoreSettings
from korora.model.stored import Scope, Stat, TenantName
from korora.protocol import canonical, dsse, statements
from korora.protocol.content_tree import CHUNK_BYTES
from korora.protocol.dedup.names import name_of
from korora.protocol.receipt import document
from korora.supervision.contents import StoreContents
from korora.wiring.content_store import refer

STORE = VmName("store")
MEMORY = 1 << 20  # what the fake guest has to send beside its disk
ONE = TenantName("one")
SCOPE = Scope(ONE)
CONTENT = random.Random(4).randbytes(4 * CHUNK_BYTES) + bytes(CHUNK_BYTES)
CHUNKS = [CONTENT[at : at + CHUNK_BYTES] for at in range(0, 4 * CHUNK_BYTES, CHUNK_BYTES)]
POISONED = CHUNKS[2]
POISON = {
    "another chunk's": CHUNKS[0],
    "a bit": POISONED[:99] + bytes([POISONED[99] ^ 1]) + POISONED[100:],
    "cut short": POISONED[:-1],
}


def settings(host: LabHost) -> StoreSettings:
    return StoreSettings(host.directory / "store", tenants={ONE: (STORE,)})


@asynccontextmanager
async def with_a_store(host: LabHost) -> AsyncIterator[FolderStore]:
    """On the host's disk, with all chunks of the VM's disk; the host's daemon uses it, as another process
    would."""
    told = settings(host)
    contents = StoreContents(told, lambda: FolderStore(told.folder, told.bounds), refer)
    await host.crash()
    host.contents = cast(Any, contents)
    await host.start()
    store = FolderStore(told.folder, told.bounds)
    store.keep(SCOPE, Path("an earlier one"), CHUNKS)
    try:
        yield store
    finally:
        store.close()
        contents.close()


def copy_of(chunk: bytes, host: LabHost) -> Path:
    name = name_of(chunk).hex()
    return host.directory / "store" / SCOPE.folder / name[:2] / name


async def run(site: Site) -> Path:
    disk = site["a"].directory / "root.raw"
    disk.write_bytes(CONTENT)
    text = f'name = "{STORE}"\nmemory = "16M"\n[[disks]]\nname = "root"\npath = "{disk}"\n'
    await site["a"].do(lambda: site["a"].guests.run(text))
    return disk


async def moved(site: Site, how: StorageMode) -> document.Receipt:
    envelope = site.request("a", "b", vm=STORE, disks=DisksAsked((ALL,), storage_mode=how))
    migrations = site["a"].migrations
    name = await site["a"].do(lambda: migrations.begin(envelope, None))
    outcome: Any = await site.follow("a", name)
    assert outcome["outcome"] == "completed", outcome["error"]
    await site.recover()
    filed = (site["b"].directory / "receipts" / f"{outcome['session']}.json").read_bytes()
    return document.peek(bytes(document.parse_bundle(filed).receipt))


def says_what_is_so(told: document.Receipt, there: Path) -> int:
    """Both hosts, of a disk that is as it was. The bytes that crossed."""
    manifest = canonical.decoded(dsse.parse(told.ownership.manifest).payload, statements.Manifest)
    accept = canonical.decoded(dsse.parse(told.ownership.accept).payload, statements.Accept)
    with QemuImages().open(ImageFiles(there, Format.RAW)) as image:
        root = digest(image, lambda _: None)
    for disks in (manifest.disks, accept.disks):
        [disk] = statements.read_disks(disks)
        assert (disk.name, disk.size, disk.root) == ("root", len(CONTENT), root)
    assert not statements.differences(manifest.carried, accept.carried)
    return manifest.carried.payload_bytes


def counted(store: FolderStore) -> Stat:
    [stat] = store.stat()
    return stat


@pytest.mark.parametrize("how", [StorageMode.AUTO, StorageMode.OUTSOURCE])
@pytest.mark.parametrize("poison", POISON)
def test_a_rotten_chunk_is_sent_again_and_goes_and_the_disk_and_the_receipt_are_right(
    tell: Tell, poison: str, how: StorageMode
) -> None:
    async def story(site: Site) -> None:
        async with with_a_store(site["b"]) as store:
            await run(site)
            rotten = copy_of(POISONED, site["b"])
            rotten.write_bytes(POISON[poison])
            told = await moved(site, how)
            [disk] = parse_definition(site["b"].disk.vms[STORE].definition).disks
            assert Path(disk.path).read_bytes() == CONTENT
            sent = says_what_is_so(told, Path(disk.path))
            assert (
                MEMORY + CHUNK_BYTES < sent < MEMORY + 2 * CHUNK_BYTES
            )  # that chunk, and none of the others
            assert not rotten.exists() or name_of(rotten.read_bytes()) == name_of(POISONED)
            assert counted(store).rotted == 1
            assert all(copy_of(one, site["b"]).read_bytes() == one for one in CHUNKS if one != POISONED)

    tell(story)


def test_of_a_sound_store_nothing_is_sent_again(tell: Tell) -> None:
    async def story(site: Site) -> None:
        async with with_a_store(site["b"]) as store:
            await run(site)
            told = await moved(site, StorageMode.AUTO)
            [disk] = parse_definition(site["b"].disk.vms[STORE].definition).disks
            assert Path(disk.path).read_bytes() == CONTENT
            assert says_what_is_so(told, Path(disk.path)) < MEMORY + CHUNK_BYTES // 2
            assert counted(store).rotted == 0

    tell(story)
