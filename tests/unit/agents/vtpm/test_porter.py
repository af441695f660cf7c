"""The vTPM of a stopped VM moves between two hosts' custody, with a real swtpm on both."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from fakes.plain_swtpm import PlainSwtpm
from fakes.tpm import FakeTpm
from fakes.tpm_backend import TpmBackend, asked, code_of, nv_define, nv_read, nv_write, startup
from korora.agents.vtpm.custody import Custody
from korora.agents.vtpm.porter import RestingState
from korora.errors import IntegrityError, KororaError, RefusedError
from korora.model.identity import Secret, SessionId, VmName
from korora.ports.vtpm import BlobBinding, Rested

VM = VmName("web-1")
KEY = Secret(b"k" * 32)
BINDING = BlobBinding(VM, SessionId("ab" * 64), 2)
NV = 0x01500001
run = asyncio.run


class Side:
    """One host's custody of one VM's vTPM."""

    def __init__(self, directory: Path) -> None:
        self.custody = Custody(FakeTpm(), PlainSwtpm(directory / "ca"))
        self.directory = directory / "vm"

    def use(self, *commands: bytes) -> list[bytes]:
        """Start the VM's vTPM, give it the commands of a guest, and stop it."""
        vtpm = run(self.custody.start(VM, self.directory))
        with TpmBackend(vtpm.socket) as hypervisor:
            assert hypervisor.start() == 0
            answers = [asked(hypervisor, command) for command in (startup(), *commands)]
            hypervisor.quit()
        run(self.custody.stopped(VM, self.directory))
        return answers[1:]

    def out(self, key: Secret = KEY) -> Rested:
        return run(self.custody.carry_out(VM, self.directory, key, BINDING))

    def into(self, state: bytes, key: Secret = KEY, binding: BlobBinding = BINDING) -> Rested:
        return run(self.custody.carry_in(VM, self.directory, key, binding, state))


@pytest.fixture
def source(tmp_path: Path) -> Side:
    side = Side(tmp_path / "a")
    answers = side.use(nv_define(NV, 6), nv_write(NV, b"secret"))
    assert [code_of(answer) for answer in answers] == [0, 0]
    return side


@pytest.fixture
def destination(tmp_path: Path) -> Side:
    return Side(tmp_path / "b")


def test_what_was_in_nv_is_there_after_the_move(source: Side, destination: Side) -> None:
    left = source.out()
    arrived = destination.into(left.state)
    assert arrived.blobs == left.blobs
    assert arrived.identity == left.identity
    assert arrived.identity.permanent is not None
    assert b"secret" in destination.use(nv_read(NV, 6))[0]


def test_the_state_crosses_encrypted(source: Side) -> None:
    assert b"secret" not in source.out().state


def test_a_move_that_failed_leaves_the_vtpm_at_rest_as_it_was(source: Side) -> None:
    source.out()
    assert b"secret" in source.use(nv_read(NV, 6))[0]
    assert source.out(Secret(b"2" * 32)).state


def test_after_the_wipe_nothing_starts_at_the_source(source: Side, destination: Side) -> None:
    destination.into(source.out().state)
    run(source.custody.wipe(VM, source.directory))
    assert not list(source.directory.glob("vtpm/state/*"))


@pytest.mark.parametrize("part", ["permanent", "volatile", "savestate"])
def test_a_changed_blob_is_refused_with_the_interposers_reason(
    source: Side, destination: Side, part: str
) -> None:
    state = RestingState.parse(source.out().state)
    flags, blob = getattr(state, part)
    changed = blob[:-1] + bytes([blob[-1] ^ 1])
    with pytest.raises(IntegrityError) as caught:
        destination.into(msgspec.structs.replace(state, **{part: (flags, changed)}).encoded())
    assert caught.value.kind == "vtpm-blob"
    run(destination.custody.wipe(VM, destination.directory))


def test_blobs_in_each_others_place_are_refused(source: Side, destination: Side) -> None:
    state = RestingState.parse(source.out().state)
    swapped = RestingState(state.volatile, state.permanent, state.savestate)
    with pytest.raises(KororaError):
        destination.into(swapped.encoded())
    run(destination.custody.wipe(VM, destination.directory))


def test_a_wrong_key_and_another_session_open_nothing(source: Side, destination: Side) -> None:
    left = source.out()
    with pytest.raises(IntegrityError):
        destination.into(left.state, Secret(b"x" * 32))
    run(destination.custody.wipe(VM, destination.directory))
    with pytest.raises(IntegrityError):
        destination.into(left.state, binding=BlobBinding(VM, SessionId("cd" * 64), 2))
    run(destination.custody.wipe(VM, destination.directory))


def test_bytes_that_are_no_state_are_refused(destination: Side) -> None:
    with pytest.raises(IntegrityError):
        destination.into(b"\xff\xfe nonsense")


def test_a_vtpm_in_use_is_not_carried_away(source: Side) -> None:
    vtpm = run(source.custody.start(VM, source.directory))
    with TpmBackend(vtpm.socket) as hypervisor:
        assert hypervisor.start() == 0
        with pytest.raises(RefusedError) as caught:
            source.out()
        assert caught.value.kind == "vtpm-running"
        hypervisor.quit()
    run(source.custody.stopped(VM, source.directory))
