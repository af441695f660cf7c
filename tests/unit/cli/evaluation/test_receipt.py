"""`korora evaluate --receipt`: what a receipt shows is scored, what was changed is told and exits with 5."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace as replace_struct

from fakes import evaluated_site, receipts
from fakes.cli_site import documents
from fakes.evaluated_site import NOT_BUILT, Document, evaluated, evidence, verdicts
from korora.cli.main import answer
from korora.model.evidence import WipeCertificate
from korora.model.identity import sha256
from korora.model.plan import Mode
from korora.policy.evaluation.migration import MIGRATION
from korora.protocol.receipt.document import MAX_BUNDLE_BYTES, Flags, GuestBoot, Limit, Timings

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    evaluated_site.prepared(tmp_path, monkeypatch)
    return tmp_path


def of_receipt(folder: Path, capsys: Captured, told: receipts.Told, code: int = 0) -> Document:
    (folder / "receipt.json").write_bytes(receipts.bundle(told))
    return evaluated(capsys, "--receipt", str(folder / "receipt.json"), code=code)


def test_a_good_migration_meets_all_that_this_version_can_show(folder: Path, capsys: Captured) -> None:
    document = evaluated(capsys, "--receipt", str(folder / "receipt.json"))
    found = verdicts(document)
    assert {name for name, verdict in found.items() if verdict == "not looked at"} == NOT_BUILT
    partly = {"vtpm", "disks", "files"}  # its state was in the stream; nothing was compared afterwards
    assert {name for name, verdict in found.items() if verdict == "partly"} == partly
    assert {verdict for name, verdict in found.items() if name not in {*NOT_BUILT, *partly}} == {"met"}
    assert document["score"]["percent"] == 100 * (39 - 1 - 0.5 - 1 - 1) // 39
    assert (document["holds"], document["error"]) == (True, None)
    assert {advice["criterion"] for advice in document["advice"]} == {*NOT_BUILT, *partly}


def test_every_finding_leads_to_its_evidence(folder: Path, capsys: Captured) -> None:
    document = evaluated(capsys, "--receipt", str(folder / "receipt.json"))
    found = evidence(document)
    for shown in found.values():
        assert (shown["standing"] is None) == (shown["links"] == []), shown
    links = [link for shown in found.values() for link in shown["links"]]
    assert {link["place"] for link in links} == {"receipt", "check", "statement", "log", "configuration"}
    request = found["request", None]["links"]
    assert {"place": "configuration", "where": f"{folder}/authorization.toml:1"}.items() <= request[
        -1
    ].items()
    assert found["source-log", None]["links"][-1]["where"] == "north: entry 5 of 6"


def test_the_same_evidence_gives_the_same_document(folder: Path, capsys: Captured) -> None:
    first, second = (evaluated(capsys, "--receipt", str(folder / "receipt.json")) for _ in range(2))
    assert {**first, "made_at": 0} == {**second, "made_at": 0}


@pytest.mark.parametrize(
    ("fields", "criterion", "verdict"),
    [
        ({"prechecks": ("cpu",)}, "prechecks", "partly"),
        ({"prechecks": ()}, "prechecks", "partly"),
        (
            {
                "clean_memory": None,
                "limits": (Limit.MEMORY_NOT_PROVED, Limit.VTPM_IN_STREAM),
            },
            "hygiene",
            "partly",
        ),
        ({"wipe": WipeCertificate((), ("nothing was reached",))}, "hygiene", "partly"),
        ({"guest_boot": None}, "vtpm", "partly"),
        ({"guest_boot": GuestBoot(verdict="learned")}, "vtpm", "partly"),
        ({"guest_boot": GuestBoot(verdict="untrusted")}, "vtpm", "partly"),
        ({"timings": Timings(phases={}, downtime_ms=5_000, total_ms=6_000)}, "interruption", "partly"),
        ({"timings": Timings(phases={}, downtime_ms=60_000, total_ms=6_000)}, "interruption", "partly"),
        ({"timings": Timings(phases={}, downtime_ms=None, total_ms=6_000)}, "interruption", "partly"),
        (
            {"ownership": evaluated_site.with_definition(beside={"dossier": sha256(b"dossier")})},
            "configuration",
            "not met",
        ),
        (
            {"inspection": replace_struct(receipts.INSPECTION, checks=receipts.INSPECTION.checks[:3])},
            "malware",
            "not met",
        ),
        ({"flags": Flags(record=receipts.FLAGS.record, open=1, resolved=0)}, "flags", "partly"),
    ],
)
def test_what_a_receipt_lacks_costs_its_criterion(
    folder: Path, fields: dict[str, Any], criterion: str, verdict: str, capsys: Captured
) -> None:
    best = evaluated(capsys, "--receipt", str(folder / "receipt.json"))
    document = of_receipt(folder, capsys, evaluated_site.near_ideal(**fields))
    assert verdicts(document)[criterion] == verdict
    assert document["score"]["percent"] < best["score"]["percent"]
    assert document["holds"]
    others = {name: it for name, it in verdicts(best).items() if name != criterion}
    assert {name: verdicts(document)[name] for name in others} == others
    assert criterion in [advice["criterion"] for advice in document["advice"]]


def test_a_request_that_is_valid_for_long_is_worth_less(folder: Path, capsys: Captured) -> None:
    assert verdicts(of_receipt(folder, capsys, evaluated_site.lasting(3_600)))["replay"] == "met"
    assert verdicts(of_receipt(folder, capsys, evaluated_site.lasting(3_601)))["replay"] == "partly"


LESS = replace(receipts.CARRIED, payload_bytes=1)
LATER = replace_struct(receipts.MOVE, epoch=3)


@pytest.mark.parametrize(
    ("fields", "criterion"),
    [
        ({"mode": Mode.OFFLINE}, "authorization"),
        ({"completed_at": receipts.AT - 4_000}, "replay"),
        ({"binding": b"\0" * 32}, "authentication"),
        ({"ownership": evaluated_site.with_definition(receipts.Told(arrived=LESS))}, "channel"),
        ({"ownership": evaluated_site.with_definition(receipts.Told(move=LATER))}, "ownership"),
        ({"limits": ()}, "vtpm"),
        ({"session": "0" * 128}, "channel"),
    ],
)
def test_a_story_that_does_not_hold_is_told_also_when_both_hosts_signed_it(
    folder: Path, fields: dict[str, Any], criterion: str, capsys: Captured
) -> None:
    document = of_receipt(folder, capsys, evaluated_site.near_ideal(**fields), code=5)
    assert verdicts(document)[criterion] != "met"
    assert document["error"]["kind"] == "verification-failed"
    assert not document["holds"]


@pytest.mark.parametrize("place", [0, 1000, 5000, -10])
def test_a_changed_byte_is_told_and_exits_with_5(folder: Path, place: int, capsys: Captured) -> None:
    best = evaluated(capsys, "--receipt", str(folder / "receipt.json"))
    data = bytearray((folder / "receipt.json").read_bytes())
    data[place] ^= 1
    (folder / "receipt.json").write_bytes(data)
    assert answer(["evaluate", "--receipt", str(folder / "receipt.json"), "--json"]) == 5
    captured = capsys.readouterr()
    (document,) = documents(captured.out)
    assert document["score"]["percent"] < best["score"]["percent"]
    assert (document["holds"], document["error"]["exit_code"]) == (False, 5)
    assert "does not hold" in captured.err


@pytest.mark.parametrize("content", [b"", b"garbage", b"{}", b"\xff", b"[" * 5000, b"\0" * 100, b"<script>"])
def test_what_is_no_receipt_is_worth_nothing(folder: Path, content: bytes, capsys: Captured) -> None:
    (folder / "receipt.json").write_bytes(content)
    document = evaluated(capsys, "--receipt", str(folder / "receipt.json"), code=5)
    assert document["score"]["percent"] == 0
    assert set(verdicts(document).values()) == {"not looked at"}
    assert "bundle" in document["error"]["message"]


def test_of_a_huge_file_no_more_is_read_than_a_receipt_may_have(folder: Path, capsys: Captured) -> None:
    with (folder / "receipt.json").open("r+b") as file:
        file.truncate(1 << 36)  # a hole: it takes no room on the disk, and all memory if it is read whole
    document = evaluated(capsys, "--receipt", str(folder / "receipt.json"), code=5)
    assert f"{MAX_BUNDLE_BYTES + 1} bytes" in document["process"][0]
    assert answer(["receipt", "verify", str(folder / "receipt.json")]) == 5
    assert answer(["receipt", "show", str(folder / "receipt.json")]) == 2


def test_the_anchors_of_another_site_leave_nothing_of_a_receipt(folder: Path, capsys: Captured) -> None:
    evaluated_site.other_authority(folder)
    document = evaluated(capsys, "--receipt", str(folder / "receipt.json"), code=5)
    assert document["score"]["percent"] == 0
    assert "not believed" in evidence(document)["ownership", None]["found"]
    assert "trust anchors" in document["error"]["remedy"]


def test_an_operator_whom_nobody_knows_authorized_nothing(folder: Path, capsys: Captured) -> None:
    (folder / "others.toml").write_text(f'[operators.bob]\nkey = "{"0" * 64}"\n')
    words = ("--receipt", str(folder / "receipt.json"), "--operators", str(folder / "others.toml"))
    assert verdicts(evaluated(capsys, *words, code=5))["authorization"] == "not met"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--receipt", "/nowhere/receipt.json"], "/nowhere/receipt.json"),
        (["--receipt", "receipt.json", "--host", "north"], "two different targets"),
        (["--operators", "authorization.toml"], "belongs to --receipt"),
        (["--host", "nobody"], "no host 'nobody'"),
        (["--receipt", "receipt.json", "--operators", "nowhere.toml"], "nowhere.toml"),
        (["--receipt", "receipt.json", "--html", "receipt.json"], "take the place of the receipt"),
        (["--receipt", "receipt.json", "--html", "nowhere/page.html"], "cannot be written"),
        (["--receipt", "receipt.json", "--html", "."], "cannot be written"),
    ],
)
def test_a_command_line_that_cannot_be_followed_is_usage(
    folder: Path, words: list[str], told: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    before = (folder / "receipt.json").read_bytes()
    assert answer(["evaluate", *words]) == 2
    captured = capsys.readouterr()
    assert told in captured.err
    assert captured.out == ""
    assert (folder / "receipt.json").read_bytes() == before


def test_a_host_before_the_command_is_no_target_beside_a_receipt(folder: Path, capsys: Captured) -> None:
    assert answer(["-H", "north", "evaluate", "--receipt", str(folder / "receipt.json")]) == 2
    assert "two different targets" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["authority", "manufacturers", "reference_values", "authorization"])
@pytest.mark.parametrize("receipt", [True, False])
def test_a_missing_trust_anchor_is_named(folder: Path, key: str, receipt: bool, capsys: Captured) -> None:
    lines = evaluated_site.CONFIGURATION.splitlines()
    (folder / "korora.toml").write_text("\n".join(line for line in lines if not line.startswith(f"{key} =")))
    words = ["--receipt", str(folder / "receipt.json")] if receipt else []
    assert answer(["evaluate", *words]) == 2
    assert f"add {key} to [site]" in capsys.readouterr().err


def test_people_read_the_score_the_evidence_and_what_would_raise_it(folder: Path, capsys: Captured) -> None:
    assert answer(["evaluate", "--receipt", str(folder / "receipt.json")]) == 0
    out = capsys.readouterr().out
    for criterion in MIGRATION.criteria:
        assert f"{criterion.requirement} {criterion.id}: " in out
    for told in (
        "91 of 100: 12 met, 3 partly, 0 not met, 1 not looked at",
        "what would raise the score",
        "north: entry 5 of 6",
        "korora vm verify",
        "how it was made",
    ):
        assert told in out
