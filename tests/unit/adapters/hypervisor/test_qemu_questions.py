"""What QEMU is asked by others is done a little at a time."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from korora.adapters.hypervisor import qemu
from korora.adapters.hypervisor.probe import facts
from korora.adapters.hypervisor.qemu import Qemu
from korora.model.definition import parse_definition
from korora.model.vm import VmDefinition

VM = parse_definition('name = "web"\nmemory = "16M"\n')


def test_however_many_ask_for_cpu_features_few_guests_are_made_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another host chooses the CPU, so no cache holds the answers to all."""
    living, most = 0, 0

    async def made(_binary: str, _cache: object, _asked: VmDefinition) -> dict[str, bool]:
        nonlocal living, most
        living += 1
        most = max(most, living)
        for _ in range(5):
            await asyncio.sleep(0)
        living -= 1
        return {}

    async def as_it_is(_qemu: Qemu, asked: VmDefinition) -> VmDefinition:
        return asked

    monkeypatch.setattr(facts, "cpu_features", made)
    monkeypatch.setattr(Qemu, "pinned", as_it_is)

    async def story() -> None:
        here = Qemu(tmp_path)
        await asyncio.gather(
            *(here.cpu_features(replace(VM, cpu_model=f"qemu64,+f{number}")) for number in range(9))
        )

    asyncio.run(story())
    assert most == qemu.GUESTS_TRIED_AT_ONCE
