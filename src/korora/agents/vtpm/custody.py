"""Custody of all vTPMs of one host (A1): made, started, found again, put to rest and wiped.

Promise: the state at rest is encrypted under a key that only this host's TPM gives out, in its attested
boot state, and only for the newest copy (`at_rest`); a vTPM never runs without its interposer, and never
twice on this host; a vTPM that ought to be there and is not is an error, never silently made anew.
Limits: those of `at_rest`; whoever is root on this host while the VM runs can read the vTPM's memory.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import threading
from collections import defaultdict
from pathlib import Path

from korora.agents.vtpm import erasure, processes
from korora.agents.vtpm.at_rest import RUNNING, KeyAtRest, write_durably
from korora.agents.vtpm.home import VtpmHome, end, launch
from korora.agents.vtpm.live import LiveVtpm
from korora.agents.vtpm.porter import Porter, RestingState
from korora.errors import KororaError, RefusedError
from korora.model.evidence import WipeStep
from korora.model.identity import Secret, VmName
from korora.ports.tpm import Tpm
from korora.ports.vtpm import BlobBinding, Rested
from korora.ports.vtpm_emulator import VtpmEmulator

_KEY_BYTES = 32


class Custody:
    """A `korora.ports.vtpm.VtpmAgent`. Blocking work runs off the event loop, one thing at a time per VM."""

    def __init__(self, tpm: Tpm, emulator: VtpmEmulator) -> None:
        self._tpm, self._emulator = tpm, emulator
        self._busy: defaultdict[VmName, threading.Lock] = defaultdict(threading.Lock)

    async def start(self, vm: VmName, directory: Path) -> LiveVtpm:
        """On failure nothing runs. RefusedError also with kind "vtpm-lost" and "vtpm-running"."""
        live = await asyncio.to_thread(self._start, vm, VtpmHome(directory))
        try:
            await live.ready()
        except BaseException:
            await asyncio.to_thread(end, VtpmHome(directory))
            raise
        return live

    async def start_incoming(self, vm: VmName, directory: Path) -> LiveVtpm:
        """RefusedError(kind="vtpm-present") when this host already holds a vTPM of that name."""
        return await asyncio.to_thread(self._start_incoming, vm, VtpmHome(directory))

    async def attach(self, vm: VmName, directory: Path) -> LiveVtpm | None:
        home = VtpmHome(directory)
        found = home.processes()
        if found is None or not all(map(processes.is_alive, (found.interposer, found.emulator))):
            return None
        live = home.live()
        return live if (await live.status()).tpm_alive else None

    async def carry_out(self, vm: VmName, directory: Path, key: Secret, binding: BlobBinding) -> Rested:
        """RefusedError as for `start`."""
        live = await self.start(vm, directory)
        try:
            await live.send_under(key, binding)
            with await asyncio.to_thread(Porter, live.socket) as porter:
                state = await asyncio.to_thread(porter.take_out)
                return Rested(state.encoded(), await live.moved(), await live.identity())
        finally:
            await self.stopped(vm, directory)

    async def carry_in(
        self, vm: VmName, directory: Path, key: Secret, binding: BlobBinding, state: bytes
    ) -> Rested:
        """RefusedError as for `start_incoming`."""
        resting = RestingState.parse(state)
        live = await self.start_incoming(vm, directory)
        await live.accept_under(key, binding)
        with await asyncio.to_thread(Porter, live.socket) as porter:
            try:
                await asyncio.to_thread(porter.put_in, resting)
            except KororaError:
                await live.moved()  # raises the interposer's reason, if it has one
                raise
            rested = Rested(state, await live.moved(), await live.identity())
        await self.stopped(vm, directory)
        return rested

    async def stopped(self, vm: VmName, directory: Path) -> None:
        """A retired vTPM's remains are left as they are, for `wipe`. Idempotent."""
        await asyncio.to_thread(self._stopped, vm, VtpmHome(directory))

    async def wipe(self, vm: VmName, directory: Path) -> WipeStep:
        """Idempotent: a second time there is nothing left to wipe, and 0 bytes are."""
        return await asyncio.to_thread(self._wipe, vm, VtpmHome(directory))

    def _start(self, vm: VmName, home: VtpmHome) -> LiveVtpm:
        with self._busy[vm]:
            home.prepare()
            self._end_leftovers(vm, home)
            key_at_rest = KeyAtRest(self._tpm, vm, home.directory)
            if home.making.exists() or (home.is_blank() and not key_at_rest.exists()):
                key = self._manufacture(home, key_at_rest)
            else:
                key = self._taken_up(vm, home, key_at_rest)
            return launch(vm, home, self._emulator, key, incoming=False)

    def _start_incoming(self, vm: VmName, home: VtpmHome) -> LiveVtpm:
        with self._busy[vm]:
            home.prepare()
            self._end_leftovers(vm, home)
            key_at_rest = KeyAtRest(self._tpm, vm, home.directory)
            if self._emulator.permanent_state(home.state).exists() and not home.making.exists():
                raise RefusedError(
                    f"this host already holds a vTPM of {vm}",
                    kind="vtpm-present",
                    remedy="wipe what an earlier run left, if the VM really lives elsewhere",
                )
            # An earlier arrival that never came leaves a key without state: begin anew.
            key_at_rest.destroy()
            erasure.erase(home.directory)
            home.prepare()
            key = Secret(secrets.token_bytes(_KEY_BYTES))
            live = launch(vm, home, self._emulator, key, incoming=True)
            try:
                # Sealed before the first byte arrives: a crash after the hand-over must not cost the state.
                key_at_rest.create(key)
            except BaseException:
                end(home)
                raise
            return live

    def _manufacture(self, home: VtpmHome, key_at_rest: KeyAtRest) -> Secret:
        write_durably(home.making, b"")
        erasure.erase(home.state)
        home.prepare()
        key = Secret(secrets.token_bytes(_KEY_BYTES))
        self._emulator.manufacture(home.state, key)
        key_at_rest.create(key)
        home.making.unlink()
        return key

    def _taken_up(self, vm: VmName, home: VtpmHome, key_at_rest: KeyAtRest) -> Secret:
        """The key of a vTPM that is at rest here, from now on marked as running."""
        state = self._emulator.permanent_state(home.state)
        if not state.exists() or not key_at_rest.exists():
            missing = "its sealed key" if state.exists() else "its state"
            raise RefusedError(
                f"the vTPM of {vm} is not whole: {missing} is missing",
                kind="vtpm-lost",
                remedy=f"put back what was taken from {home.directory}, or wipe it to give the VM a new vTPM",
            )
        record = key_at_rest.open()
        if record.state not in (RUNNING, _digest(state)):
            raise RefusedError(
                f"the vTPM state of {vm} is not the one that was put to rest here",
                kind="stale-epoch",
                remedy=f"put back the {state.name} that was there when the VM stopped",
            )
        # What an aborted move left: a TPM that is switched on begins without it.
        self._emulator.volatile_state(home.state).unlink(missing_ok=True)
        return key_at_rest.advance(record, RUNNING).key

    def _stopped(self, vm: VmName, home: VtpmHome) -> None:
        with self._busy[vm]:
            retired = end(home)
            key_at_rest = KeyAtRest(self._tpm, vm, home.directory)
            state = self._emulator.permanent_state(home.state)
            if retired or not key_at_rest.exists() or not state.exists():
                return
            record = key_at_rest.open()
            if record.state == RUNNING:
                self._emulator.volatile_state(home.state).unlink(missing_ok=True)
                _sync(state)
                key_at_rest.advance(record, _digest(state))

    def _wipe(self, vm: VmName, home: VtpmHome) -> WipeStep:
        with self._busy[vm]:
            end(home)
            # First the counter: from here on no copy of the key unseals, whatever happens to the files.
            counter_moved = KeyAtRest(self._tpm, vm, home.directory).destroy()
            erased = erasure.erase(home.directory)
            return erasure.wipe_step(vm, erased, counter_moved=counter_moved)

    def _end_leftovers(self, vm: VmName, home: VtpmHome) -> None:
        """End what an earlier start left, unless a hypervisor uses it."""
        found = home.processes()
        if found is not None and processes.is_alive(found.interposer):
            try:
                in_use = asyncio.run(home.live().status()).guest_connected
            except KororaError:
                in_use = False
            if in_use:
                raise RefusedError(
                    f"the vTPM of {vm} is in use",
                    kind="vtpm-running",
                    remedy="stop the VM that uses it first",
                )
        end(home)


def _digest(state: Path) -> bytes:
    return hashlib.sha256(state.read_bytes()).digest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
