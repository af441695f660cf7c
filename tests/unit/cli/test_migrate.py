"""`korora migrate` against scripted daemons: events, outcomes, cancellation, and daemons that vanish."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.cli_site import CliSite, cli_site, documents, knows, vm
from fakes.daemon import Answer, lines, refusal
from korora.cli.main import answer
from korora.model.plan import Mode
from korora.model.storage import ALL, DisksAsked, StorageMode
from korora.protocol import dsse
from korora.protocol.statements import open_request

Captured = pytest.CaptureFixture[str]

CONTRACT = {
    "outcome", "session", "vm", "source", "destination", "mode", "downtime_ms", "total_ms", "bytes_sent",
    "bytes_guest", "vtpm", "receipt",
}  # fmt: skip
ASK = ("POST", "/v1/migrations")
EVENTS = ("GET", "/v1/migrations/m1/events")
CANCEL = ("DELETE", "/v1/migrations/m1")

COMPLETED = {
    "event": "outcome", "outcome": "completed", "session": "5e55", "vm": "web", "source": "a",
    "destination": "b", "mode": "live", "downtime_ms": 87.4, "total_ms": 4200, "bytes_sent": 612_000_000,
    "bytes_guest": 536_870_912, "vtpm": {"ek_same": True, "pcrs_same": True, "nv_same": True},
    "receipt": "/var/lib/korora/receipts/5e55.json", "attested": {"a": "trusted", "b": "trusted"},
}  # fmt: skip


def progress(phase: str, fraction: float, **more: Any) -> dict[str, Any]:
    return {"event": "progress", "phase": phase, "fraction": fraction, **more}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[CliSite]:
    with cli_site(tmp_path) as made:
        made.a.routes[ASK] = Answer({"id": "m1"}, status=202)
        made.a.routes[CANCEL] = Answer({}, status=202)
        yield made


@pytest.fixture(autouse=True)
def _little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("korora.cli.migration.follow.PATIENCE_S", 0.3)
    monkeypatch.setattr("korora.cli.migration.follow._PAUSE_S", 0.02)


def says(site: CliSite, *events: dict[str, Any]) -> None:
    site.a.routes[EVENTS] = lambda _: Answer(lines(*events))


def test_the_request_is_the_operators_and_holds_what_was_asked(site: CliSite) -> None:
    says(site, COMPLETED)
    before = int(time.time())
    assert answer(site.command("migrate", "web", "--to", "b", "--mode", "offline")) == 0
    body = next(asked.body for asked in site.a.asked if asked.method == "POST")
    key = site.operator.public_key()
    request = open_request(body["request"].encode(), {dsse.key_id(key): key})
    assert (request.operator, request.vm, request.source, request.destination) == ("alice", "web", "a", "b")
    assert request.mode is Mode.OFFLINE
    assert len(bytes.fromhex(request.nonce)) == 32
    assert before <= request.issued_at <= time.time()
    assert request.not_after - request.issued_at == 600
    assert body["address"] == "10.0.0.2:7000"


def test_only_changes_of_disks_that_move_can_be_asked_for(site: CliSite, capsys: Captured) -> None:
    says(site, COMPLETED)
    words = ("migrate", "web", "--to", "b", "--incremental")
    assert answer(site.command(*words)) == 2
    assert "--disks all" in capsys.readouterr().err
    assert answer(site.command(*words, "--disks", "data")) == 0
    body = next(asked.body for asked in site.a.asked if asked.method == "POST")
    key = site.operator.public_key()
    request = open_request(body["request"].encode(), {dsse.key_id(key): key})
    assert request.disks == DisksAsked(("data",), incremental=True)


def test_that_disks_come_over_their_backing_images_is_in_the_request(site: CliSite) -> None:
    says(site, COMPLETED)
    assert answer(site.command("migrate", "web", "--to", "b", "--disks", "all", "--keep-backing")) == 0
    body = next(asked.body for asked in site.a.asked if asked.method == "POST")
    key = site.operator.public_key()
    assert open_request(body["request"].encode(), {dsse.key_id(key): key}).disks.keep_backing


def test_the_request_says_how_disks_are_copied(site: CliSite) -> None:
    says(site, COMPLETED)
    words = ("migrate", "web", "--to", "b", "--disks", "all", "--storage-mode", "outsource", "--replacement")
    assert answer(site.command(*words, "aside")) == 2
    assert answer(site.command(*words, "/srv/aside")) == 0
    (body,) = [asked.body for asked in site.a.asked if asked.method == "POST"]
    key = site.operator.public_key()
    request = open_request(body["request"].encode(), {dsse.key_id(key): key})
    how = DisksAsked((ALL,), storage_mode=StorageMode.OUTSOURCE, replacement="/srv/aside")
    assert request.disks == how


def test_two_requests_never_share_a_nonce(site: CliSite) -> None:
    says(site, COMPLETED)
    for _ in range(2):
        assert answer(site.command("migrate", "web", "--to", "b")) == 0
    first, second = (asked.body["request"] for asked in site.a.asked if asked.method == "POST")
    assert first != second


def test_json_is_an_object_a_line_and_ends_with_the_contract(site: CliSite, capsys: Captured) -> None:
    says(site, progress("attest", 0.02), {"event": "note", "message": "n"}, COMPLETED)
    assert answer(site.command("migrate", "web", "--to", "b", "--json")) == 0
    first, note, last = documents(capsys.readouterr().out)
    assert (first["event"], first["phase"], note["message"]) == ("progress", "attest", "n")
    assert {key: last[key] for key in COMPLETED} == COMPLETED
    assert last["error"] is None


def test_progress_never_runs_backwards(site: CliSite, capsys: Captured) -> None:
    says(
        site,
        progress("transfer", 0.5, bytes_sent=100),
        progress("attest", 0.1, bytes_sent=10),
        progress("transfer", 7.0, bytes_sent=50),
        progress("verify", -1.0),
        COMPLETED,
    )
    assert answer(site.command("migrate", "web", "--to", "b", "--json")) == 0
    seen = documents(capsys.readouterr().out)[:-1]
    assert [event["fraction"] for event in seen] == [0.5, 0.5, 1.0, 1.0]
    assert [event["bytes_sent"] for event in seen] == [100, 100, 100, 100]
    assert [event["phase"] for event in seen] == ["transfer", "transfer", "transfer", "verify"]


def test_a_person_reads_phases_and_a_summary(site: CliSite, capsys: Captured) -> None:
    says(
        site,
        progress("attest", 0.02),
        progress(
            "transfer", 0.4, bytes_sent=2**29, rate_bytes_per_s=2**28, dirty_rate_bytes_per_s=2**24,
            eta_low_s=3.2, eta_high_s=5.1, round=2,
        ),
        progress("transfer", 0.5, bytes_sent=2**30),
        COMPLETED,
    )  # fmt: skip
    assert answer(site.command("migrate", "web", "--to", "b")) == 0
    out = capsys.readouterr().out
    assert "attesting both hosts" in out
    assert "transferring, round 2  512.0 MiB sent · 256.0 MiB/s · dirty 16.0 MiB/s · ETA 3–5 s" in out
    assert out.count("transferring") == 1
    assert "✓ web runs on b (was on a, live migration)" in out
    assert "87 ms" in out
    assert "endorsement key ✓  PCRs ✓  NV ✓" in out
    assert "/var/lib/korora/receipts/5e55.json" in out
    assert "korora receipt verify FILE" in out


def test_a_move_without_a_receipt_says_what_is_missing(site: CliSite, capsys: Captured) -> None:
    unproved = COMPLETED | {"receipt": None, "limits": ["the connection was lost"]}
    says(site, unproved)
    assert answer(site.command("migrate", "web", "--to", "b")) == 0
    out = capsys.readouterr().out
    assert "no proof of this move" in out
    assert "the connection was lost" in out
    says(site, unproved)
    assert answer(site.command("migrate", "web", "--to", "b", "--json")) == 0
    assert documents(capsys.readouterr().out)[-1]["limits"] == ["the connection was lost"]


@pytest.mark.parametrize(
    ("word", "code", "exit_code"),
    [
        ("refused", 3, 3),
        ("refused", 4, 4),
        ("failed", 5, 5),
        ("failed", 6, 6),
        ("cancelled", 3, 3),
        ("in-doubt", 7, 7),
    ],
)
def test_each_bad_outcome_has_its_exit_code_and_all_keys(
    site: CliSite, capsys: Captured, word: str, code: int, exit_code: int
) -> None:
    error = {"kind": "k", "message": "what happened", "remedy": "what to do", "vm_runs_on": "a"}
    says(site, {"event": "outcome", "outcome": word, "error": {**error, "exit_code": code}})
    assert answer(site.command("migrate", "web", "--to", "b", "--json")) == exit_code
    captured = capsys.readouterr()
    last = documents(captured.out)[-1]
    assert last.keys() >= CONTRACT
    assert (last["vm"], last["source"], last["destination"], last["mode"]) == ("web", "a", "b", "live")
    assert last["vtpm"] == {"ek_same": None, "pcrs_same": None, "nv_same": None}
    assert last["error"]["vm_runs_on"] == "a"
    assert captured.err == "korora: what happened\n  the VM runs on: a\n  what to do: what to do\n"


def test_an_outcome_without_its_error_still_has_one(site: CliSite, capsys: Captured) -> None:
    says(site, {"event": "outcome", "outcome": "failed"})
    assert answer(site.command("migrate", "web", "--to", "b", "--json")) == 6
    assert documents(capsys.readouterr().out)[-1]["error"]["kind"] == "failed"


@pytest.mark.parametrize(
    ("words", "code", "kind"),
    [
        (("nope", "--to", "b"), 2, "unknown-vm"),
        (("web", "--to", "z"), 2, "unknown-host"),
        (("web",), 2, "usage"),
        (("web", "--to", "b", "--mode", "warp"), 2, "usage"),
    ],
)
def test_what_never_began_also_ends_with_the_contract(
    site: CliSite, capsys: Captured, words: tuple[str, ...], code: int, kind: str
) -> None:
    assert answer(site.command("migrate", *words, "--json")) == code
    last = documents(capsys.readouterr().out)[-1]
    assert last.keys() >= CONTRACT
    assert (last["outcome"], last["error"]["kind"]) == ("refused", kind)
    assert ASK not in [(asked.method, asked.path) for asked in site.a.asked]


def test_a_refusal_of_the_daemon_is_passed_on(site: CliSite, capsys: Captured) -> None:
    site.a.routes[ASK] = refusal("replayed", "used before", remedy="ask anew", vm_runs_on="a", exit_code=3)
    assert answer(site.command("migrate", "web", "--to", "b", "--json")) == 3
    last = documents(capsys.readouterr().out)[-1]
    assert (last["outcome"], last["error"]["kind"]) == ("refused", "replayed")


@pytest.mark.parametrize("content", [None, b"", b"not pem", b"-----BEGIN PRIVATE KEY-----\nAAAA\n"])
def test_an_operator_key_that_cannot_be_used_is_usage(
    site: CliSite, capsys: Captured, content: bytes | None
) -> None:
    key = site.folder / "alice.pem"
    key.unlink() if content is None else key.write_bytes(content)
    assert answer(site.command("migrate", "web", "--to", "b", "--json")) == 2
    captured = capsys.readouterr()
    assert "alice.pem" in captured.err
    assert documents(captured.out)[-1]["outcome"] == "refused"


def test_a_site_without_an_operator_says_what_to_add(site: CliSite, capsys: Captured) -> None:
    text = site.config.read_text().split("[operator]")
    site.config.write_text(text[0] + text[1][text[1].index("[hosts.a]") :])
    assert answer(site.command("migrate", "web", "--to", "b")) == 2
    assert "add [operator]" in capsys.readouterr().err


def test_h_names_the_source(site: CliSite) -> None:
    says(site, COMPLETED)
    assert answer(["-H", "a", *site.command("migrate", "web", "--to", "b")]) == 0
    assert ("GET", "/v1/vms") not in [(asked.method, asked.path) for asked in site.a.asked]


# -- Ctrl-C ------------------------------------------------------------------------------------------------


def test_ctrl_c_cancels_and_waits_for_the_outcome(site: CliSite, capsys: Captured) -> None:
    cancelled = threading.Event()

    def events() -> Iterator[bytes]:
        yield from lines(progress("transfer", 0.3))
        os.kill(os.getpid(), signal.SIGINT)
        assert cancelled.wait(10)
        yield from lines(
            {
                "event": "outcome", "outcome": "cancelled",
                "error": {"kind": "cancelled", "message": "cancelled", "vm_runs_on": "a", "exit_code": 3},
            }
        )  # fmt: skip

    def cancel(_: object) -> Answer:
        cancelled.set()
        return Answer({}, status=202)

    site.a.routes[EVENTS] = lambda _: Answer(events())
    site.a.routes[CANCEL] = cancel
    before = signal.getsignal(signal.SIGINT)  # who runs the tests in the background has it ignored
    assert answer(site.command("migrate", "web", "--to", "b", "--json")) == 3
    captured = capsys.readouterr()
    assert documents(captured.out)[-1]["outcome"] == "cancelled"
    assert "the VM runs on: a" in captured.err
    assert signal.getsignal(signal.SIGINT) is before


def test_a_cancellation_that_comes_too_late_ends_completed(site: CliSite, capsys: Captured) -> None:
    def events() -> Iterator[bytes]:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
        yield from lines(COMPLETED)

    site.a.routes[EVENTS] = lambda _: Answer(events())
    assert answer(site.command("migrate", "web", "--to", "b")) == 0
    told = capsys.readouterr()
    assert "✓ web runs on b" in told.out
    assert "came too late" in told.err


def test_ctrl_c_before_anything_was_asked_asks_nothing(site: CliSite, capsys: Captured) -> None:
    def interrupting(_: object) -> Answer:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
        return Answer([vm("web")])

    site.a.routes["GET", "/v1/vms"] = interrupting
    assert answer(site.command("migrate", "web", "--to", "b", "--json")) == 3
    assert documents(capsys.readouterr().out)[-1]["outcome"] == "cancelled"
    assert "POST /v1/migrations" not in site.a.paths()


def test_a_third_ctrl_c_leaves_in_doubt(site: CliSite, capsys: Captured) -> None:
    def events() -> Iterator[bytes]:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
        yield from lines(progress("transfer", 0.3))

    site.a.routes[EVENTS] = lambda _: Answer(events())
    assert answer(site.command("migrate", "web", "--to", "b", "--json")) == 7
    captured = capsys.readouterr()
    assert documents(captured.out)[-1]["outcome"] == "in-doubt"
    assert "korora vm show web" in captured.err


# -- the daemon vanishes -------------------------------------------------------------------------------------


def test_a_broken_stream_is_taken_up_again(site: CliSite, capsys: Captured) -> None:
    answers = iter(
        [Answer(iter([b'{"event": "prog']), whole=False), Answer(lines(progress("verify", 0.9), COMPLETED))]
    )
    site.a.routes[EVENTS] = lambda _: next(answers)
    assert answer(site.command("migrate", "web", "--to", "b", "--json")) == 0
    note = documents(capsys.readouterr().out)[0]
    assert note["event"] == "note"
    assert "was lost" in note["message"]


def restarted(site: CliSite) -> None:
    """The stream breaks, and the daemon does not know the migration any more."""
    answers = iter([Answer(iter([]), whole=False)])
    unknown = refusal("unknown-migration", "no such migration", exit_code=2, status=404)
    site.a.routes[EVENTS] = lambda _: next(answers, unknown)


def outcome_after_restart(site: CliSite, capsys: Captured) -> tuple[int, dict[str, Any]]:
    restarted(site)
    code = answer(site.command("-H", "a", "migrate", "web", "--to", "b", "--json"))
    last = documents(capsys.readouterr().out)[-1]
    assert last.keys() >= CONTRACT
    return code, last


def test_a_restarted_source_that_owns_the_vm_did_not_move_it(site: CliSite, capsys: Captured) -> None:
    code, last = outcome_after_restart(site, capsys)
    assert (code, last["outcome"], last["error"]["vm_runs_on"]) == (6, "failed", "a")


def test_a_vm_that_arrived_with_its_receipt_is_completed(site: CliSite, capsys: Captured) -> None:
    knows(site.a, vm("web", state="stopped", ownership="wiped", epoch=2))
    knows(site.b, vm("web", epoch=2, session="5e55"))
    site.b.routes["GET", "/v1/receipts"] = Answer([{"session": "5e55", "path": "/b/5e55.json"}])
    code, last = outcome_after_restart(site, capsys)
    assert (code, last["outcome"], last["receipt"], last["session"]) == (
        0,
        "completed",
        "/b/5e55.json",
        "5e55",
    )


@pytest.mark.parametrize(("source", "destination"), [("taken-over", None), ("released", "owner")])
def test_a_vm_that_is_proved_to_run_there_is_not_in_doubt_though_it_has_no_receipt(
    site: CliSite, capsys: Captured, source: str, destination: str | None
) -> None:
    knows(site.a, vm("web", state="stopped", ownership=source, epoch=2))
    if destination is not None:
        knows(site.b, vm("web", ownership=destination, epoch=2))
    code, last = outcome_after_restart(site, capsys)
    assert (code, last["outcome"], last["error"]["vm_runs_on"]) == (6, "failed", "b")
    assert (last["error"]["kind"], last["receipt"]) == ("no-receipt", None)


def test_a_vm_whose_first_run_is_not_noted_is_in_doubt(site: CliSite, capsys: Captured) -> None:
    knows(site.a, vm("web", state="paused", ownership="released", epoch=2))
    knows(site.b, vm("web", state="paused", ownership="starting", epoch=2))
    code, last = outcome_after_restart(site, capsys)
    assert (code, last["outcome"], last["error"]["vm_runs_on"]) == (7, "in-doubt", None)


def test_a_released_vm_that_nobody_owns_is_in_doubt(site: CliSite, capsys: Captured) -> None:
    knows(site.a, vm("web", state="paused", ownership="released", epoch=2))
    code, last = outcome_after_restart(site, capsys)
    assert (code, last["outcome"], last["error"]["vm_runs_on"]) == (7, "in-doubt", None)


def test_a_daemon_that_never_comes_back_leaves_it_in_doubt(site: CliSite, capsys: Captured) -> None:
    def dying(_: object) -> Answer:
        site.a.socket.unlink()
        return Answer(iter([]), whole=False)

    site.a.routes[EVENTS] = dying
    assert answer(site.command("migrate", "web", "--to", "b", "--json")) == 7
    captured = capsys.readouterr()
    assert documents(captured.out)[-1]["outcome"] == "in-doubt"
    assert "Destroy nothing by hand" in captured.err


def test_an_owner_whose_migration_may_go_on_is_not_said_to_have_stayed(
    site: CliSite, capsys: Captured
) -> None:
    site.a.routes[EVENTS] = lambda _: Answer(iter([b"garbage\n"]))
    assert answer(site.command("migrate", "web", "--to", "b", "--json")) == 7
    assert documents(capsys.readouterr().out)[-1]["error"]["vm_runs_on"] is None


def test_a_bug_while_it_runs_still_ends_with_the_contract(
    site: CliSite, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("korora.cli.migration.follow.follow", broken)
    assert answer(site.command("migrate", "web", "--to", "b", "--json")) == 1
    last = documents(capsys.readouterr().out)[-1]
    assert last.keys() >= CONTRACT
    assert last["error"]["kind"] == "bug"


def test_a_closed_terminal_does_not_end_the_watch(site: CliSite, tmp_path: Path) -> None:
    """`korora migrate --json | head -1` exits with the migration's own code."""
    import subprocess
    import sys

    says(site, *(progress("transfer", index / 2000) for index in range(2000)), COMPLETED)
    words = site.command("migrate", "web", "--to", "b", "--json")
    program = f"from korora.cli.main import run; run({words!r})"
    done = subprocess.run(
        ["bash", "-c", 'set -o pipefail; "$0" -c "$1" | head -n 1', sys.executable, program],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["event"] == "progress"


def test_a_daemon_lost_before_it_answered_leaves_it_in_doubt(site: CliSite, capsys: Captured) -> None:
    site.a.routes[ASK] = lambda _: Answer(iter([b'{"id": ']), whole=False)
    assert answer(site.command("migrate", "web", "--to", "b", "--json")) == 7
    last = documents(capsys.readouterr().out)[-1]
    assert (last["outcome"], last["error"]["vm_runs_on"]) == ("in-doubt", None)
    assert "not known whether the migration began" in last["error"]["message"]


def test_what_was_refused_at_once_says_where_the_vm_was_seen(site: CliSite, capsys: Captured) -> None:
    site.a.routes[ASK] = refusal("not-allowed", "no rule allows it", exit_code=3)
    assert answer(site.command("migrate", "web", "--to", "b", "--json")) == 3
    assert documents(capsys.readouterr().out)[-1]["error"]["vm_runs_on"] == "a"
