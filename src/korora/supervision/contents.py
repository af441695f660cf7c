"""A host's content store as moves use it: asked for the VMs of each tenant, and told what has arrived (W4).

Promise: what was learnt of one tenant's disks is found for that tenant's VMs alone. Learning is done by one
thread that gives way to others; what it cannot do it says in the daemon's log, and nothing else suffers.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from korora.errors import KororaError
from korora.model.identity import VmName
from korora.model.store_settings import StoreSettings
from korora.model.stored import SHARED, Added, Scope, Trouble
from korora.ports.content_store import ContentStore, Pins

Refer = Callable[[ContentStore, Scope, Path, Callable[[object], None]], Added]
"""Names what a file holds, and says now and then that it goes on."""
_NICE: Final = 10
_ENDS_WITHIN_S: Final = 30.0
log = structlog.get_logger("korora.store")


class _StoppedError(Exception):
    """Of this thread's own, and met there."""


@dataclass(frozen=True, slots=True)
class _Arrived:
    vm: VmName
    scope: Scope
    path: Path


class StoreContents:
    """Implements `ports.contents.Contents`. To be closed."""

    def __init__(self, settings: StoreSettings, open_: Callable[[], ContentStore], refer: Refer) -> None:
        self._settings = settings
        self._open = open_
        self._refer = refer
        self._store: ContentStore | None = None
        self._lock = threading.Lock()
        self._arrived: queue.SimpleQueue[_Arrived | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._enough = threading.Event()

    def shares(self, vm: VmName) -> bool:
        if not self._settings.session_bytes or not self._settings.folder.is_dir():
            return False
        try:
            return any(self._opened().origins(scope) for scope in self._scopes(vm))
        except KororaError as error:
            log.warning("content store", kind=error.kind, problem=error.message)
            return False

    @contextmanager
    def pins(self, vm: VmName) -> Iterator[Pins]:
        tenant = self._settings.tenant_of(vm)
        with self._opened().pins(tenant, self._settings.session_bytes) as pins:
            yield pins
            for one in pins.found():
                say = log.warning if one.trouble is Trouble.ROTTED else log.info
                say("content store", scope=str(one.scope), trouble=one.trouble, what=one.what)

    def learn(self, vm: VmName, disks: Sequence[Path]) -> None:
        tenant = self._settings.tenant_of(vm)
        if tenant is None or not self._settings.session_bytes or self._enough.is_set():
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._go_on_learning, name="learning", daemon=True)
            self._thread.start()
        for path in disks:
            self._arrived.put(_Arrived(vm, Scope(tenant), path))

    def close(self) -> None:
        """What was not learnt by then is not."""
        self._enough.set()
        self._arrived.put(None)
        if self._thread is not None:
            self._thread.join(_ENDS_WITHIN_S)
        with self._lock:
            if self._store is not None:
                self._store.close()
            self._store = None

    def _scopes(self, vm: VmName) -> list[Scope]:
        tenant = self._settings.tenant_of(vm)
        return [*([] if tenant is None else [Scope(tenant)]), SHARED]

    def _opened(self) -> ContentStore:
        with self._lock:
            if self._store is None:
                self._store = self._open()
            return self._store

    def _go_on_learning(self) -> None:
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        while (one := self._arrived.get()) is not None and not self._enough.is_set():
            try:
                added = self._refer(self._opened(), one.scope, one.path, self._tell)
                log.info("learnt", vm=one.vm, scope=str(one.scope), disk=str(one.path), parts=added.entries)
            except _StoppedError:
                return
            except KororaError as error:
                log.warning("not learnt", vm=one.vm, disk=str(one.path), kind=error.kind, why=error.message)
            except Exception:  # who learns must not end unseen
                log.exception("not learnt", vm=one.vm, disk=str(one.path))

    def _tell(self, _: object) -> None:
        if self._enough.is_set():
            raise _StoppedError
