"""Stories of two and three hosts in one event loop, told fast: what waits, waits less here."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from fakes.migration_site import Site, Story, Tell
from korora.migration.crossing import inbound, outbound, vigil
from korora.supervision import recovery


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(vigil, "_MOMENT_S", 0.05)
    monkeypatch.setattr(inbound, "_REASON_S", 0.05)
    monkeypatch.setattr(outbound, "_REASON_S", 0.05)
    monkeypatch.setattr(recovery, "RETRY_S", 0.002)
    monkeypatch.setattr(recovery, "LATER_RETRY_S", 0.01)
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    yield
    structlog.configure(**before)


@pytest.fixture
def tell(tmp_path: Path) -> Tell:
    """Run a story on a fresh site of hosts a and b, with the VM running on a."""

    stories = itertools.count()

    def told(story: Story, *, hosts: str = "ab") -> None:
        async def play() -> None:
            site = Site(tmp_path / str(next(stories)), hosts)
            try:
                await site.start()
                await story(site)
            finally:
                await site.stop()

        asyncio.run(play())

    return told
