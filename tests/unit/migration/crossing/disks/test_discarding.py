"""A guest that discards and writes zeros while its disk is copied: the same there, and sparse where it is.

What a guest asks is asked of the device's own backend, by QEMU's own `qemu-io`: it goes the way that a
driver's request goes from there.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, cast

import pytest

from fakes.two_qemus import MIB, Host, digest_of, two_hosts
from korora.adapters.image.qemu_nbd import QemuImages
from korora.migration.crossing.disks.manner import Manner
from korora.migration.crossing.disks.measuring import Measuring
from korora.migration.crossing.disks.outgoing import DisksOut
from korora.ports.clock import SystemClock

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed"),
]
CAP_BYTES_PER_S = 12 * MIB  # so that the guest asks for something before all is copied
WRITTEN = "write -P 0xa5 8M 32M"
MEANWHILE = ["discard 8M 2M", "discard 38M 2M", "write -z -u 12M 1M", "write -z 14M 1M", "write -z -u 36M 1M"]
LATER = ["discard 20M 2M", "write -z -u 24M 2M", "write -P 7 24M 64k", "discard 28M 4k", "write -z 30M 4k"]
UNMAPPED = {8, 9, 12, 20, 21, 25, 36, 38, 39}
NEVER_WRITTEN = {*range(3, 8), *range(40, 64)}


class Relay:
    """The disks are reached directly."""

    def start(self) -> None: ...

    def abort(self, why: str) -> None: ...

    async def finished(self) -> Any:
        return None


async def asks(guest: Host, *requests: str) -> None:
    for request in requests:
        words = f'qemu-io -d /machine/peripheral/b/virtio-backend "{request}"'
        await guest.qmp.execute("human-monitor-command", {"command-line": words})
    done = (guest.base / "log").read_text().split("bytes at offset")
    assert len(done) > len(requests), done


def holes(path: Path, form: str) -> set[int]:
    """Of which MiB nothing at all is kept."""
    words = ["qemu-img", "map", "-U", "--output=json", "-f", form, str(path)]
    told = subprocess.run(words, check=True, capture_output=True, timeout=60)
    kept: set[int] = set()
    for extent in json.loads(told.stdout):
        if extent["data"]:
            first, end = extent["start"] // MIB, extent["start"] + extent["length"]
            kept.update(range(first, -(-end // MIB)))
    return set(range(64)) - kept


@pytest.mark.parametrize("form", ["raw", "qcow2"])
@pytest.mark.parametrize("how", ["mirrored", "copied", "outsourced"])
def test_what_a_guest_discards_or_zeroes_meanwhile_is_the_same_there_and_as_sparse(
    tmp_path: Path, how: str, form: str
) -> None:
    async def story() -> None:
        async with two_hosts(tmp_path, form, size=64 * MIB) as (here, there):
            await asks(here, WRITTEN)
            await there.disks.receive()
            relays = {name: (cast(Any, Relay()), there.disks.socket) for name in here.disks.sizes}
            out = DisksOut(here.disks, relays, QemuImages(), SystemClock())
            theirs = Measuring(there.disks, QemuImages())
            where = here.base if how == "outsourced" else None
            manner = Manner(how == "mirrored", where, cap_bytes_per_s=CAP_BYTES_PER_S)
            seen: list[int] = []

            async def meanwhile(reading: Any) -> None:
                if not seen and reading.sent_bytes > 6 * MIB:
                    await asks(here, *MEANWHILE)
                    seen.append(reading.remaining_bytes)

            await out.copy(manner, meanwhile)
            [remained] = seen
            assert remained > 0
            await out.settle()
            await theirs.settle()
            theirs.keep()
            await asks(here, *LATER)
            await here.qmp.execute("stop")
            told = (await out.cut()).contents
            assert await theirs.contents() == told
            await there.disks.end()
            await out.abandon("the test is over")  # what was outsourced is folded back
            roots = {one.name: one.root for one in told}
        assert digest_of(here.base / "b", "raw") == digest_of(there.base / "b", form) == roots["b"]
        # QEMU 7.2 drops what is discarded on its way through a mirror, and unmaps nothing for zeros.
        sparse = NEVER_WRITTEN | (set() if how == "mirrored" else UNMAPPED)
        assert sparse <= holes(here.base / "b", "raw")
        assert sparse <= holes(there.base / "b", form)

    asyncio.run(story())
