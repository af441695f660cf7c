"""docs/EVALUATION.md tells the criteria that are in force, the thresholds, and the keys of the report."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fakes import evaluated_site
from korora.cli.evaluation.history import NEWEST
from korora.policy.evaluation import installation, migration
from korora.policy.evaluation.evidence import Kind, Place, Standing
from korora.policy.evaluation.installation import INSTALLATION, RECENT
from korora.policy.evaluation.migration import MIGRATION
from korora.policy.evaluation.yardstick import Need, Scope

PAGE = (Path(__file__).parents[3] / "docs" / "EVALUATION.md").read_text()


def rows(after: str) -> list[str]:
    """The rows of the table under the header that begins like this."""
    lines = PAGE[PAGE.index(after) :].splitlines()
    return [line for line in lines[2 : lines.index("", 1)] if line.startswith("|")]


def fact(need: Need) -> str:
    return need.fact + ("*" if need.vital else "") + (f" ×{need.share}" if need.share > 1 else "")


def test_every_criterion_of_a_migration_stands_in_the_table_as_it_is() -> None:
    assert rows("| criterion | requirement |") == [
        f"| {one.id} | {one.requirement} | {one.weight} | {one.ideal} | {', '.join(map(fact, one.needs))} |"
        for one in MIGRATION.criteria
    ]


def test_every_fact_of_an_installation_stands_in_the_table_as_it_is() -> None:
    assert rows("| criterion | fact |") == [
        f"| {one.id} | {fact(need)} | {need.scope if need.scope is Scope.EACH_HOST else 'the site'}"
        f" | {need.text} |"
        for one in INSTALLATION.criteria
        for need in one.needs
        if not need.fact.startswith(RECENT)
    ]


def test_what_no_receipt_has_is_named() -> None:
    never = migration.NOT_IN_A_RECEIPT
    missing = [need.fact for one in MIGRATION.criteria for need in one.needs if need.raises == never]
    assert f"({', '.join(missing)})" in PAGE


def test_thresholds_are_those_in_force() -> None:
    for said in (
        f"good up to {migration.DOWNTIME_GOOD_MS // 1000} s",
        f"partly good up to {migration.DOWNTIME_PARTLY_MS // 1000} s",
        f"good for {installation.ENROLMENT_GOOD_S // 86_400} days ahead",
    ):
        assert said in PAGE
    assert (NEWEST, migration.REQUEST_GOOD_S) == (5, 3600)
    assert "newest five migrations" in PAGE
    assert "good up to an hour" in PAGE


def test_every_key_of_the_report_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluated_site.prepared(tmp_path, monkeypatch)
    document = evaluated_site.evaluated(capsys, "--receipt", str(tmp_path / "receipt.json"))
    section = PAGE.split("## The report")[1].split("\n## ")[0]
    top = [re.findall(r"`([\w.\[\]]+)`", row.split("|")[1])[0] for row in rows("| key | what |")]
    assert [key for key in top if "[" not in key] == list(document)
    (first, *_), advice = document["criteria"], document["advice"][0]
    inner = [*document["target"], *document["score"], *first, *first["evidence"][0], *advice]
    assert [key for key in (*inner, *first["evidence"][0]["links"][0]) if f"`{key}`" not in section] == []
    assert [word for word in (*Standing, *Kind) if f"`{word}`" not in section] == []


def test_every_place_that_a_link_leads_to_is_named() -> None:
    words = {Place.COMMAND: "the command that shows it again", Place.CONFIGURATION: "configuration"}
    sentence = PAGE.split("has links to its evidence:")[1].split("\n- ")[0].replace("\n ", "")
    assert [place for place in Place if words.get(place, place.value) not in sentence] == []
