"""A store opens each tenant's part by itself."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from korora.adapters.store.shelf import Shelf
from korora.adapters.store.store import FolderStore
from korora.model.stored import Bounds, Scope, TenantName

WITHIN_S = 60.0
SLOW, QUICK = TenantName("slow"), TenantName("quick")


def test_a_tenant_whose_index_takes_long_to_open_keeps_no_other_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def opened(folder: Path, scope: Scope, *rest: Any) -> Shelf:
        if scope == Scope(SLOW):
            begun.set()
            assert go_on.wait(WITHIN_S)
        return Shelf(folder, scope, *rest)

    monkeypatch.setattr("korora.adapters.store.store.Shelf", opened)
    there = FolderStore(tmp_path, Bounds(1 << 20, 1 << 10))
    for tenant in (SLOW, QUICK):
        (tmp_path / Scope(tenant).folder).mkdir()

    def ask(tenant: TenantName) -> None:
        with there.pins(tenant, 1 << 20) as pins:
            assert pins.pin([bytes(32)]) == [False]
        ended.set()

    slow = threading.Thread(target=ask, args=[SLOW])
    slow.start()
    try:
        assert begun.wait(WITHIN_S)
        quick = threading.Thread(target=ask, args=[QUICK], daemon=True)
        quick.start()
        assert ended.wait(WITHIN_S / 6)
        quick.join(WITHIN_S)
    finally:
        go_on.set()
        slow.join(WITHIN_S)
    there.close()
    there.close()
