"""Evidence is held against the ideal: what is missing never helps, and what is not shown is not met."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from korora.policy.evaluation.evidence import SITE, Evidence, Finding, Kind, Slot, Standing, Target, filed
from korora.policy.evaluation.installation import INSTALLATION, RECENT
from korora.policy.evaluation.migration import MIGRATION
from korora.policy.evaluation.scoring import Report, Verdict, evaluate
from korora.policy.evaluation.yardstick import Criterion, Need, Scope, Yardstick

ONE = Target(Kind.MIGRATION, "web")
SITE_OF_TWO = Target(Kind.INSTALLATION, "the site", ("north", "south"))
CASES = [(MIGRATION, ONE), (INSTALLATION, SITE_OF_TWO)]
RANK = {Verdict.MET: 2, Verdict.PARTLY: 1, Verdict.NOT_MET: 0, Verdict.NOT_LOOKED_AT: 0}


def slots(yardstick: Yardstick, target: Target) -> list[Slot]:
    """Every place where evidence can be filed, with what is only rested on."""
    named: dict[Slot, None] = {}
    for criterion in yardstick.criteria:
        for need in criterion.needs:
            for subject in need.subjects(target):
                named |= dict.fromkeys((fact, subject) for fact in (need.fact, *need.rests_on))
    return list(named)


def evidence_of(standings: Mapping[Slot, Standing]) -> Evidence:
    return filed(
        Finding(fact, standing, "seen", subject=subject) for (fact, subject), standing in standings.items()
    )


def all_good(yardstick: Yardstick, target: Target) -> dict[Slot, Standing]:
    return dict.fromkeys(slots(yardstick, target), Standing.GOOD)


def judged(yardstick: Yardstick, target: Target, standings: Mapping[Slot, Standing]) -> Report:
    return evaluate(target, yardstick, evidence_of(standings))


def verdict(report: Report, criterion: str) -> Verdict:
    return next(one.verdict for one in report.scored if one.criterion.id == criterion)


CRITERIA = [
    pytest.param(yardstick, target, criterion, id=f"{yardstick.kind}-{criterion.id}")
    for yardstick, target in CASES
    for criterion in yardstick.criteria
]


@st.composite
def situations(draw: st.DrawFn) -> tuple[Yardstick, Target, dict[Slot, Standing], set[Slot]]:
    """Some evidence, and some of it that is then taken away."""
    yardstick, target = draw(st.sampled_from(CASES))
    choice = st.none() | st.sampled_from(Standing)
    drawn = {slot: draw(choice) for slot in slots(yardstick, target)}
    standings = {slot: standing for slot, standing in drawn.items() if standing is not None}
    removed = draw(st.sets(st.sampled_from(sorted(standings)))) if standings else set()
    return yardstick, target, standings, removed


@given(situations())
@settings(deadline=None)
def test_taking_evidence_away_never_raises_a_score(
    situation: tuple[Yardstick, Target, dict[Slot, Standing], set[Slot]],
) -> None:
    yardstick, target, standings, removed = situation
    before = judged(yardstick, target, standings)
    after = judged(yardstick, target, {slot: it for slot, it in standings.items() if slot not in removed})
    assert after.percent <= before.percent
    for old, new in zip(before.scored, after.scored, strict=True):
        assert new.score <= old.score
        assert RANK[new.verdict] <= RANK[old.verdict]


@given(situations())
@settings(deadline=None)
def test_a_criterion_is_met_by_good_evidence_of_everything_and_by_nothing_less(
    situation: tuple[Yardstick, Target, dict[Slot, Standing], set[Slot]],
) -> None:
    yardstick, target, standings, _ = situation
    for one in judged(yardstick, target, standings).scored:
        assert 0 <= one.score <= 1
        whole = all(
            standings.get((need.fact, subject)) is Standing.GOOD
            and all(
                standings.get((ground, subject)) in {Standing.GOOD, Standing.PARTLY}
                for ground in need.rests_on
            )
            for need in one.criterion.needs
            for subject in need.subjects(target)
        )
        assert (one.verdict is Verdict.MET) == whole == (one.score == 1)


@pytest.mark.parametrize(("yardstick", "target"), CASES)
def test_without_evidence_nothing_is_looked_at_and_the_score_is_nothing(
    yardstick: Yardstick, target: Target
) -> None:
    report = judged(yardstick, target, {})
    assert {one.verdict for one in report.scored} == {Verdict.NOT_LOOKED_AT}
    assert report.percent == 0
    assert len(report.advice) == len(yardstick.criteria)


@pytest.mark.parametrize(("yardstick", "target"), CASES)
def test_the_ideal_has_all_points_and_needs_no_advice(yardstick: Yardstick, target: Target) -> None:
    report = judged(yardstick, target, all_good(yardstick, target))
    assert (report.percent, report.advice, report.broken) == (100, (), ())


@pytest.mark.parametrize(("yardstick", "target", "criterion"), CRITERIA)
def test_each_criterion_is_met_by_its_own_evidence(
    yardstick: Yardstick, target: Target, criterion: Criterion
) -> None:
    own = {
        (fact, subject): Standing.GOOD
        for need in criterion.needs
        for subject in need.subjects(target)
        for fact in (need.fact, *need.rests_on)
    }
    assert verdict(judged(yardstick, target, own), criterion.id) is Verdict.MET


@pytest.mark.parametrize(("yardstick", "target", "criterion"), CRITERIA)
def test_each_criterion_is_not_met_when_all_of_it_is_lacking(
    yardstick: Yardstick, target: Target, criterion: Criterion
) -> None:
    standings = all_good(yardstick, target)
    for need in criterion.needs:
        for subject in need.subjects(target):
            standings[need.fact, subject] = Standing.LACKING
    report = judged(yardstick, target, standings)
    assert verdict(report, criterion.id) is Verdict.NOT_MET
    assert report.percent < 100
    assert criterion.id in [advice.criterion.id for advice in report.advice]


@pytest.mark.parametrize(("yardstick", "target", "criterion"), CRITERIA)
def test_each_criterion_says_what_would_raise_it_and_is_worth_something(
    yardstick: Yardstick, target: Target, criterion: Criterion
) -> None:
    assert criterion.weight > 0
    assert criterion.needs
    assert all(need.raises and need.text and need.share > 0 for need in criterion.needs)
    assert all(need.fact not in need.rests_on for need in criterion.needs)
    assert all(need.subjects(target) for need in criterion.needs)


def test_the_rows_of_the_security_requirements_and_of_the_elements_are_all_asked() -> None:
    rows = {f"S{number}" for number in range(1, 9)} | {f"E{number}" for number in range(1, 6)}
    for yardstick, _ in CASES:
        assert rows <= {criterion.requirement for criterion in yardstick.criteria}
        identifiers = [criterion.id for criterion in yardstick.criteria]
        assert len(set(identifiers)) == len(identifiers)


def test_every_criterion_of_a_migration_is_asked_of_an_installation() -> None:
    asked = {need.fact for criterion in INSTALLATION.criteria for need in criterion.needs}
    for criterion in MIGRATION.criteria:
        assert {RECENT + criterion.id, criterion.id} & asked, criterion.id


# -- one criterion, looked at closely ------------------------------------------------------------------------


def criterion(*needs: Need) -> Criterion:
    return Criterion("one", "S1", "Is it so?", "it is", 1, needs)


def scored(
    target: Target, needs: tuple[Need, ...], standings: Mapping[Slot, Standing]
) -> tuple[Verdict, float]:
    yardstick = Yardstick(target.kind, "ideal", (criterion(*needs),))
    (one,) = judged(yardstick, target, standings).scored
    return one.verdict, float(one.score)


PLAIN, OTHER = Need("plain", "plain", "mend it"), Need("other", "other", "mend that", share=3)
VITAL = Need("vital", "vital", "mend it first", vital=True)


def test_a_share_counts_as_much_as_it_says_and_half_of_it_half_as_much() -> None:
    good = {("plain", SITE): Standing.GOOD, ("other", SITE): Standing.PARTLY}
    assert scored(ONE, (PLAIN, OTHER), good) == (Verdict.PARTLY, 2.5 / 4)


def test_almost_all_is_not_all() -> None:
    found = {("plain", SITE): Standing.PARTLY, ("other", SITE): Standing.GOOD}
    verdict, score = scored(ONE, (PLAIN, replace(OTHER, share=999)), found)
    assert (verdict, score) == (Verdict.PARTLY, 0.9995)


@pytest.mark.parametrize("standing", [Standing.LACKING, Standing.BROKEN])
def test_without_what_is_vital_nothing_else_counts(standing: Standing) -> None:
    found = {("plain", SITE): Standing.GOOD, ("vital", SITE): standing}
    assert scored(ONE, (PLAIN, VITAL), found) == (Verdict.NOT_MET, 0)


def test_what_is_vital_and_was_not_looked_at_leaves_the_criterion_not_looked_at() -> None:
    assert scored(ONE, (PLAIN, VITAL), {("plain", SITE): Standing.GOOD}) == (Verdict.NOT_LOOKED_AT, 0)


def test_what_is_vital_of_one_host_does_not_void_another() -> None:
    each = replace(VITAL, scope=Scope.EACH_HOST)
    found = {("vital", "north"): Standing.GOOD, ("vital", "south"): Standing.LACKING}
    assert scored(SITE_OF_TWO, (each,), found) == (Verdict.PARTLY, 0.5)


def test_a_host_of_which_nothing_is_known_counts_as_not_shown() -> None:
    each = replace(PLAIN, scope=Scope.EACH_HOST)
    assert scored(SITE_OF_TWO, (each,), {("plain", "north"): Standing.GOOD}) == (Verdict.PARTLY, 0.5)


@pytest.mark.parametrize(
    ("ground", "expected"),
    [
        (Standing.GOOD, Verdict.MET),
        (Standing.PARTLY, Verdict.MET),
        (Standing.LACKING, Verdict.NOT_MET),
        (Standing.BROKEN, Verdict.NOT_MET),
        (None, Verdict.NOT_LOOKED_AT),
    ],
)
def test_a_finding_is_worth_what_it_rests_on(ground: Standing | None, expected: Verdict) -> None:
    resting = replace(PLAIN, rests_on=("ground",))
    found = {("plain", SITE): Standing.GOOD}
    if ground is not None:
        found["ground", SITE] = ground
    assert scored(ONE, (resting,), found)[0] is expected


def test_what_is_broken_is_told_also_where_no_criterion_asks_for_it() -> None:
    report = judged(MIGRATION, ONE, {("bundle", SITE): Standing.BROKEN})
    assert [finding.fact for finding in report.broken] == ["bundle"]
    assert report.percent == 0


def test_advice_names_each_remedy_once_with_the_hosts_it_is_for_and_the_dearest_first() -> None:
    each = replace(PLAIN, scope=Scope.EACH_HOST)
    heavy = Criterion("heavy", "S1", "?", "!", 3, (each,))
    yardstick = Yardstick(Kind.INSTALLATION, "ideal", (criterion(OTHER), heavy))
    first, second = judged(yardstick, SITE_OF_TWO, {}).advice
    assert (first.criterion.id, first.points, first.remedies) == ("heavy", 75.0, ("north, south: mend it",))
    assert (second.criterion.id, second.points, second.remedies) == ("one", 25.0, ("mend that",))


def test_the_remedy_that_a_finding_knows_is_given_before_the_general_one() -> None:
    yardstick = Yardstick(Kind.MIGRATION, "ideal", (criterion(PLAIN),))
    found = filed([Finding("plain", Standing.LACKING, "seen", remedy="do exactly this")])
    assert evaluate(ONE, yardstick, found).advice[0].remedies == ("do exactly this",)


def test_two_findings_of_one_fact_about_one_subject_are_a_mistake() -> None:
    one = Finding("plain", Standing.GOOD, "seen")
    with pytest.raises(ValueError, match="two findings of 'plain'"):
        filed([one, replace(one, standing=Standing.LACKING)])
    assert len(filed([one, replace(one, subject="north")])) == 2
