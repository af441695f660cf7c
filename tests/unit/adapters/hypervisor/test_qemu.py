"""A start that fails leaves no process, whatever failed."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from pathlib import Path

import pytest

from korora.adapters.hypervisor import process
from korora.adapters.hypervisor.process import Spawned
from korora.adapters.hypervisor.qemu import Qemu
from korora.errors import ToolError
from korora.model.definition import parse_definition
from korora.ports.hypervisor import Place

VM = parse_definition('name = "tiny"\nmemory = "64M"\n[vtpm]\nenabled = false\n', "the test's VM")


def test_a_process_that_cannot_be_recorded_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spawned: list[Spawned] = []

    def noted(*given: object) -> Spawned:
        spawned.append(spawn(*given))  # type: ignore[arg-type]
        return spawned[-1]

    spawn = process.spawn
    monkeypatch.setattr(process, "spawn", noted)
    binary = tmp_path / "qemu"
    binary.write_text("#!/bin/sh\nexec sleep 60\n")
    binary.chmod(0o700)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)

    async def story() -> None:
        async with asyncio.timeout(60):
            with pytest.raises(ToolError) as caught:
                await Qemu(tmp_path, str(binary))._launched(VM, Place(tmp_path, None), incoming=True)
        assert caught.value.kind == "state-directory"
        assert "No space left" in caught.value.message
        assert [process.start_ticks(one.pid) for one in spawned] == [None]

    try:
        asyncio.run(story())
    finally:
        for one in spawned:
            if process.start_ticks(one.pid) == one.start_ticks:
                os.kill(one.pid, signal.SIGKILL)
