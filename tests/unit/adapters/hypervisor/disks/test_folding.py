"""A fold back that the disk's storage does not take, or that the guest outruns: nothing is lost."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from fakes import counting_guest
from fakes.two_qemus import Host, agree, two_hosts, until
from korora.adapters.hypervisor.disks import outsourcing, overlay
from korora.adapters.hypervisor.disks.folding import fold_back
from korora.adapters.hypervisor.disks.intruders import Intruders
from korora.adapters.hypervisor.qmp import Qmp
from korora.adapters.hypervisor.snapshot.graph import standing_still
from korora.errors import ToolError

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed"),
    pytest.mark.skipif(shutil.which("nbdkit") is None, reason="nbdkit is not installed"),
]
WITHIN_S = 60.0


@pytest.fixture(autouse=True)
def _nbdkit_is_the_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nobody who meddles with it."""
    monkeypatch.setattr(Intruders, "watch", lambda *_: None)


@contextmanager
def stored(base: Path, *words: str) -> Iterator[dict[str, str]]:
    """The second disk of `here` behind nbdkit with these words."""
    (base / "here").mkdir()
    (base / "here" / "b").touch()
    socket = base / "nbd"
    ready = base / "nbd.pid"
    command = ["nbdkit", "--foreground", "--exit-with-parent", "--unix", str(socket), "--pidfile", str(ready)]
    process = subprocess.Popen([*command, *words])
    try:
        limit = time.monotonic() + WITHIN_S
        while not ready.exists():
            assert process.poll() is None
            assert time.monotonic() < limit
            time.sleep(0.01)
        yield {"b": f"file.driver=nbd,file.server.type=unix,file.server.path={socket}"}
    finally:
        process.kill()
        process.wait()


@asynccontextmanager
async def outsourced(base: Path, below: dict[str, str]) -> AsyncIterator[Host]:
    """It runs on its own disks again at the end, and both have all that was written."""
    async with two_hosts(base, below=below) as (here, _):
        before = await here.graph()
        for name in here.disks.sizes:
            await here.disks.outsource(name, here.base)
        await asyncio.sleep(0.2)
        yield here
        assert await here.graph() == before
        assert not list(here.base.glob("korora-*"))
        assert not (here.base / overlay.RECORD).exists()
        now = counting_guest.counted(here.base / "b")
        await until(lambda: counting_guest.counted(here.base / "b") > now + 10)
        await agree(here)


async def writes_on(here: Host) -> None:
    async def written() -> int:
        stats = await here.qmp.execute("query-blockstats")
        return sum(int(one["stats"]["wr_operations"]) for one in stats)

    assert (await here.qmp.execute("query-status"))["status"] == "running"
    before = await written()
    while await written() < before + 20:  # noqa: ASYNC110  a guest tells nobody
        await asyncio.sleep(0.02)


@pytest.mark.parametrize(("error", "words"), [("ENOSPC", "No space left"), ("EIO", "Input/output error")])
def test_storage_that_takes_nothing_is_told_and_a_later_daemon_finishes_it(
    tmp_path: Path, error: str, words: str
) -> None:
    fails = tmp_path / "fails"
    filtered = ["--filter=error", "file", str(tmp_path / "here" / "b"), f"error-pwrite={error}"]

    async def story(below: dict[str, str]) -> None:
        async with outsourced(tmp_path, below) as here:
            fails.touch()
            for _ in range(2):
                with pytest.raises(ToolError, match=words) as failed:
                    await fold_back(here.qmp, here.base)
                assert failed.value.kind == "not-folded-back"
                assert "nothing is lost" in failed.value.remedy
                assert all(entry.used for entry in overlay.outsourced(here.base))
                await writes_on(here)
            await here.qmp.close()
            fails.unlink()
            here.qmp = await Qmp.connect(here.base / "qmp", WITHIN_S)
            await fold_back(here.qmp, here.base)

    with stored(tmp_path, *filtered, "error-pwrite-rate=100%", f"error-file={fails}") as below:
        asyncio.run(story(below))


def test_a_guest_that_writes_faster_than_it_is_folded_back_stands_still_for_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outsourcing, "_SLACK_BYTES", 0)
    slow = ["--filter=delay", "file", str(tmp_path / "here" / "b"), "delay-write=200ms"]
    stood: list[bool] = []

    @asynccontextmanager
    async def counted(qmp: Qmp) -> AsyncIterator[bool]:
        async with standing_still(qmp) as ran:
            stood.append(ran)
            yield ran

    monkeypatch.setattr(outsourcing, "standing_still", counted)

    async def story(below: dict[str, str]) -> None:
        async with outsourced(tmp_path, below) as here:
            await here.disks.end()
            assert stood == [True]

    with stored(tmp_path, *slow) as below:
        asyncio.run(story(below))
