"""A vTPM's key at rest: sealed to the host TPM, under its boot PCRs and a counter that only moves on.

Each start, each stop and each wipe moves the counter, so every copy of the sealed key that was made
before is worth nothing from then on, to Korora and to anybody else with this TPM. The sealed record names
the digest that the state file had at a clean stop.

Promise: at every instant, under any crash, exactly one stored copy unseals. While the counter moves, a
second copy sealed under a short-lived *bridge* counter carries the record across; removing the bridge
kills that copy for good (a TPM never starts a counter below one that it has removed: TCG TPM 2.0 part 1,
NV counters).
Limits: between a start and the stop that follows, and after a crash, the state file's content is not
bound: whoever can write it may put back an older file of the same run. The key is the same until the VM
moves or is wiped: whoever read it out of this host's memory can read every copy of the state made until
then. A TPM that was cleared, or PCRs 0 to 7 that changed (firmware, boot loader), make the state
unreadable: move the VM away before an update.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from korora.errors import RefusedError, ToolError
from korora.model.identity import Secret, VmName
from korora.ports.tpm import Tpm

BOOT_PCRS = tuple(range(8))
RUNNING = bytes(32)  # in place of a digest: the state file is changing

_MAGIC = b"KVK1"
_RECORD = struct.Struct(">4sIQ32s32s32s")  # 112 bytes; a TPM seals at most 128
_OWNER_INDICES = 0x01800000  # NV indices of the owner: 0x01800000 to 0x01bfffff
_CANDIDATES = 8


@dataclass(frozen=True, slots=True)
class Record:
    """What is sealed. `epoch` is the counter's value under which this record is the present one."""

    vm: VmName
    counter: int
    epoch: int
    key: Secret
    state: bytes  # SHA-256 of the state file at a clean stop, or RUNNING

    def encoded(self) -> Secret:
        name = hashlib.sha256(self.vm.encode()).digest()
        packed = _RECORD.pack(_MAGIC, self.counter, self.epoch, self.key.reveal(), self.state, name)
        return Secret(packed)


class KeyAtRest:
    """One VM's sealed key in its vTPM directory. Blocking; one caller at a time."""

    def __init__(self, tpm: Tpm, vm: VmName, directory: Path) -> None:
        self._tpm, self._vm = tpm, vm
        self._directory = directory
        self._sealed, self._bridge = directory / "sealed-key", directory / "sealed-key.next"
        self._allocation = directory / "counter"

    def exists(self) -> bool:
        return self._sealed.exists() or self._bridge.exists()

    def create(self, key: Secret) -> Record:
        """Allocate a counter and seal `key` for a TPM that runs from now on."""
        counter = self._allocated() or self._allocate()
        self._tpm.counter_create(counter)
        record = Record(self._vm, counter, self._tpm.counter_read(counter), key, RUNNING)
        self._store(self._sealed, record, counter)
        return record

    def open(self) -> Record:
        """The present record. RefusedError(kind="stale-epoch") when no stored copy is the present one."""
        counter = self._allocated()
        if counter is None:
            raise self._stale("the record of its counter is missing or names another VM's")
        now = self._value(counter)
        if now is None:
            raise self._stale("its counter is gone from this host's TPM: the vTPM was wiped or moved away")
        if (record := self._unsealed(self._sealed, counter, now)) is not None:
            self._drop_bridge(counter)
            return record
        # The daemon died while the counter moved: the bridge carries the record.
        bridged = self._value(_bridge_of(counter)) is not None
        if bridged and (record := self._unsealed(self._bridge, counter, now)) is not None:
            self._store(self._sealed, record, counter)
            self._drop_bridge(counter)
            return record
        raise self._stale(
            "it is an older copy, or this host's boot PCRs (0 to 7) are not those it was sealed under"
        )

    def advance(self, record: Record, state: bytes) -> Record:
        """Move the counter on and make `record`, with this state digest, the only one that unseals."""
        following = replace(record, epoch=record.epoch + 1, state=state)
        bridge = _bridge_of(record.counter)
        self._tpm.counter_create(bridge)
        self._store(self._bridge, following, bridge)
        reached = self._tpm.counter_increment(record.counter)
        if reached != following.epoch:
            raise ToolError(
                f"counter {record.counter:#x} went to {reached}, not {following.epoch}", kind="counter-moved"
            )
        self._store(self._sealed, following, record.counter)
        self._drop_bridge(record.counter)
        return following

    def destroy(self) -> bool:
        """Move the counter on and remove it, so that no copy anywhere unseals. False when there was none."""
        counter = self._allocated()
        if counter is None:
            return False
        present = [handle for handle in (counter, _bridge_of(counter)) if self._value(handle) is not None]
        for handle in present:
            self._tpm.counter_increment(handle)
            self._tpm.counter_remove(handle)
        return bool(present)

    def _unsealed(self, path: Path, counter: int, now: int) -> Record | None:
        """The record in one file if it is this VM's present one; None if it is not there, or stale."""
        try:
            sealed = path.read_bytes()
            packed = self._tpm.unseal(sealed).reveal()
            magic, named, epoch, key, state, name = _RECORD.unpack(packed)
        except (FileNotFoundError, RefusedError, struct.error):
            return None
        record = Record(self._vm, named, epoch, Secret(key), state)
        ours = magic == _MAGIC and name == hashlib.sha256(self._vm.encode()).digest()
        return record if ours and (named, epoch) == (counter, now) else None

    def _store(self, path: Path, record: Record, counter: int) -> None:
        """Seal under `counter` as it is now, and have it on disk before anything else happens."""
        write_durably(path, self._tpm.seal(record.encoded(), BOOT_PCRS, counter))

    def _drop_bridge(self, counter: int) -> None:
        if self._value(_bridge_of(counter)) is not None:
            self._tpm.counter_remove(_bridge_of(counter))
        self._bridge.unlink(missing_ok=True)

    def _allocate(self) -> int:
        """An index derived from the VM's name that nobody uses; on disk before the TPM knows it."""
        for counter in _candidates(self._vm):
            if self._value(counter) is None:
                write_durably(self._allocation, json.dumps({"counter": counter}).encode())
                return counter
        raise ToolError(
            f"no free NV index for the counter of {self._vm}",
            kind="no-counter",
            remedy="remove NV counters of VMs that are gone (tpm2_nvundefine)",
        )

    def _allocated(self) -> int | None:
        """The recorded index, if this VM's name leads to it: a forged record cannot name another VM's."""
        try:
            counter = json.loads(self._allocation.read_bytes())["counter"]
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
        return counter if counter in list(_candidates(self._vm)) else None

    def _value(self, counter: int) -> int | None:
        """None when the index is not defined; ToolError when the TPM does not answer at all."""
        try:
            return self._tpm.counter_read(counter)
        except ToolError:
            self._tpm.read_pcrs([0])
            return None

    def _stale(self, why: str) -> RefusedError:
        return RefusedError(
            f"the vTPM of {self._vm} cannot be started here: {why}",
            kind="stale-epoch",
            remedy="start the VM where it moved to; if this host's firmware was changed, boot the former"
            " firmware and move the VM away first",
        )


def write_durably(path: Path, content: bytes) -> None:
    """Replace `path` (0600) as a whole; on stable storage when this returns."""
    fresh = path.with_name(path.name + ".fresh")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _candidates(vm: VmName) -> Iterator[int]:
    """Even indices, in the order in which they are tried; each one's odd neighbour is its bridge."""
    for attempt in range(_CANDIDATES):
        digest = hashlib.sha256(b"korora/1 vtpm counter\0" + bytes([attempt]) + vm.encode()).digest()
        yield _OWNER_INDICES | int.from_bytes(digest[:4], "big") & 0x3FFFFE


def _bridge_of(counter: int) -> int:
    return counter | 1
