"""The client against the daemon's own API, over services in memory: both sides mean the same contract."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from fakes.host_services import FakeServices, configuration_in
from korora.client import Daemon, MigrationOutcome, MigrationProgress
from korora.client.inspections import Inspected, Looking, Verified
from korora.errors import IntegrityError, RefusedError, ToolError, UsageError
from korora.host.api import create_api
from korora.host.front import Front
from korora.model.flag import FlagKind, Place
from korora.model.identity import HostName, VmName
from korora.model.inspection import Found
from korora.model.inspection_policy import parse_inspection_policy
from korora.model.plan import Inquiry

WEB = 'name = "web"\nmemory = "64M"\n'


class _Host:
    """The API in a thread with a loop of its own."""

    def __init__(self, folder: Path) -> None:
        self.api = configuration_in(folder).api
        self._folder = folder
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    async def _serve(self) -> None:
        self.loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        self.services = FakeServices(configuration_in(self._folder))
        front = Front(create_api(self.services), self.api)
        await front.open()
        self._ready.set()
        await self._end.wait()
        await front.close()
        await self.services.guests.close()

    def __enter__(self) -> _Host:
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self._end.set)
        self._thread.join(20)

    def tells(self, event: dict[str, object]) -> None:
        self.loop.call_soon_threadsafe(self.services.migrations.tell, event)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Host]:
    with _Host(tmp_path_factory.mktemp("host")) as running:
        yield running


@pytest.fixture
def client(host: _Host) -> Iterator[Daemon]:
    with Daemon(host.api, "a") as daemon:
        yield daemon


def test_a_host_is_described(client: Daemon) -> None:
    view = client.host()
    assert (view.name, view.listen, view.tpm_ok, view.log_size) == ("a", "127.0.0.1:7443", True, 2)
    assert view.hypervisor is not None
    assert view.hypervisor["name"]


def test_a_vm_lives_its_life(client: Daemon) -> None:
    started = client.define(WEB, start=True)
    assert (started.name, started.state, started.owned) == ("web", "running", True)
    assert started.memory_bytes == 64 * 2**20
    assert [view.name for view in client.vms()] == ["web"]
    assert client.stop("web").state == "stopped"
    assert client.start("web").state == "running"
    assert client.stop("web", force=True).pid is None
    assert client.vm("web").ownership == "owner"


@pytest.mark.parametrize("verb", ["vm", "start", "stop"])
def test_an_unknown_vm_is_usage_and_named_so(client: Daemon, verb: str) -> None:
    with pytest.raises(UsageError) as caught:
        getattr(client, verb)("Ω")
    assert caught.value.kind == "unknown-vm"


def test_a_malformed_definition_is_usage(client: Daemon) -> None:
    with pytest.raises(UsageError) as caught:
        client.define("name = ", start=False)
    assert caught.value.kind == "bad-definition"


def test_evidence_is_over_the_nonce(client: Daemon) -> None:
    view = client.attestation(b"\x07" * 32)
    assert view.evidence.quote.attest == b"attest" + b"\x07" * 32
    assert view.evidence.pcrs == {0: "00" * 32}
    assert view.certificate is None


def test_enrolment_goes_to_and_fro(client: Daemon, host: _Host) -> None:
    assert client.begin_enrolment().csr == b"csr"
    assert client.activate(b"blob", b"for this TPM") == b"told by blob"
    with pytest.raises(RefusedError):
        client.activate(b"blob", b"for another")
    client.finish_enrolment("PEM", "statement")
    assert host.services.enrolment.installed == (b"PEM", b"statement")


def test_findings_of_a_check_arrive_whole(client: Daemon) -> None:
    (finding,) = client.check(Inquiry(VmName("web"), HostName("b"), address="10.0.0.2:7000"))
    assert (finding.check, finding.host, finding.remedy) == ("memory", "b", "free some")


def test_a_migration_is_watched_cancelled_and_ended(client: Daemon, host: _Host) -> None:
    assert client.migrate("request", "10.0.0.2:7000") == "m1"
    assert host.services.migrations.begun[-1] == (b"request", "10.0.0.2:7000")
    host.tells({"event": "progress", "phase": "attest", "fraction": 0.02})
    events = client.events("m1")
    assert isinstance(next(events), MigrationProgress)
    client.cancel("m1")
    outcome = next(events)
    assert isinstance(outcome, MigrationOutcome)
    assert outcome.outcome == "cancelled"


def test_a_request_that_is_refused_at_once_says_where_the_vm_runs(client: Daemon) -> None:
    with pytest.raises(RefusedError) as caught:
        client.migrate("replayed")
    assert caught.value.vm_runs_on == "a"


def test_an_unknown_migration_is_said_to_be_unknown(client: Daemon) -> None:
    for ask in (lambda: list(client.events("m9")), lambda: client.cancel("m9")):
        with pytest.raises(UsageError) as caught:
            ask()
        assert caught.value.kind == "unknown-migration"


FOUND = tuple(
    Found(
        kind=FlagKind.INFECTED,
        place=Place(disk="disk0", path=b"/" + bytes([number % 256, 255]) * 2000),
        content="blake3:" + f"{number:064x}",
        reason="clamav: Eicar",
    )
    for number in range(1000)
)


def test_a_vm_is_looked_into_and_verified_and_what_was_found_may_be_long(client: Daemon, host: _Host) -> None:
    client.define('name = "found"\nmemory = "64M"\n', start=False)
    with pytest.raises(UsageError) as caught:
        list(client.verify("found"))
    assert caught.value.kind == "no-baseline"
    host.services.policy = parse_inspection_policy('[checks]\nmalware = "flag"', "test")
    host.services.inspector.found = FOUND
    *told, last = client.inspect("found")
    assert told == [Looking("looks")] * len(told)
    assert isinstance(last, Inspected)
    assert {one.place for one in last.flags} == {one.place for one in FOUND}
    assert client.inspection("found") == last.inspection
    assert {one.flag for one in client.flags().flags if one.vm == "found"} == set(last.flags)
    assert len(msgspec.json.encode(last)) > 4 << 20
    *_, verified = client.verify("found")
    assert isinstance(verified, Verified)
    assert verified.verification.of == last.inspection


def test_what_goes_wrong_while_a_vm_is_looked_into_is_raised(client: Daemon, host: _Host) -> None:
    for ask in (client.inspect, client.verify):
        with pytest.raises(UsageError) as unknown:
            list(ask("nobody"))
        assert unknown.value.kind == "unknown-vm"
    host.services.policy = parse_inspection_policy("", "test")
    host.services.inspector.error = ToolError("it died", kind="inspection")
    client.define('name = "dies"\nmemory = "64M"\n', start=False)
    with pytest.raises(ToolError) as failed:
        list(client.inspect("dies"))
    host.services.inspector.error = None
    assert failed.value.kind == "inspection"
    with pytest.raises(UsageError) as none:
        client.inspection("dies")
    assert none.value.kind == "unknown-inspection"


def test_who_stops_listening_stops_the_look_and_the_vm_is_free_again(client: Daemon, host: _Host) -> None:
    client.define('name = "left"\nmemory = "64M"\n', start=False)
    host.services.policy = parse_inspection_policy("", "test")
    host.services.inspector.gate = asyncio.Event()  # which nobody opens
    try:
        with Daemon(host.api, "a") as other:
            events = other.inspect("left")
            assert next(events) == Looking("looks")
            with pytest.raises(RefusedError) as busy:
                client.start("left")
            assert busy.value.kind == "busy"
            del events
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                assert client.start("left").state == "running"
                break
            except RefusedError:
                time.sleep(0.05)
        else:
            pytest.fail("it is looked into still")
    finally:
        host.services.inspector.gate = None
    with pytest.raises(UsageError) as none:
        client.inspection("left")
    assert none.value.kind == "unknown-inspection"


def test_originals_and_words_on_flags_that_nobody_knows_are_refused(client: Daemon) -> None:
    client.define('name = "plain"\nmemory = "64M"\n', start=False)
    with pytest.raises(UsageError) as caught:
        client.original("plain", "0" * 32)
    assert caught.value.kind == "unknown-flag"
    with pytest.raises(IntegrityError):
        client.resolve("no envelope")


def test_a_receipt_is_given_byte_by_byte(client: Daemon) -> None:
    (entry,) = client.receipts()
    assert client.receipt(entry.session) == b'{ "payload":  "spaces stay" }'
    with pytest.raises(UsageError):
        client.receipt("nope")


def test_the_log_is_given_whole(client: Daemon) -> None:
    log = client.log()
    assert (log.host, log.size, log.leaves, log.tree_head) == ("a", 2, (b"one", b"two"), "signed head")
