"""What was kept for long enough is wiped, and the daemon's log says so; whatever fails is tried again."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from korora.adapters.premises import kept as kept_module
from korora.adapters.premises.kept import LocalKeptDisks
from korora.adapters.premises.wiping import wiped
from korora.model.configuration import KeptBounds
from korora.model.kept import KeptDisk
from korora.supervision import kept as supervision
from korora.supervision.kept import KeptExpiry

DAY_S = 86_400


class Clock:
    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


@pytest.fixture
def kept(tmp_path: Path) -> LocalKeptDisks:
    made = LocalKeptDisks(tmp_path / "kept")
    for vm, name, at in (("web", "root", 0), ("web", "data", 5), ("db", "disk0", 9)):
        disk = tmp_path / "disk.raw"
        disk.write_bytes(f"{vm} {name}".encode() * 1000)
        record = KeptDisk(
            vm=vm, uuid="u", name=name, format="raw", size=9, root="", to="b", at=at * DAY_S, used=0
        )
        asyncio.run(made.keep(record, disk))
    return made


def there(kept: LocalKeptDisks) -> list[tuple[str, str]]:
    return [(one.vm, one.name) for one in kept.all()]


def looked(expiry: KeptExpiry) -> list[Any]:
    with capture_logs() as told:
        asyncio.run(expiry.look())
    return told


def test_each_disk_is_wiped_when_its_time_is_over_and_the_log_says_how(kept: LocalKeptDisks) -> None:
    clock = Clock()
    expiry = KeptExpiry(kept, clock, KeptBounds(days=30))
    clock.time = 30 * DAY_S - 1
    assert looked(expiry) == []
    clock.time = 30 * DAY_S
    (said,) = looked(expiry)
    assert (said["event"], said["vm"], said["disk"]) == ("a kept disk is wiped", "web", "root")
    assert (said["why"], said["verified"], said["bytes"]) == ("kept for 30 days", True, 8000)
    assert "overwritten" in said["method"]
    assert there(kept) == [("db", "disk0"), ("web", "data")]
    assert looked(expiry) == []


def test_what_a_crash_cut_short_is_finished(kept: LocalKeptDisks, tmp_path: Path) -> None:
    image = tmp_path / "kept" / "db" / "disk0.image"
    image.rename(image.with_suffix(".wiped"))
    (said,) = looked(KeptExpiry(kept, Clock(), KeptBounds(days=30)))
    assert (said["what"], said["verified"]) == (str(image), True)
    assert not image.parent.exists()


def test_one_that_cannot_be_wiped_is_told_of_and_keeps_no_other(
    kept: LocalKeptDisks, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    clock.time = 1000.0 * DAY_S

    def fails(path: Path) -> Any:
        if path.parent.name == "db":
            raise OSError(errno.EIO, "the storage fails")
        return wiped(path)

    expiry = KeptExpiry(kept, clock, KeptBounds(days=30))
    with monkeypatch.context() as broken:
        broken.setattr(kept_module, "wiped", fails)
        said = looked(expiry)
    assert [(one["log_level"], one["vm"]) for one in said] == [
        ("info", "web"),
        ("info", "web"),
        ("warning", "db"),
    ]
    assert said[-1]["reason"] == "the storage fails"
    assert there(kept) == [("db", "disk0")]
    assert [one["vm"] for one in looked(expiry)] == ["db"]


def test_it_looks_by_itself_again_and_again_until_it_is_stopped(
    kept: LocalKeptDisks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "LOOK_S", 0.01)
    clock = Clock()

    async def story() -> None:
        expiry = KeptExpiry(kept, clock, KeptBounds(days=30))
        await expiry.start()
        for time, left in ((36.0, 1), (39.0, 0)):
            clock.time = time * DAY_S
            async with asyncio.timeout(60):
                while len(kept.all()) > left:  # noqa: ASYNC110  nobody tells
                    await asyncio.sleep(0.01)
        await expiry.stop()

    asyncio.run(story())
    assert there(kept) == []


def test_one_that_was_never_started_can_be_stopped(kept: LocalKeptDisks) -> None:
    asyncio.run(KeptExpiry(kept, Clock(), KeptBounds()).stop())
