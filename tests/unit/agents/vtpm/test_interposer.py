"""The interposer's process against a real swtpm: what a hostile stream, daemon or guest gets from it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fakes import tpm_backend
from fakes.plain_swtpm import PlainSwtpm
from fakes.tpm import FakeTpm
from fakes.tpm_backend import FAILED, PERMANENT, SAVESTATE, VOLATILE, Blob, TpmBackend, code_of
from korora.agents.vtpm.custody import Custody
from korora.agents.vtpm.interposer import tpm_commands
from korora.agents.vtpm.live import LiveVtpm
from korora.errors import IntegrityError, RefusedError, ToolError
from korora.model.identity import Secret, SessionId, VmName, sha256
from korora.ports.vtpm import BlobBinding
from korora.protocol.vtpm_blob import MAX_BLOB

VM = VmName("web-1")
KEY, OTHER_KEY = Secret(b"k" * 32), Secret(b"o" * 32)
BINDING = BlobBinding(VM, SessionId("ab" * 64), 2)

Blobs = dict[int, Blob]
run = asyncio.run


class Hosts:
    """Two hosts with one vTPM each: at home on the first, awaited on the second."""

    def __init__(self, directory: Path) -> None:
        emulator = PlainSwtpm(directory / "ca")
        self.first, self.second = Custody(FakeTpm(), emulator), Custody(FakeTpm(), emulator)
        self.directory = directory
        self.home: LiveVtpm = run(self.first.start(VM, directory / "first"))
        self.awaited: LiveVtpm = run(self.second.start_incoming(VM, directory / "second"))
        self.source, self.destination = TpmBackend(self.home.socket), TpmBackend(self.awaited.socket)
        assert self.source.start() == 0
        self.destination.prepare()
        assert code_of(self.source.command(tpm_backend.startup())) == 0

    def saved(self, key: Secret = KEY, binding: BlobBinding = BINDING) -> Blobs:
        run(self.home.send_under(key, binding))
        return self.source.save()

    def close(self) -> None:
        self.source.hang_up()
        self.destination.hang_up()
        run(self.first.wipe(VM, self.directory / "first"))
        run(self.second.wipe(VM, self.directory / "second"))


@pytest.fixture(scope="module")
def workshop() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="korora-vtpm-"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def peaceful(workshop: Path) -> Iterator[Hosts]:
    """Shared by tests after which everything is as before."""
    hosts = Hosts(Path(tempfile.mkdtemp(dir=workshop)))
    yield hosts
    hosts.close()


@pytest.fixture
def hosts(workshop: Path) -> Iterator[Hosts]:
    directory = Path(tempfile.mkdtemp(dir=workshop))
    hosts = Hosts(directory)
    yield hosts
    hosts.close()


def assert_refused(hosts: Hosts, results: list[int], words: str) -> None:
    """INIT was refused, the reason is told, and nothing reached the destination's disk."""
    assert results[-1] == FAILED
    with pytest.raises(IntegrityError, match=words):
        run(hosts.awaited.moved())
    assert not list((hosts.directory / "second/vtpm/state").glob("tpm2-*"))
    with pytest.raises(ToolError, match=words):
        run(hosts.awaited.identity())


def test_the_same_tpm_arrives(hosts: Hosts) -> None:
    hosts.source.command(tpm_backend.pcr_extend(10, b"something"))
    before = run(hosts.home.identity())
    run(hosts.awaited.accept_under(KEY, BINDING))
    assert hosts.destination.load(hosts.saved()) == [0] * 5
    assert run(hosts.awaited.identity()) == before
    assert before.pcrs[10] != "00" * 32
    assert run(hosts.home.moved()) == run(hosts.awaited.moved())
    assert run(hosts.home.moved()).permanent == before.permanent
    assert run(hosts.home.moved()).savestate == sha256(b"")


def test_nothing_of_the_state_is_readable_in_what_leaves(hosts: Hosts) -> None:
    blobs = hosts.saved()
    assert all(blob[:4] == b"KVB1" for _, blob in blobs.values())
    assert not any(b"\0" * 32 in blob for _, blob in blobs.values())


def flipped(blobs: Blobs, kind: int, at: int) -> Blobs:
    flags, blob = blobs[kind]
    return blobs | {kind: (flags, blob[:at] + bytes([blob[at] ^ 1]) + blob[at + 1 :])}


def exchanged(blobs: Blobs) -> Blobs:
    return blobs | {PERMANENT: blobs[VOLATILE], VOLATILE: blobs[PERMANENT]}


ATTACKS: dict[str, tuple[Callable[[Blobs], Blobs], str]] = {
    "permanent changed": (lambda b: flipped(b, PERMANENT, 100), "permanent blob is not authentic"),
    "volatile changed": (lambda b: flipped(b, VOLATILE, 5000), "volatile blob is not authentic"),
    "savestate changed": (lambda b: flipped(b, SAVESTATE, 20), "savestate blob is not authentic"),
    "header changed": (lambda b: flipped(b, VOLATILE, 0), "not a Korora blob"),
    "savestate stripped": (lambda b: {k: b[k] for k in (PERMANENT, VOLATILE)}, "INIT came before savestate"),
    "volatile stripped": (lambda b: {k: b[k] for k in (PERMANENT, SAVESTATE)}, "INIT came before volatile"),
    "all stripped": (lambda b: {}, "INIT came before permanent, volatile, savestate"),
    "exchanged": (exchanged, "is of type 2, not 1"),
    "emptied": (lambda b: b | {PERMANENT: (0, b"")}, "is 0 bytes long"),
    "cut": (lambda b: b | {PERMANENT: (0, b[PERMANENT][1][:-1])}, "another length"),
    "other flags": (lambda b: b | {PERMANENT: (2, b[PERMANENT][1])}, "came with flags 0x2"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_stream_is_refused_with(hosts: Hosts, attack: str) -> None:
    change, words = ATTACKS[attack]
    run(hosts.awaited.accept_under(KEY, BINDING))
    assert_refused(hosts, hosts.destination.load(change(hosts.saved())), words)
    run(hosts.home.stay())
    assert code_of(hosts.source.command(tpm_commands.pcr_read([0]))) == 0, "the source's TPM goes on"


@pytest.mark.parametrize(
    ("key", "binding"),
    [
        (OTHER_KEY, BINDING),
        (KEY, BlobBinding(VM, SessionId("cd" * 64), 2)),
        (KEY, BlobBinding(VM, SessionId("ab" * 64), 3)),
        (KEY, BlobBinding(VmName("web-2"), SessionId("ab" * 64), 2)),
    ],
    ids=["another key", "another session", "another epoch", "another VM"],
)
def test_blobs_are_refused_that_were_sealed_under(hosts: Hosts, key: Secret, binding: BlobBinding) -> None:
    run(hosts.awaited.accept_under(KEY, BINDING))
    assert_refused(hosts, hosts.destination.load(hosts.saved(key, binding)), "not authentic")


def test_one_blob_of_an_older_move_spoils_all(hosts: Hosts) -> None:
    older = hosts.saved()
    run(hosts.home.stay())
    newer = hosts.saved(OTHER_KEY, BINDING)
    run(hosts.awaited.accept_under(OTHER_KEY, BINDING))
    results = hosts.destination.load(newer | {VOLATILE: older[VOLATILE]})
    assert_refused(hosts, results, "volatile blob is not authentic")


def test_a_plain_state_is_refused(hosts: Hosts) -> None:
    run(hosts.awaited.accept_under(KEY, BINDING))
    plain = {kind: (0, os.urandom(6000)) for kind in (PERMANENT, VOLATILE)}
    assert_refused(hosts, hosts.destination.load(plain), "not a Korora blob")


def test_a_blob_that_comes_twice_is_refused(hosts: Hosts) -> None:
    run(hosts.awaited.accept_under(KEY, BINDING))
    blobs = hosts.saved()
    assert hosts.destination.set_blob(PERMANENT, *blobs[PERMANENT]) == 0
    assert hosts.destination.set_blob(PERMANENT, *blobs[PERMANENT]) == FAILED
    assert_refused(hosts, [hosts.destination.initialise(1)], "permanent blob came twice")


def test_an_endless_blob_ends_the_connection(hosts: Hosts) -> None:
    run(hosts.awaited.accept_under(KEY, BINDING))
    hosts.destination.send_raw(13, struct.pack(">III", 0, PERMANENT, MAX_BLOB + 1))
    assert hosts.destination.exactly(hosts.destination.control, 4) == struct.pack(">I", FAILED)
    with pytest.raises((EOFError, OSError)):
        hosts.destination.stop()
    with pytest.raises(IntegrityError, match="announced"):
        run(hosts.awaited.moved())


def test_state_before_the_key_is_refused_for_good(hosts: Hosts) -> None:
    blobs = hosts.saved()
    assert hosts.destination.load(blobs)[1:] == [FAILED, FAILED, FAILED, FAILED]
    with pytest.raises(IntegrityError, match="while awaiting"):
        run(hosts.awaited.moved())


def test_init_before_the_state_is_refused(hosts: Hosts) -> None:
    run(hosts.awaited.accept_under(KEY, BINDING))
    assert_refused(hosts, [hosts.destination.initialise(0)], "INIT came before")


def test_state_is_not_given_out_without_a_key(hosts: Hosts) -> None:
    for kind in (PERMANENT, VOLATILE, SAVESTATE):
        assert hosts.source.get_blob(kind) == (FAILED, (0, b""))
    with pytest.raises(IntegrityError, match="while home"):
        run(hosts.home.moved())


def test_state_is_given_out_once_per_key(hosts: Hosts) -> None:
    hosts.saved()
    assert hosts.source.get_blob(VOLATILE)[0] == FAILED


def test_state_is_given_out_in_one_piece_only(hosts: Hosts) -> None:
    run(hosts.home.send_under(KEY, BINDING))
    assert hosts.source.get_blob(PERMANENT, offset=100)[0] == FAILED


def test_state_does_not_enter_a_tpm_at_home(peaceful: Hosts) -> None:
    before = run(peaceful.home.identity())
    assert peaceful.source.set_blob(PERMANENT, 0, b"x" * 100) == FAILED
    assert run(peaceful.home.identity()) == before


def test_an_unknown_command_ends_the_connection(hosts: Hosts) -> None:
    hosts.source.send_raw(99)
    with pytest.raises((EOFError, OSError)):
        hosts.source.exactly(hosts.source.control, 4)


def test_nobody_connects_after_the_hypervisor(peaceful: Hosts) -> None:
    with pytest.raises(OSError, match=r"refused|reset"):
        TpmBackend(peaceful.home.socket).start()


def test_after_a_failed_move_a_reset_gives_a_fresh_start(hosts: Hosts) -> None:
    hosts.source.command(tpm_backend.pcr_extend(10, b"something"))
    hosts.saved()
    run(hosts.home.stay())
    assert hosts.source.reset() == 0
    assert code_of(hosts.source.command(tpm_backend.startup())) == 0
    assert run(hosts.home.identity()).pcrs[10] == "00" * 32


def test_a_failed_move_can_be_tried_again(hosts: Hosts) -> None:
    hosts.saved()
    run(hosts.home.stay())
    run(hosts.awaited.accept_under(OTHER_KEY, BINDING))
    assert hosts.destination.load(hosts.saved(OTHER_KEY)) == [0] * 5
    assert run(hosts.home.moved()) == run(hosts.awaited.moved())


def test_a_retired_tpm_answers_failure_to_everything(hosts: Hosts) -> None:
    hosts.saved()
    sent = run(hosts.home.moved())
    run(hosts.home.retire())
    run(hosts.home.retire())
    for _ in range(2):
        assert code_of(hosts.source.command(tpm_commands.pcr_read([0]))) == tpm_commands.RC_FAILURE
    assert hosts.source.reset() == FAILED
    assert hosts.source.get_blob(PERMANENT)[0] == FAILED
    with pytest.raises(ToolError, match="retired"):
        run(hosts.home.identity())
    with pytest.raises(RefusedError):
        run(hosts.home.send_under(OTHER_KEY, BINDING))
    assert run(hosts.home.moved()) == sent, "the evidence stays"


def test_retirement_waits_for_the_guests_command(hosts: Hosts) -> None:
    codes: list[int] = []
    guest = threading.Thread(
        target=lambda: codes.append(code_of(hosts.source.command(tpm_backend.make_rsa_key())))
    )
    guest.start()
    time.sleep(0.002)
    run(hosts.home.retire())
    guest.join(30)
    assert codes[0] in (0, tpm_commands.RC_FAILURE)


def test_identity_is_right_while_the_guest_works(peaceful: Hosts) -> None:
    still = run(peaceful.home.identity())
    stop = threading.Event()
    codes: set[int] = set()

    def work() -> None:
        while not stop.is_set():
            codes.add(code_of(peaceful.source.command(tpm_commands.pcr_read(range(8)))))
            codes.add(code_of(peaceful.source.command(tpm_backend.make_rsa_key())))
            flush = struct.pack(">HIII", 0x8001, 14, 0x165, 0x80000000)
            codes.add(code_of(peaceful.source.command(flush)))

    guest = threading.Thread(target=work)
    guest.start()
    try:
        assert all(run(peaceful.home.identity()) == still for _ in range(10))
    finally:
        stop.set()
        guest.join(30)
    assert codes == {0}, "the guest noticed nothing"


def test_identity_before_the_firmware_started_the_tpm_is_empty(workshop: Path) -> None:
    directory = Path(tempfile.mkdtemp(dir=workshop))
    custody = Custody(FakeTpm(), PlainSwtpm(directory / "ca"))
    vtpm = run(custody.start(VM, directory))
    with pytest.raises(ToolError, match="not running"):
        run(vtpm.identity())
    with TpmBackend(vtpm.socket) as hypervisor:
        assert hypervisor.start() == 0
        identity = run(vtpm.identity())
        assert (identity.ek_name, identity.pcrs, identity.nv) == ("", {}, {})
        assert identity.permanent
    run(custody.wipe(VM, directory))


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\0\0\0\0",
        b"\xff\xff\xff\xff",
        b"\0\0\0\x05hello",
        b"\0\0\0\x01\xc0",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0\0\0\x09\x81\xa4type\xa1X",
        b"\0\0\0\x40half a frame",
    ],
)
def test_garbage_on_the_command_socket_harms_nobody(peaceful: Hosts, garbage: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(10)
        link.connect(str(peaceful.directory / "first/vtpm/command.sock"))
        link.sendall(garbage)
        link.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            assert link.recv(100) == b""
    assert run(peaceful.home.status()).mode == "home"
    assert code_of(peaceful.source.command(tpm_commands.pcr_read([0]))) == 0


def test_silent_daemons_do_not_keep_others_away(peaceful: Hosts) -> None:
    links = [socket.socket(socket.AF_UNIX) for _ in range(6)]
    for link in links:
        link.connect(str(peaceful.directory / "first/vtpm/command.sock"))
    assert run(peaceful.home.status()).mode == "home"
    for link in links:
        link.close()


def test_the_daemon_cannot_put_a_writing_command_to_the_tpm(peaceful: Hosts) -> None:
    from korora.agents.vtpm.interposer import command_socket as wire

    with pytest.raises(RefusedError, match="only commands that read"):
        run(peaceful.home._order(wire.Execute(tpm_backend.pcr_extend(10, b"x"))))


def test_the_sockets_are_private(peaceful: Hosts) -> None:
    directory = peaceful.directory / "first/vtpm"
    assert directory.stat().st_mode & 0o777 == 0o700
    for name in ("command.sock", "hypervisor.sock"):
        assert (directory / name).stat().st_mode & 0o777 == 0o600


def test_keys_are_nowhere_on_disk_or_in_the_process_list(hosts: Hosts) -> None:
    hosts.saved()
    for host in ("first", "second"):
        for path in (hosts.directory / host).rglob("*"):
            if path.is_file():
                content = path.read_bytes()
                assert KEY.reveal() not in content
                assert KEY.reveal().hex().encode() not in content
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert KEY.reveal().hex().encode() not in process.read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue


def test_a_hypervisor_that_hangs_up_ends_its_tpm(hosts: Hosts) -> None:
    hosts.saved()
    hosts.source.hang_up()
    until = time.monotonic() + 10
    while run(hosts.home.status()).tpm_alive:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert run(hosts.home.moved()), "what was sent is still told"
