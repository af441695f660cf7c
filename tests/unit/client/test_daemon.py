"""The client against a scripted daemon: what it asks, and what it makes of every kind of answer."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.daemon import Answer, FakeDaemon, lines, refusal, serving
from korora.client import Daemon, MigrationNote, MigrationOutcome, MigrationProgress
from korora.client.transport import MAX_LINE_BYTES, ConnectionLostError
from korora.errors import (
    ExitCode,
    InDoubtError,
    IntegrityError,
    PeerError,
    RefusedError,
    ToolError,
    UsageError,
)
from korora.model.identity import HostName, OperatorName, VmName
from korora.model.plan import Inquiry, Mode

ASKED = Inquiry(VmName("web"), HostName("b"), Mode.OFFLINE, OperatorName("alice"), "10.0.0.2:7000")

EVENTS = ("GET", "/v1/migrations/7/events")


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeDaemon]:
    with serving(FakeDaemon("a", tmp_path / "api.sock")) as daemon:
        yield daemon


@pytest.fixture
def client(fake: FakeDaemon) -> Iterator[Daemon]:
    with Daemon(fake.socket, "a") as daemon:
        yield daemon


def test_a_vm_is_asked_for_by_its_escaped_name(fake: FakeDaemon, client: Daemon) -> None:
    fake.routes["GET", "/v1/vms/web%2F%C3%BC"] = Answer({"name": "web/ü", "state": "running", "epoch": 3})
    view = client.vm("web/ü")
    assert (view.name, view.state, view.epoch) == ("web/ü", "running", 3)


def test_fields_that_a_newer_daemon_adds_are_ignored(fake: FakeDaemon, client: Daemon) -> None:
    fake.routes["GET", "/v1/host"] = Answer({"name": "a", "invented": {"deep": [1]}})
    assert client.host().name == "a"


def test_an_error_of_the_contract_arrives_as_itself(fake: FakeDaemon, client: Daemon) -> None:
    fake.routes["POST", "/v1/vms/web/start"] = refusal(
        "stale-epoch", "an old copy", remedy="leave it", vm_runs_on="b", exit_code=3
    )
    with pytest.raises(RefusedError) as caught:
        client.start("web")
    error = caught.value
    assert (error.kind, error.message, error.remedy, error.vm_runs_on) == (
        "stale-epoch", "an old copy", "leave it", "b",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("code", "kind"), [(2, UsageError), (5, IntegrityError), (6, ToolError), (7, InDoubtError)]
)
def test_each_exit_code_becomes_its_error(
    fake: FakeDaemon, client: Daemon, code: int, kind: type[Exception]
) -> None:
    fake.routes["GET", "/v1/vms"] = refusal("x", "no", exit_code=code, status=500)
    with pytest.raises(kind):
        client.vms()


@pytest.mark.parametrize(
    "body",
    [b"", b"\xff\xfe", b"<html>", b"null", b"[1]", b'{"state": 3}', b"[" * 100_000, b'{"name": "a"'],
    ids=["empty", "not-utf8", "html", "null", "list", "wrong-type", "deep", "cut"],
)
def test_garbage_is_the_peers_error_and_never_a_traceback(
    fake: FakeDaemon, client: Daemon, body: bytes
) -> None:
    fake.routes["GET", "/v1/host"] = Answer(body)
    with pytest.raises(PeerError, match="not in the contract") as caught:
        client.host()
    assert caught.value.exit_code == ExitCode.TOOL


def test_an_error_status_with_garbage_says_the_status(fake: FakeDaemon, client: Daemon) -> None:
    fake.routes["GET", "/v1/host"] = Answer(b"oops", status=502)
    with pytest.raises(PeerError, match="502"):
        client.host()


def test_a_socket_that_is_not_there_says_how_to_start_the_daemon(tmp_path: Path) -> None:
    with Daemon(tmp_path / "none.sock", "a") as client, pytest.raises(ToolError, match="no socket") as caught:
        client.host()
    assert caught.value.kind == "daemon-absent"
    assert "korora hostd" in caught.value.remedy


def test_a_stale_socket_is_told_from_a_missing_one(tmp_path: Path) -> None:
    path = tmp_path / "stale.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with Daemon(path, "a") as client, pytest.raises(ToolError, match="stale"):
        client.host()


def test_a_file_in_place_of_the_socket_is_no_daemon(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("not a socket")
    with Daemon(path, "a") as client, pytest.raises(ToolError) as caught:
        client.host()
    assert caught.value.kind == "daemon-absent"


def test_a_path_too_long_for_a_socket_is_the_configurations_mistake(tmp_path: Path) -> None:
    with Daemon(tmp_path / ("x" * 120), "a") as client, pytest.raises(UsageError, match="too long"):
        client.host()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become nobody")
def test_a_socket_that_may_not_be_opened_says_so(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with serving(FakeDaemon("a", closed / "api.sock")) as fake:
        os.seteuid(65534)
        try:
            with Daemon(fake.socket, "a") as client, pytest.raises(ToolError) as caught:
                client.host()
        finally:
            os.seteuid(0)
    assert caught.value.kind == "daemon-permission"


def test_a_daemon_that_is_silent_past_the_deadline_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "mute.sock"
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(path))
        mute.listen()
        with Daemon(path, "a") as client, pytest.raises(ConnectionLostError, match="said nothing"):
            client.host(deadline_s=0.05)


def test_a_peer_that_does_not_speak_http_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "odd.sock"
    with socket.socket(socket.AF_UNIX) as odd:
        odd.bind(str(path))
        odd.listen()

        def speak() -> None:
            connection, _ = odd.accept()
            connection.sendall(b"SSH-2.0-OpenSSH\r\n")
            connection.recv(4096)
            connection.close()

        import threading

        thread = threading.Thread(target=speak)
        thread.start()
        with Daemon(path, "a") as client, pytest.raises(ToolError):
            client.host()
        thread.join()


def test_events_end_with_the_outcome(fake: FakeDaemon, client: Daemon) -> None:
    fake.routes[EVENTS] = Answer(
        lines(
            {"event": "progress", "phase": "transfer", "fraction": 0.5, "unheard_of": 1},
            {"event": "note", "message": "slow"},
            {"event": "outcome", "outcome": "completed", "vtpm": {"ek_same": True}},
            {"event": "note", "message": "never seen"},
        )
    )
    progress, note, outcome = client.events("7")
    assert isinstance(progress, MigrationProgress)
    assert progress.fraction == 0.5
    assert note == MigrationNote("slow")
    assert isinstance(outcome, MigrationOutcome)
    assert outcome.vtpm is not None
    assert (outcome.vtpm.ek_same, outcome.vtpm.nv_same) == (True, None)


def test_events_that_are_split_anywhere_are_put_together(fake: FakeDaemon, client: Daemon) -> None:
    text = json.dumps({"event": "outcome", "outcome": "failed", "error": {"kind": "k", "message": "ü"}})
    data = b"\n" + text.encode() + b"\n"
    fake.routes[EVENTS] = Answer(iter([data[index : index + 1] for index in range(len(data))]))
    (outcome,) = client.events("7")
    assert isinstance(outcome, MigrationOutcome)
    assert outcome.exit_code == ExitCode.TOOL


@pytest.mark.parametrize("whole", [True, False], ids=["ended", "cut"])
@pytest.mark.parametrize("pieces", [[], [b'{"event": "note", "mess'], [b'{"event":"note","message":"m"}\n']])
def test_a_stream_without_an_outcome_is_a_lost_connection(
    fake: FakeDaemon, client: Daemon, pieces: list[bytes], whole: bool
) -> None:
    fake.routes[EVENTS] = Answer(iter(pieces), whole=whole)
    with pytest.raises(ConnectionLostError):
        list(client.events("7"))


def test_a_line_without_an_end_is_not_kept(fake: FakeDaemon, client: Daemon) -> None:
    fake.routes[EVENTS] = Answer(iter([b"x" * (MAX_LINE_BYTES + 1)]))
    with pytest.raises(PeerError, match="does not end"):
        list(client.events("7"))


@pytest.mark.parametrize(
    "line", [b"{}", b'{"event": "song"}', b'{"event": "outcome", "outcome": "maybe"}', b"[]", b"\xff"]
)
def test_an_unknown_event_is_the_peers_error(fake: FakeDaemon, client: Daemon, line: bytes) -> None:
    fake.routes[EVENTS] = Answer(iter([line + b"\n"]))
    with pytest.raises(PeerError, match="not in the contract"):
        list(client.events("7"))


def test_cancelling_needs_no_answer_but_the_status(fake: FakeDaemon, client: Daemon) -> None:
    fake.routes["DELETE", "/v1/migrations/7"] = Answer(b"", status=202)
    client.cancel("7")
    assert fake.paths() == ["DELETE /v1/migrations/7"]


def test_findings_are_values(fake: FakeDaemon, client: Daemon) -> None:
    finding = {"check": "memory", "host": "b", "message": "too little", "remedy": "buy some"}
    fake.routes["POST", "/v1/checks"] = Answer({"findings": [finding]})
    (found,) = client.check(ASKED)
    assert found.check == "memory"
    assert fake.asked[0].body == {
        "vm": "web",
        "destination": "b",
        "mode": "offline",
        "operator": "alice",
        "address": "10.0.0.2:7000",
        "disks": {
            "names": [],
            "format": "",
            "incremental": False,
            "storage_mode": "auto",
            "replacement": "",
            "keep_backing": False,
        },
    }
