"""A real migration, and the site that made it, are evaluated: every score rests on evidence that is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from end_to_end.travelling import Traveller
from korora.policy.evaluation.migration import MIGRATION

pytestmark = pytest.mark.end_to_end

PROVED = [
    "authorization",
    "authentication",
    "channel",
    "replay",
    "non-repudiation",
    "ownership",
    "configuration",
]
NOT_BUILT = ["second-person"]
NOT_INSPECTED = ["disks", "files", "malware", "flags"]


def verdicts(document: dict[str, Any]) -> dict[str, str]:
    return {one["id"]: one["verdict"] for one in document["criteria"]}


def test_a_migration_meets_what_its_receipt_proves_and_is_told_what_is_missing(
    walker: Traveller, tmp_path: Path
) -> None:
    receipt, page = walker.last_move()["receipt"], tmp_path / "report.html"
    told = walker.lab.answer("evaluate", "--receipt", receipt, "--html", str(page))
    found = verdicts(told)
    assert {name: found[name] for name in PROVED} == dict.fromkeys(PROVED, "met")
    assert {name: found[name] for name in NOT_BUILT} == dict.fromkeys(NOT_BUILT, "not looked at")
    assert {name: found[name] for name in NOT_INSPECTED} == dict.fromkeys(NOT_INSPECTED, "not met")
    assert (found["prechecks"], found["hygiene"]) == ("met", "partly")
    assert told["holds"]
    assert 50 < told["score"]["percent"] < 100
    assert {advice["criterion"] for advice in told["advice"]} >= {*NOT_BUILT, *NOT_INSPECTED, "hygiene"}
    for one in told["criteria"]:
        for shown in one["evidence"]:
            assert (shown["standing"] is None) == (shown["links"] == []), shown
    assert all(f'id="{criterion.id}"' in page.read_text() for criterion in MIGRATION.criteria)


def test_a_migration_whose_receipt_was_changed_is_told_and_is_worth_nothing(
    walker: Traveller, tmp_path: Path
) -> None:
    data = Path(walker.last_move()["receipt"]).read_bytes()
    changed = tmp_path / "changed.json"
    place = data.index(b'"payload"') + 2000
    changed.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    done = walker.lab.korora("evaluate", "--receipt", str(changed), "--json")
    assert done.returncode == 5, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert (told["holds"], told["score"]["percent"]) == (False, 0)
    assert told["error"]["kind"] == "verification-failed"


def test_a_site_is_evaluated_by_what_its_hosts_show(walker: Traveller) -> None:
    moved = walker.last_move()
    told = walker.lab.answer("evaluate")
    assert told["target"]["hosts"] == ["a", "b", "c"]
    assert told["holds"]
    evidence = {
        (shown["fact"], shown["host"]): shown for one in told["criteria"] for shown in one["evidence"]
    }
    for host in ("a", "b", "c"):
        for fact in ("answers", "trusted", "owners", "enrolment", "files"):
            assert evidence[fact, host]["standing"] == "good", (fact, host, evidence[fact, host])
    for host in (moved["source"], moved["destination"]):
        for fact in ("receipts", "decisions", "recent/non-repudiation", "recent/authentication"):
            assert evidence[fact, host]["standing"] == "good", (fact, host, evidence[fact, host])
            assert any(link["where"].startswith(f"{host}: entry") for link in evidence[fact, host]["links"])
        assert evidence["second-person", host]["standing"] == "lacking"


def test_one_host_is_evaluated_alone(walker: Traveller) -> None:
    told = walker.lab.answer("evaluate", "--host", walker.last_move()["source"])
    assert told["target"]["hosts"] == [walker.last_move()["source"]]
    assert verdicts(told)["rules"] == "met"
