"""Custody: what is made, kept, found again and destroyed, and what is refused."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from fakes import tpm_backend
from fakes.plain_swtpm import PlainSwtpm
from fakes.tpm import FakeTpm, PowerCutError
from fakes.tpm_backend import TpmBackend, asked, code_of
from korora.agents.vtpm import processes
from korora.agents.vtpm.custody import Custody
from korora.agents.vtpm.home import Processes
from korora.agents.vtpm.interposer import tpm_commands
from korora.errors import IntegrityError, KororaError, RefusedError, ToolError
from korora.model.identity import Secret, SessionId, VmName
from korora.ports.vtpm import BlobBinding

VM = VmName("web-1")
KEY = Secret(b"k" * 32)
BINDING = BlobBinding(VM, SessionId("ab" * 64), 2)
NV = 0x01500001
run = asyncio.run


class Host:
    """A host with one VM's directory, and a daemon that can be restarted."""

    def __init__(self, directory: Path, tpm: FakeTpm | None = None) -> None:
        self.tpm = tpm or FakeTpm()
        self.emulator = PlainSwtpm(directory / "ca")
        self.directory = directory / "vm"
        self.custody = Custody(self.tpm, self.emulator)

    @property
    def vtpm(self) -> Path:
        return self.directory / "vtpm"

    @property
    def state(self) -> Path:
        return self.emulator.permanent_state(self.vtpm / "state")

    def restart_daemon(self) -> None:
        self.custody = Custody(self.tpm, self.emulator)

    def processes(self) -> Processes:
        return msgspec.json.decode((self.vtpm / "processes.json").read_bytes(), type=Processes)

    def start(self) -> TpmBackend:
        vtpm = run(self.custody.start(VM, self.directory))
        hypervisor = TpmBackend(vtpm.socket)
        assert hypervisor.start() == 0
        assert code_of(hypervisor.command(tpm_backend.startup())) == 0
        return hypervisor

    def stop(self) -> None:
        run(self.custody.stopped(VM, self.directory))

    def start_and_stop(self) -> None:
        self.start().quit()
        self.stop()

    def copied(self, name: str) -> Path:
        return Path(shutil.copytree(self.vtpm, self.directory.parent / name, ignore=_sockets))

    def put_back(self, copy: Path) -> None:
        shutil.rmtree(self.vtpm)
        shutil.copytree(copy, self.vtpm)


def _sockets(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name.endswith(".sock")]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path)
    yield host
    host.tpm.fail_before = None
    run(host.custody.wipe(VM, host.directory))


def assert_stale(host: Host) -> None:
    with pytest.raises(RefusedError) as refused:
        run(host.custody.start(VM, host.directory))
    assert refused.value.kind == "stale-epoch"
    assert refused.value.remedy
    assert not (host.vtpm / "processes.json").exists()


def write_nv(hypervisor: TpmBackend, data: bytes) -> None:
    assert code_of(hypervisor.command(tpm_backend.nv_define(NV, len(data)))) in (0, 0x14C)
    assert code_of(asked(hypervisor, tpm_backend.nv_write(NV, data))) == 0


def read_nv(hypervisor: TpmBackend, size: int) -> bytes:
    return tpm_commands.parse_nv_data(asked(hypervisor, tpm_backend.nv_read(NV, size)))


def test_a_vtpm_keeps_what_the_guest_wrote(host: Host) -> None:
    hypervisor = host.start()
    write_nv(hypervisor, b"a secret")
    hypervisor.quit()
    host.stop()
    hypervisor = host.start()
    assert read_nv(hypervisor, 8) == b"a secret"
    hypervisor.quit()


def test_the_state_at_rest_is_encrypted(host: Host) -> None:
    hypervisor = host.start()
    write_nv(hypervisor, b"find me if you can")
    hypervisor.quit()
    host.stop()
    for path in host.vtpm.rglob("*"):
        assert not path.is_file() or b"find me if you can" not in path.read_bytes()


def test_an_old_copy_of_everything_does_not_start(host: Host) -> None:
    host.start_and_stop()
    old = host.copied("old")
    host.start_and_stop()
    host.put_back(old)
    assert_stale(host)


def test_a_copy_made_while_it_ran_does_not_start_after_it_stopped(host: Host) -> None:
    hypervisor = host.start()
    running = host.copied("running")
    hypervisor.quit()
    host.stop()
    host.put_back(running)
    assert_stale(host)


def test_an_older_state_file_beside_the_present_key_does_not_start(host: Host) -> None:
    host.start_and_stop()
    older = host.state.read_bytes()
    hypervisor = host.start()
    write_nv(hypervisor, b"12345678")
    hypervisor.quit()
    host.stop()
    present = host.state.read_bytes()
    host.state.write_bytes(older)
    assert_stale(host)
    host.state.write_bytes(present)
    host.start().quit()


def test_a_copy_does_not_start_after_a_wipe(host: Host) -> None:
    host.start_and_stop()
    old = host.copied("old")
    run(host.custody.wipe(VM, host.directory))
    host.vtpm.mkdir()
    host.put_back(old)
    assert_stale(host)


def test_a_copy_does_not_start_on_another_host(host: Host, tmp_path: Path) -> None:
    host.start_and_stop()
    other = Host(tmp_path / "other", FakeTpm(counters=dict(host.tpm.counters)))
    shutil.copytree(host.vtpm, other.vtpm)
    assert_stale(other)


def test_it_does_not_start_after_the_hosts_boot_changed(host: Host) -> None:
    host.start_and_stop()
    host.tpm.extend(7, b"another Secure Boot policy")
    assert_stale(host)


def test_after_a_crash_of_the_host_it_starts_again(host: Host) -> None:
    hypervisor = host.start()
    write_nv(hypervisor, b"12345678")
    found = host.processes()
    for process in (found.interposer, found.emulator):
        os.kill(process.pid, signal.SIGKILL)
        assert processes.wait_for_end(process, 10)
    host.restart_daemon()
    hypervisor = host.start()
    assert read_nv(hypervisor, 8) == b"12345678"
    hypervisor.quit()


@pytest.mark.parametrize("lost", ["tpm2-00.permall", "sealed-key"])
def test_a_vtpm_that_is_not_whole_is_never_made_anew(host: Host, lost: str) -> None:
    host.start_and_stop()
    next(host.vtpm.rglob(lost)).unlink()
    with pytest.raises(RefusedError) as refused:
        run(host.custody.start(VM, host.directory))
    assert refused.value.kind == "vtpm-lost"


@pytest.mark.parametrize("step", ["counter_create", "seal", "counter_read:2"])
def test_a_manufacture_that_was_cut_short_is_begun_again(host: Host, step: str) -> None:
    host.tpm.fail_before = step
    with pytest.raises(PowerCutError):
        run(host.custody.start(VM, host.directory))
    host.tpm.fail_before = None
    host.start().quit()
    assert len(host.tpm.counters) == 1


def test_a_manufacture_that_failed_leaves_no_process(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ToolError("no", kind="vtpm-manufacture")

    with monkeypatch.context() as patched:
        patched.setattr(host.emulator, "manufacture", broken)
        with pytest.raises(ToolError):
            run(host.custody.start(VM, host.directory))
    host.start().quit()


def test_a_swtpm_that_does_not_start_is_an_error_and_leaves_nothing(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.start_and_stop()
    with monkeypatch.context() as patched:
        patched.setattr(host.emulator, "command", lambda *_: ["swtpm", "socket", "--nonsense"])
        with pytest.raises(ToolError, match="swtpm did not start"):
            run(host.custody.start(VM, host.directory))
    assert not (host.vtpm / "processes.json").exists()
    host.start().quit()


def test_a_vtpm_in_use_is_not_started_twice(host: Host) -> None:
    hypervisor = host.start()
    with pytest.raises(RefusedError) as refused:
        run(host.custody.start(VM, host.directory))
    assert refused.value.kind == "vtpm-running"
    assert code_of(hypervisor.command(tpm_commands.pcr_read([0]))) == 0
    hypervisor.quit()


def test_a_start_that_nobody_used_can_be_repeated(host: Host) -> None:
    run(host.custody.start(VM, host.directory))
    first = host.processes()
    host.start().quit()
    assert not processes.is_alive(first.interposer)
    assert not processes.is_alive(first.emulator)


def test_a_restarted_daemon_finds_it_and_goes_on(host: Host) -> None:
    hypervisor = host.start()
    host.restart_daemon()
    found = run(host.custody.attach(VM, host.directory))
    assert found is not None
    assert len(run(found.identity()).pcrs) == 24
    assert code_of(hypervisor.command(tpm_commands.pcr_read([0]))) == 0
    hypervisor.quit()


def test_a_move_goes_on_over_a_restart_of_both_daemons(host: Host, tmp_path: Path) -> None:
    other = Host(tmp_path / "other")
    source = host.start()
    destination = TpmBackend(run(other.custody.start_incoming(VM, other.directory)).socket)
    destination.prepare()
    for here in (host, other):
        here.restart_daemon()
    home = run(host.custody.attach(VM, host.directory))
    awaited = run(other.custody.attach(VM, other.directory))
    assert home is not None
    assert awaited is not None
    run(awaited.accept_under(KEY, BINDING))
    run(home.send_under(KEY, BINDING))
    blobs = source.save()
    for here in (host, other):
        here.restart_daemon()
    assert destination.load(blobs) == [0] * 5
    assert run(home.moved()) == run(awaited.moved())
    source.quit()
    destination.quit()
    run(other.custody.wipe(VM, other.directory))


def test_nothing_is_found_where_nothing_lives(host: Host) -> None:
    assert run(host.custody.attach(VM, host.directory)) is None
    host.start_and_stop()
    assert run(host.custody.attach(VM, host.directory)) is None


@pytest.mark.parametrize("which", ["interposer", "emulator"])
def test_half_a_vtpm_is_not_found_and_its_calls_fail(host: Host, which: str) -> None:
    hypervisor = host.start()
    live = run(host.custody.attach(VM, host.directory))
    assert live is not None
    process = getattr(host.processes(), which)
    os.kill(process.pid, signal.SIGKILL)
    assert processes.wait_for_end(process, 10)
    assert run(host.custody.attach(VM, host.directory)) is None
    with pytest.raises(KororaError):
        run(live.identity())
    hypervisor.hang_up()
    host.stop()
    host.start().quit()


def test_no_tpm_lives_on_without_its_interposer(host: Host) -> None:
    hypervisor = host.start()
    found = host.processes()
    os.kill(found.interposer.pid, signal.SIGKILL)
    assert processes.wait_for_end(found.emulator, 10)
    hypervisor.hang_up()


def test_stopping_twice_changes_nothing(host: Host) -> None:
    host.start_and_stop()
    before = (host.vtpm / "sealed-key").read_bytes()
    host.stop()
    assert (host.vtpm / "sealed-key").read_bytes() == before


def test_stopping_ends_a_tpm_that_a_hypervisor_still_holds(host: Host) -> None:
    hypervisor = host.start()
    found = host.processes()
    host.stop()
    assert not processes.is_alive(found.interposer)
    assert not processes.is_alive(found.emulator)
    hypervisor.hang_up()
    host.start().quit()


def test_what_was_retired_is_not_put_to_rest_as_if_it_lived_here(host: Host) -> None:
    hypervisor = host.start()
    sealed = (host.vtpm / "sealed-key").read_bytes()
    live = run(host.custody.attach(VM, host.directory))
    assert live is not None
    run(live.retire())
    host.stop()
    assert (host.vtpm / "sealed-key").read_bytes() == sealed
    hypervisor.hang_up()


def test_a_wipe_leaves_nothing_and_says_so(host: Host) -> None:
    hypervisor = host.start()
    found = host.processes()
    step = run(host.custody.wipe(VM, host.directory))
    assert step.verified
    assert step.bytes > 1000
    assert "counter incremented and removed" in step.method
    assert not host.vtpm.exists()
    assert not host.tpm.counters
    assert not processes.is_alive(found.interposer)
    assert not processes.is_alive(found.emulator)
    again = run(host.custody.wipe(VM, host.directory))
    assert (again.bytes, again.verified) == (0, True)
    hypervisor.hang_up()


def test_an_arrival_that_never_came_can_be_awaited_again(host: Host) -> None:
    for _ in range(2):
        live = run(host.custody.start_incoming(VM, host.directory))
        with pytest.raises(IntegrityError):
            run(live.moved())
    assert len(host.tpm.counters) == 1


def test_an_arrival_does_not_overwrite_a_vtpm_that_lives_here(host: Host) -> None:
    host.start_and_stop()
    with pytest.raises(RefusedError) as refused:
        run(host.custody.start_incoming(VM, host.directory))
    assert refused.value.kind == "vtpm-present"
    host.start().quit()


def test_an_awaited_vtpm_without_its_state_never_starts_blank(host: Host) -> None:
    run(host.custody.start_incoming(VM, host.directory))
    host.stop()
    with pytest.raises(RefusedError) as refused:
        run(host.custody.start(VM, host.directory))
    assert refused.value.kind == "vtpm-lost"


def test_a_directory_with_a_long_path_works(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    host = Host(deep)
    live = run(host.custody.start(VM, host.directory))
    assert run(live.status()).tpm_alive
    run(host.custody.wipe(VM, host.directory))
