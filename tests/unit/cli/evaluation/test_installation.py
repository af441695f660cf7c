"""`korora evaluate`: what hosts, logs and configuration show is scored; a silent host helps nobody."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes import evaluated_site, receipts
from fakes.cli_site import documents, vm
from fakes.daemon import Answer, FakeDaemon, refusal, serving
from fakes.evaluated_site import CLOCK, NOT_BUILT, Document, evaluated, evidence, verdicts
from korora.cli.diagnosis import Symptom
from korora.cli.main import answer
from korora.model.identity import sha256
from korora.policy.appraisal import Untrusted
from korora.policy.evaluation.installation import INSTALLATION
from korora.protocol import log

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    evaluated_site.prepared(tmp_path, monkeypatch)
    return tmp_path


@pytest.fixture
def north(folder: Path) -> Iterator[FakeDaemon]:
    with serving(FakeDaemon("north", folder / "north.sock")) as daemon:
        evaluated_site.speaks(daemon, evaluated_site.near_ideal())
        yield daemon


@pytest.fixture
def south(folder: Path) -> Iterator[FakeDaemon]:
    with (folder / "korora.toml").open("a") as file:
        file.write('[hosts.south]\napi = "south.sock"\n')
    with serving(FakeDaemon("south", folder / "south.sock")) as daemon:
        evaluated_site.speaks(daemon, None)
        yield daemon


def seen_twice(capsys: Captured) -> Document:
    """The second time there is a head to compare with."""
    evaluated(capsys)
    return evaluated(capsys)


def test_a_good_installation_meets_all_that_this_version_can_show(
    north: FakeDaemon, capsys: Captured
) -> None:
    first, again = evaluated(capsys), evaluated(capsys)
    assert evidence(first)["log", "north"]["standing"] == "partly"  # nothing to compare with
    found = verdicts(again)
    assert {name for name, verdict in found.items() if verdict == "not looked at"} == NOT_BUILT - {
        "second-person"
    }
    assert (found["second-person"], found["vtpm"], found["disks"]) == ("not met", "partly", "partly")
    partly = {"vtpm", "disks", "files"}
    rest = {verdict for name, verdict in found.items() if name not in {*NOT_BUILT, *partly}}
    assert rest == {"met"}
    assert again["target"] == {"kind": "installation", "name": "site test", "hosts": ["north"]}
    assert list(found) == [criterion.id for criterion in INSTALLATION.criteria]


def test_what_the_log_says_is_linked_by_its_entries(north: FakeDaemon, capsys: Captured) -> None:
    found = evidence(evaluated(capsys))
    entries = len(evaluated_site.decisions())
    assert found["receipts", "north"]["links"][0]["where"] == f"north: entry {entries}"
    assert found["decisions", "north"]["links"][0]["where"] == f"north: entry {entries - 1}"


def test_a_silent_host_counts_as_not_shown_and_keeps_no_other_from_being_looked_at(
    north: FakeDaemon, folder: Path, capsys: Captured
) -> None:
    alone = seen_twice(capsys)
    with (folder / "korora.toml").open("a") as file:
        file.write('[hosts.away]\napi = "away.sock"\n[hosts.far]\naddress = "10.0.0.9:7700"\n')
    both = evaluated(capsys)
    assert both["target"]["hosts"] == ["north", "away", "far"]
    assert both["score"]["percent"] < alone["score"]["percent"]
    assert evidence(both)["trusted", "north"]["standing"] == "good"
    assert evidence(both)["trusted", "away"]["standing"] is None
    assert any("could not ask away" in step for step in both["process"])
    assert any("did not ask far" in step for step in both["process"])


def test_a_site_of_which_nobody_answers_is_not_evaluated(folder: Path, capsys: Captured) -> None:
    assert answer(["evaluate"]) == 6
    assert str(folder / "north.sock") in capsys.readouterr().err


def test_one_host_is_evaluated_alone(north: FakeDaemon, south: FakeDaemon, capsys: Captured) -> None:
    assert evaluated(capsys, "--host", "south")["target"]["hosts"] == ["south"]
    assert north.asked == []
    assert answer(["-H", "south", "evaluate", "--json"]) == 0
    assert documents(capsys.readouterr().out)[0]["target"]["hosts"] == ["south"]


def test_a_host_without_a_migration_is_told_to_make_one(
    north: FakeDaemon, south: FakeDaemon, capsys: Captured
) -> None:
    document = evaluated(capsys)
    assert evidence(document)["recent/channel", "south"]["standing"] is None
    (advice,) = [one for one in document["advice"] if one["criterion"] == "channel"]
    assert advice["remedies"] == ["south: move a VM, so that there is a receipt to look at"]


def test_a_log_that_was_rewritten_exits_with_5_and_its_migrations_count_for_nothing(
    north: FakeDaemon, capsys: Captured
) -> None:
    seen_twice(capsys)
    evaluated_site.keeps(north, evaluated_site.history(evaluated_site.near_ideal())[1:])
    document = evaluated(capsys, code=5)
    assert evidence(document)["log", "north"]["standing"] == "broken"
    assert evidence(document)["recent/channel", "north"]["standing"] is None
    assert "north: log" in document["error"]["message"]


def test_a_receipt_that_is_kept_back_costs_what_it_would_have_shown(
    north: FakeDaemon, capsys: Captured
) -> None:
    before = seen_twice(capsys)
    gone = refusal("unknown-receipt", "no such receipt", exit_code=2, status=404)
    north.routes["GET", f"/v1/receipts/{receipts.MOVE.session}"] = gone
    document = evaluated(capsys)
    assert evidence(document)["receipts", "north"]["standing"] == "lacking"
    assert verdicts(document)["channel"] == "not looked at"
    assert document["score"]["percent"] < before["score"]["percent"]


@pytest.mark.parametrize("other", [b"{}", receipts.bundle()])
def test_a_receipt_that_is_not_the_one_in_the_log_exits_with_5(
    north: FakeDaemon, other: bytes, capsys: Captured
) -> None:
    north.routes["GET", f"/v1/receipts/{receipts.MOVE.session}"] = Answer(other)
    assert evidence(evaluated(capsys, code=5))["receipts", "north"]["standing"] == "broken"


def test_a_receipt_that_was_drafted_again_is_the_one_that_counts(north: FakeDaemon, capsys: Captured) -> None:
    again = [
        *evaluated_site.history(receipts.Told()),
        *evaluated_site.history(evaluated_site.near_ideal())[-1:],
    ]
    evaluated_site.keeps(north, again)
    found = evidence(evaluated(capsys))["receipts", "north"]
    assert (found["standing"], len(found["links"])) == ("good", 1)


@pytest.mark.parametrize("first", [True, False])
def test_the_worst_of_the_newest_migrations_counts(
    north: FakeDaemon, first: bool, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = evaluated_site.history(evaluated_site.near_ideal())
    session, bundle, bad = evaluated_site.of_another_session(monkeypatch, prechecks=())
    north.routes["GET", f"/v1/receipts/{session}"] = Answer(bundle)
    evaluated_site.keeps(north, [*bad, *good] if first else [*good, *bad])
    found = evidence(evaluated(capsys))
    assert len(found["receipts", "north"]["links"]) == 2
    assert found["recent/prechecks", "north"]["standing"] == "partly"
    assert "not made" in found["recent/prechecks", "north"]["found"]
    assert found["recent/channel", "north"]["standing"] == "good"


def test_no_good_receipt_stands_in_for_that_of_another_migration(
    north: FakeDaemon, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = evaluated_site.near_ideal()
    session, _, _ = evaluated_site.of_another_session(monkeypatch)
    named = log.LogEntry(kind="receipt", vm="web", session=session, digest=sha256(receipts.envelope(good)))
    north.routes["GET", f"/v1/receipts/{session}"] = Answer(receipts.bundle(good))
    evaluated_site.keeps(north, [*evaluated_site.history(good), named.leaf()])
    assert evidence(evaluated(capsys, code=5))["receipts", "north"]["standing"] == "broken"


def test_two_hosts_that_own_one_vm_exit_with_5(
    north: FakeDaemon, south: FakeDaemon, capsys: Captured
) -> None:
    for daemon in (north, south):
        daemon.routes["GET", "/v1/vms"] = Answer([vm("web", vtpm=True, boot={"verdict": "trusted"})])
    document = evaluated(capsys, code=5)
    assert verdicts(document)["ownership"] == "not met"
    assert evidence(document)["owners", "south"]["standing"] == "broken"


@pytest.mark.parametrize(
    ("view", "facts"),
    [
        (vm("web", vtpm=True, boot={"verdict": "trusted"}), ("good", "good", "good")),
        (vm("web", vtpm=True, boot={"verdict": "learned"}), ("good", "good", "partly")),
        (vm("web", vtpm=False), ("good", "lacking", "lacking")),
        (vm("web", vtpm=True, ownership="in-doubt"), ("partly", "good", "good")),
    ],
)
def test_what_runs_on_a_host_is_looked_at(
    north: FakeDaemon, view: Document, facts: tuple[str, ...], capsys: Captured
) -> None:
    north.routes["GET", "/v1/vms"] = Answer([view])
    found = evidence(evaluated(capsys))
    assert tuple(found[fact, "north"]["standing"] for fact in ("owners", "vtpms", "boots")) == facts


def test_a_daemon_of_another_host_shows_nothing_of_this_one(north: FakeDaemon, capsys: Captured) -> None:
    north.routes["GET", "/v1/host"] = Answer(evaluated_site.host_view("south"))
    found = evidence(evaluated(capsys))
    assert found["answers", "north"]["standing"] == "lacking"
    assert {found[fact, "north"]["standing"] for fact in ("tpm", "trusted", "log", "owners")} == {None}


def test_a_host_that_is_not_trusted_authenticates_nothing(
    north: FakeDaemon, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = Untrusted("pcr-mismatch", "PCR 7 is another", "boot it as it was")
    monkeypatch.setattr("korora.cli.evidence.host.appraise_host", lambda *_, **__: refused)
    document = evaluated(capsys)
    assert verdicts(document)["authentication"] == "not met"
    assert "north: boot it as it was" in str(document["advice"])


def test_a_host_that_is_not_enrolled_is_told_how_and_is_no_violation(
    north: FakeDaemon, capsys: Captured
) -> None:
    north.routes["GET", "/v1/host"] = Answer(evaluated_site.host_view("north", enrolled=False))
    north.routes["POST", "/v1/attestation"] = Answer(
        {**evaluated_site.attestation("north"), "certificate": None}
    )
    document = evaluated(capsys)
    assert evidence(document)["log", "north"]["standing"] == "lacking"
    assert "korora host enroll north" in str(document["advice"])


@pytest.mark.parametrize(
    ("leaves", "verdict"),
    [
        (evaluated_site.decisions(), "met"),
        (evaluated_site.decisions()[:-1], "partly"),
        (evaluated_site.decisions(answer="no"), "not met"),
        ([], "not met"),
    ],
)
def test_steps_that_the_rules_were_not_asked_for_are_missed(
    north: FakeDaemon, leaves: list[bytes], verdict: str, capsys: Captured
) -> None:
    receipt = evaluated_site.history(evaluated_site.near_ideal())[-1]
    evaluated_site.keeps(north, [*leaves, receipt])
    assert verdicts(evaluated(capsys))["rules"] == verdict


def test_an_approval_in_the_log_is_a_second_person(north: FakeDaemon, capsys: Captured) -> None:
    told = evaluated_site.history(evaluated_site.near_ideal())
    evaluated_site.keeps(north, [*told, evaluated_site.decisions(["submit", "approve"])[1]])
    assert verdicts(evaluated(capsys))["second-person"] == "met"


@pytest.mark.parametrize(
    ("more", "fact", "standing"),
    [
        ({"problems": [{"message": "the rules cannot be used", "remedy": "mend"}]}, "files", "lacking"),
        ({"tpm_ok": False, "tpm_trouble": "it is locked"}, "tpm", "lacking"),
        ({"tpm_ok": None}, "tpm", None),
        ({"hypervisor": {"accelerator": "tcg", "accelerator_note": "no KVM"}}, "accelerator", "partly"),
        ({"hypervisor": None}, "accelerator", None),
    ],
)
def test_what_a_daemon_says_of_its_host_is_looked_at(
    north: FakeDaemon, more: Document, fact: str, standing: str | None, capsys: Captured
) -> None:
    north.routes["GET", "/v1/host"] = Answer(evaluated_site.host_view("north", **more))
    assert evidence(evaluated(capsys))[fact, "north"]["standing"] == standing


def test_one_key_under_two_names_is_one_person_and_no_file_to_judge_by(
    north: FakeDaemon, folder: Path, capsys: Captured
) -> None:
    key = receipts.judge().operators[receipts.REQUEST.operator].hex()
    with (folder / "authorization.toml").open("a") as file:
        file.write(f'[operators.alias]\nkey = "{key}"\n')
    assert answer(["evaluate"]) == 2
    assert "they are one person" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "content", "facts"),
    [
        ("examples.toml", None, ("good", "good", "lacking")),
        ("examples.toml", "", ("good", "good", "lacking")),
        ("examples.toml", "[[example", ("good", "good", "lacking")),
        (
            "examples.toml",
            evaluated_site.EXAMPLES.replace('expect = "yes"', 'expect = "no"'),
            ("good", "good", "lacking"),
        ),
        ("policies/web.cedar", "permit (", ("good", "lacking", "lacking")),
        ("authorization.toml", "", ("lacking", "good", "lacking")),
    ],
)
def test_the_sites_policies_are_tried_on_its_own_examples(
    north: FakeDaemon,
    folder: Path,
    file: str,
    content: str | None,
    facts: tuple[str, ...],
    capsys: Captured,
) -> None:
    path = folder / file
    path.unlink() if content is None else path.write_text(content)
    code = 5 if file == "authorization.toml" else 0  # nobody is known who could have signed the request
    found = evidence(evaluated(capsys, code=code))
    assert tuple(found[fact, None]["standing"] for fact in ("operators", "policies", "examples")) == facts


QUESTION = {
    "id": "ab",
    "why": "uncovered",
    "operator": "alice",
    "procedure": "migrate",
    "vm": "web",
    "source": "north",
    "destination": "south",
    "mode": "live",
    "reason": "",
    "asked_at": 0,
    "times": 1,
}


@pytest.mark.parametrize(("stage", "verdict"), [("open", "partly"), ("answered", "met"), (None, "met")])
def test_a_question_that_waits_costs_points(
    north: FakeDaemon, stage: str | None, verdict: str, capsys: Captured
) -> None:
    asked = [{**QUESTION, "stage": stage}] if stage is not None else []
    north.routes["GET", "/v1/questions"] = Answer(asked)
    assert verdicts(evaluated(capsys))["questions"] == verdict


@pytest.mark.parametrize(
    ("clock", "standing"),
    [
        (CLOCK, "good"),
        (Symptom("machine", "clock", False, "not synchronized", "apt-get install chrony", False), "lacking"),
    ],
)
def test_a_clock_that_nobody_keeps_costs_points(
    north: FakeDaemon, clock: Symptom, standing: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("korora.cli.evaluation.site.examine", lambda _: [clock])
    assert evidence(evaluated(capsys))["clock", None]["standing"] == standing
