"""`korora migration` against scripted daemons: what runs is listed, followed and stopped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.cli_site import CliSite, cli_site, documents
from fakes.daemon import Answer, lines, refusal
from korora.cli.main import answer

Captured = pytest.CaptureFixture[str]
LIST = ("GET", "/v1/migrations")
EVENTS = ("GET", "/v1/migrations/m1/events")
CANCEL = ("DELETE", "/v1/migrations/m1")
RUNS = {"id": "m1", "vm": "web", "destination": "b", "phase": "transfer", "outcome": None}


def outcome(word: str, **more: Any) -> dict[str, Any]:
    said: dict[str, Any] = {
        "event": "outcome",
        "outcome": word,
        "vm": "web",
        "source": "a",
        "destination": "b",
    }
    if word != "completed":
        error = {"kind": word, "message": word, "remedy": "", "vm_runs_on": "a", "exit_code": 3}
        said["error"] = error
    return said | more


@pytest.fixture
def site(tmp_path: Path) -> Iterator[CliSite]:
    with cli_site(tmp_path) as made:
        made.a.routes[LIST] = Answer([RUNS])
        made.b.routes[LIST] = Answer([])
        made.a.routes[CANCEL] = Answer({"id": "m1"}, status=202)
        yield made


def test_what_runs_is_listed_with_where_it_began(site: CliSite, capsys: Captured) -> None:
    assert answer(site.command("migration", "list")) == 0
    shown = capsys.readouterr().out
    assert "m1" in shown
    assert "transfer" in shown
    assert answer(site.command("migration", "list", "--json")) == 0
    assert documents(capsys.readouterr().out)[0] == [{"host": "a", "migration": RUNS}]


def test_a_host_that_tells_nothing_is_named_and_keeps_no_other_from_it(
    site: CliSite, capsys: Captured
) -> None:
    site.b.routes[LIST] = refusal("not-known-here", "no operator has that account", exit_code=3, status=403)
    assert answer(site.command("migration", "list")) == 0
    told = capsys.readouterr()
    assert "m1" in told.out
    assert "no operator has that account" in told.err
    site.a.routes[LIST] = site.b.routes[LIST]
    assert answer(site.command("migration", "list")) == 3


@pytest.mark.parametrize(("word", "code"), [("completed", 0), ("cancelled", 3), ("refused", 3)])
def test_who_watches_ends_with_the_outcomes_code(site: CliSite, word: str, code: int) -> None:
    site.a.routes[EVENTS] = lambda _: Answer(lines(outcome(word)))
    assert answer(site.command("migration", "watch", "m1")) == code
    assert site.a.paths()[-1] == "GET /v1/migrations/m1/events"


def test_who_cancels_learns_where_the_vm_runs(site: CliSite, capsys: Captured) -> None:
    site.a.routes[EVENTS] = lambda _: Answer(lines(outcome("cancelled")))
    assert answer(site.command("migration", "cancel", "m1")) == 0
    assert "✓ cancelled: web runs on a" in capsys.readouterr().out
    assert "DELETE /v1/migrations/m1" in site.a.paths()


def test_who_cancels_too_late_is_told_so(site: CliSite, capsys: Captured) -> None:
    site.a.routes[EVENTS] = lambda _: Answer(lines(outcome("completed")))
    assert answer(site.command("migration", "cancel", "m1")) == 3
    assert "too late" in capsys.readouterr().err


def test_who_may_cancel_and_not_watch_is_told_that_it_was_asked(site: CliSite, capsys: Captured) -> None:
    site.a.routes[EVENTS] = refusal("not-allowed", "no policy lets bob observe", exit_code=3, status=403)
    assert answer(site.command("-H", "a", "migration", "cancel", "m1")) == 3
    assert "DELETE /v1/migrations/m1" in site.a.paths()
    assert "it was asked to stop, and its outcome is not told" in capsys.readouterr().err


def test_a_cancelling_that_is_refused_is_no_success(site: CliSite, capsys: Captured) -> None:
    site.a.routes[CANCEL] = refusal("not-allowed", "no policy lets bob cancel", exit_code=3, status=403)
    assert answer(site.command("migration", "cancel", "m1")) == 3
    assert "no policy lets bob cancel" in capsys.readouterr().err


def test_a_migration_that_nobody_tells_of_is_a_usage_error(site: CliSite, capsys: Captured) -> None:
    assert answer(site.command("migration", "watch", "m2")) == 2
    assert "m2" in capsys.readouterr().err
