"""A destination that runs full in the middle of a disk: told, whoever copies, and the guest runs on."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from fakes import counting_guest
from fakes.two_qemus import MIB, agree, two_hosts, until
from korora.adapters.hypervisor.disks import overlay
from korora.adapters.image.qemu_nbd import QemuImages
from korora.errors import ToolError
from korora.migration.crossing.disks.manner import MIRRORED, Manner
from korora.migration.crossing.disks.outgoing import DisksOut
from korora.ports.clock import SystemClock

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts"),
]


class Relay:
    """The disks are reached directly."""

    def start(self) -> None: ...

    def abort(self, why: str) -> None: ...

    async def finished(self) -> Any:
        await asyncio.Event().wait()


async def quiet(_: Any) -> None: ...


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """Where the disks are to arrive: all of the first finds room there, and not all of the second."""
    folder = tmp_path / "there"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "none", str(folder)], check=True, timeout=60)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True, timeout=60)


@pytest.mark.parametrize("how", ["mirrored", "copied", "outsourced"])
def test_a_destination_that_runs_full_ends_the_move_and_everything_is_as_it_was(
    tmp_path: Path, small: Path, how: str
) -> None:
    async def story() -> None:
        async with two_hosts(tmp_path) as (here, there):
            before = await here.graph()
            await there.disks.receive()
            relays = {name: (cast(Any, Relay()), there.disks.socket) for name in here.disks.sizes}
            out = DisksOut(here.disks, relays, QemuImages(), SystemClock())
            manner = {"mirrored": MIRRORED, "copied": Manner(mirrored=False)}.get(
                how, Manner(mirrored=False, replacement=here.base)
            )
            with pytest.raises(ToolError) as failed:
                await out.copy(manner, quiet)
            assert failed.value.kind == "mirror-failed"
            assert "room for it at the destination" in failed.value.remedy
            await out.abandon("there is no room there")
            assert await here.graph() == before
            assert not list(here.base.glob("korora-*"))
            assert not (here.base / overlay.RECORD).exists()
            now = counting_guest.counted(here.base / "b")
            await until(lambda: counting_guest.counted(here.base / "b") > now + 10)
            await agree(here)
            assert (here.base / "b").stat().st_size == 3 * MIB

    asyncio.run(story())
