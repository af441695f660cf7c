"""While a VM's state is on its way its disks are not looked at, in whatever order QEMU tells of it."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from korora.adapters.hypervisor.qmp import Qmp
from korora.adapters.hypervisor.snapshot.drives import refuse_moving
from korora.errors import RefusedError


class Says:
    def __init__(self, stream: str, status: str) -> None:
        self._answers = {"query-migrate": {"status": stream}, "query-status": {"status": status}}

    async def execute(self, command: str) -> Any:
        return self._answers[command]


def refuse(stream: str, status: str) -> None:
    asyncio.run(refuse_moving(cast(Qmp, Says(stream, status))))


@pytest.mark.parametrize(
    ("stream", "status"),
    [
        ("active", "running"),
        ("completed", "finish-migrate"),
        ("completed", "postmigrate"),
        ("none", "inmigrate"),
    ],
)
def test_a_vm_that_leaves_or_comes_is_refused(stream: str, status: str) -> None:
    with pytest.raises(RefusedError) as refused:
        refuse(stream, status)
    assert refused.value.kind == "moving"


@pytest.mark.parametrize(
    ("stream", "status"), [("none", "running"), ("completed", "running"), ("failed", "postmigrate")]
)
def test_a_vm_that_is_here_is_not(stream: str, status: str) -> None:
    refuse(stream, status)
