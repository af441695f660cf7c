"""A vTPM moves between two real QEMUs with the VM's own stream, and what happens when somebody meddles."""

from __future__ import annotations

import asyncio
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from fakes import tpm_backend
from fakes.host_tpm import host_tpm
from fakes.plain_swtpm import PlainSwtpm
from fakes.tiny_qemu import TinyQemu
from fakes.tpm import FakeTpm
from fakes.tpm_backend import code_of
from korora.adapters.tpm.esys import EsysTpm
from korora.adapters.vtpm.swtpm import Swtpm
from korora.agents.vtpm.custody import Custody
from korora.agents.vtpm.interposer import tpm_commands
from korora.agents.vtpm.live import LiveVtpm
from korora.errors import IntegrityError, ToolError
from korora.model.evidence import VtpmIdentity
from korora.model.identity import Secret, SessionId, VmName
from korora.ports.tpm import Tpm
from korora.ports.vtpm import BlobBinding

pytestmark = pytest.mark.end_to_end

VM = VmName("web-1")
KEY = Secret(b"k" * 32)
BINDING = BlobBinding(VM, SessionId("ab" * 64), 2)
NV, SECRET = 0x01500001, b"kept in the TPM"
run = asyncio.run


class Move:
    """Two hosts, and everything that must be gone afterwards."""

    def __init__(self, directory: Path, first: Tpm, second: Tpm, emulator: Swtpm, undo: ExitStack) -> None:
        self.directory, self._undo = directory, undo
        self.custodies = {"a": Custody(first, emulator), "b": Custody(second, emulator)}
        for name, custody in self.custodies.items():
            undo.callback(lambda c, n: run(c.wipe(VM, directory / n)), custody, name)

    def boot(self) -> tuple[LiveVtpm, TinyQemu]:
        vtpm = run(self.custodies["a"].start(VM, self.directory / "a"))
        qemu = self._qemu("a", vtpm, incoming=False)
        until = time.monotonic() + 60
        while (identity := _seen(vtpm)) is None or int(identity.pcrs[7], 16) == 0:
            assert time.monotonic() < until, "the firmware does not measure"
            time.sleep(0.05)
        qemu.prepare_stream()
        return vtpm, qemu

    def await_it(self) -> tuple[LiveVtpm, TinyQemu]:
        vtpm = run(self.custodies["b"].start_incoming(VM, self.directory / "b"))
        qemu = self._qemu("b", vtpm, incoming=True)
        qemu.prepare_stream()
        qemu.ask("migrate-incoming", uri=f"unix:{self.stream}")
        return vtpm, qemu

    @property
    def stream(self) -> Path:
        return self.directory / "stream.sock"

    def _qemu(self, name: str, vtpm: LiveVtpm, *, incoming: bool) -> TinyQemu:
        qemu = TinyQemu(self.directory / f"qemu-{name}", vtpm.socket, incoming=incoming)
        self._undo.callback(qemu.end)
        return qemu


def _seen(vtpm: LiveVtpm) -> VtpmIdentity | None:
    try:
        identity = run(vtpm.identity())
    except ToolError:
        return None  # SeaBIOS resets the TPM while it starts
    return identity if identity.pcrs else None


@pytest.fixture
def directory() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="korora-vtpm-"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def move(directory: Path) -> Iterator[Move]:
    with ExitStack() as undo:
        yield Move(directory, FakeTpm(), FakeTpm(), PlainSwtpm(directory / "ca"), undo)


def ask(qemu: TinyQemu, command: bytes) -> bytes:
    response = qemu.tpm(command)
    while code_of(response) in tpm_commands.RC_BUSY:
        time.sleep(0.01)
        response = qemu.tpm(command)
    return response


def test_the_same_tpm_arrives_and_the_source_keeps_none(directory: Path) -> None:
    with ExitStack() as undo:
        tpms = [undo.enter_context(host_tpm(directory / f"host-{name}")) for name in "ab"]
        first, second = (EsysTpm(tpm.tcti) for tpm in tpms)
        undo.callback(second.close)
        undo.callback(first.close)
        move = Move(directory, first, second, Swtpm(directory / "ca"), undo)
        home, source = move.boot()
        assert code_of(ask(source, tpm_backend.pcr_extend(16, b"the guest's"))) == 0
        assert code_of(ask(source, tpm_backend.nv_define(NV, len(SECRET)))) == 0
        assert code_of(ask(source, tpm_backend.nv_write(NV, SECRET))) == 0
        awaited, destination = move.await_it()

        source.ask("stop")
        before = run(home.identity())
        assert before == run(home.identity()), "stable while the VM is paused"
        source.ask("cont")
        run(awaited.accept_under(KEY, BINDING))
        run(home.send_under(KEY, BINDING))
        assert source.send(move.stream) == "completed"

        assert run(home.moved()) == run(awaited.moved())
        after = run(awaited.identity())
        assert (after.ek_name, after.pcrs, after.nv) == (before.ek_name, before.pcrs, before.nv)
        assert after.permanent == before.permanent == run(home.moved()).permanent
        assert after.ek_name
        assert run(awaited.endorsement_certificate())

        run(home.retire())
        source.ask("cont")
        assert source.status == "running", "QEMU itself would revive the source"
        assert code_of(source.tpm(tpm_commands.pcr_read([0]))) == tpm_commands.RC_FAILURE
        with suppress(OSError, ValueError):
            source.ask("system_reset")
        assert source.process.wait(60) != 0, "no machine comes up without its TPM"

        destination.ask("cont")
        read = ask(destination, tpm_backend.nv_read(NV, len(SECRET)))
        assert tpm_commands.parse_nv_data(read) == SECRET
        assert code_of(ask(destination, tpm_backend.pcr_extend(16, b"goes on"))) == 0
        assert run(move.custodies["a"].wipe(VM, directory / "a")).verified


def test_a_blob_changed_on_the_wire_stops_the_move_and_the_source_goes_on(move: Move) -> None:
    home, source = move.boot()
    ask(source, tpm_backend.pcr_extend(16, b"the guest's"))
    before = run(home.identity())
    awaited, destination = move.await_it()
    run(awaited.accept_under(KEY, BINDING))
    run(home.send_under(KEY, BINDING))
    middle = move.directory / "middle.sock"
    with _Middle(middle, move.stream, _flip_in_the_first_blob):
        assert source.send(middle) == "failed"
    destination.process.wait(60)
    assert destination.process.returncode != 0
    with pytest.raises(IntegrityError, match="permanent blob is not authentic"):
        run(awaited.moved())
    run(home.stay())
    _until_running(source)
    assert code_of(source.tpm(tpm_commands.pcr_read([16]))) == 0
    after = run(home.identity())
    assert (after.ek_name, after.pcrs, after.nv) == (before.ek_name, before.pcrs, before.nv)


def test_a_stream_that_korora_did_not_start_takes_no_tpm_along(move: Move) -> None:
    home, source = move.boot()
    awaited, _ = move.await_it()
    assert source.send(move.stream) == "failed"
    _until_running(source)
    assert code_of(source.tpm(tpm_commands.pcr_read([0]))) == 0
    with pytest.raises(IntegrityError, match="while home"):
        run(home.moved())
    with pytest.raises(IntegrityError):
        run(awaited.moved())


def test_a_guest_that_lies_about_a_commands_size_hangs_neither_qemu_nor_its_tpm(move: Move) -> None:
    _, source = move.boot()
    honest = tpm_commands.pcr_read([0])
    for size in (4, 12, 3000, 0x7FFFFFFF):
        source.tpm(honest[:2] + size.to_bytes(4, "big") + honest[6:])
        assert source.status == "running"
    assert code_of(source.tpm(honest)) == 0


def test_ending_the_vtpm_frees_a_qemu_that_waits_for_an_answer_to_nothing(move: Move) -> None:
    _, source = move.boot()
    nothing = bytes(10)  # QEMU 7.2 sends as many bytes as the header says, none, and waits for a response
    waiting: list[bytes] = []
    guest = threading.Thread(target=lambda: waiting.append(source.tpm(nothing)))
    guest.start()
    guest.join(1)
    assert guest.is_alive()
    run(move.custodies["a"].stopped(VM, move.directory / "a"))
    guest.join(30)
    assert not guest.is_alive()
    assert source.status == "running"


def _until_running(qemu: TinyQemu) -> None:
    until = time.monotonic() + 30
    while qemu.status != "running":
        assert time.monotonic() < until, f"the source is {qemu.status}"
        time.sleep(0.02)


def _flip_in_the_first_blob(stream: bytes) -> bytes:
    at = stream.find(b"KVB1")
    if at < 0:
        return stream
    return stream[: at + 100] + bytes([stream[at + 100] ^ 1]) + stream[at + 101 :]


class _Middle:
    """A man in the middle of the stream: what he makes of the source's bytes goes on to the destination."""

    def __init__(self, path: Path, onward: Path, change: Callable[[bytes], bytes]) -> None:
        self._path, self._onward, self._change = path, onward, change
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(1)
        self._thread = threading.Thread(target=self._relay, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _relay(self) -> None:
        source, _ = self._listener.accept()
        with source, socket.socket(socket.AF_UNIX) as destination:
            destination.connect(str(self._onward))
            back = threading.Thread(target=_pump, args=(destination, source, bytes), daemon=True)
            back.start()
            _pump(source, destination, self._change)
            back.join(60)


def _pump(giving: socket.socket, taking: socket.socket, change: Callable[[bytes], bytes]) -> None:
    with suppress(OSError):
        while piece := giving.recv(1 << 20):
            taking.sendall(change(piece))
    # One side is gone: the other must hear of it, or its migration waits for ever.
    for link in (giving, taking):
        with suppress(OSError):
            link.shutdown(socket.SHUT_RDWR)
