"""Evidence of what the hosts share, operators and policies with their examples, and of this machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from korora.cli.diagnosis import examine
from korora.cli.evaluation.gathering import line_of
from korora.cli.invocation import Invocation
from korora.cli.rules.authorization import EXAMPLES, tried_out
from korora.errors import KororaError
from korora.model.identity import OperatorName
from korora.model.site import SiteConfiguration
from korora.policy.evaluation.evidence import Finding, Link, Place, Standing

_GOOD, _PARTLY, _LACKING = Standing.GOOD, Standing.PARTLY, Standing.LACKING
_DOCTOR: Final = (Link(Place.COMMAND, "korora doctor"),)


def of_machine(invocation: Invocation) -> Iterator[Finding]:
    """What `korora doctor` looks at."""
    symptoms = list(examine(invocation))
    bad = [symptom for symptom in symptoms if not symptom.good and symptom.needed]
    found = "; ".join(f"{symptom.what}: {symptom.found}" for symptom in bad)
    remedy = "; ".join(symptom.remedy for symptom in bad)
    yield Finding("machine", _PARTLY if bad else _GOOD, found or "is ready", _DOCTOR, remedy=remedy)
    clock = next(symptom for symptom in symptoms if symptom.what == "clock")
    silent = clock.good and "does not say" in clock.found
    standing = _PARTLY if silent else _GOOD if clock.good else _LACKING
    yield Finding("clock", standing, clock.found, _DOCTOR, remedy=clock.remedy)


def of_authorization(site: SiteConfiguration, operators: Mapping[OperatorName, bytes]) -> Iterator[Finding]:
    """As this machine has it; whether the hosts use the same, their daemons alone know."""
    path = site.authorization
    if path is None:
        return
    links = tuple(link for name in operators for link in line_of(path, f"[operators.{name}]"))
    # One key under two names is refused when the file is read.
    found = f"{len(operators)} operators, each with a key of their own" if operators else "none is known"
    yield Finding("operators", _GOOD if operators else _LACKING, found, links or (_file(path),))
    yield _policies(path)
    yield _examples(path)


def _policies(path: Path) -> Finding:
    from korora.wiring.authorization import problems

    wrong = problems(path)
    links = (_file(path), Link(Place.COMMAND, "korora policy check"))
    return Finding("policies", _LACKING if wrong else _GOOD, "; ".join(wrong) or "can be used", links)


def _examples(path: Path) -> Finding:
    examples = path.with_name(EXAMPLES)
    links = (_file(examples), Link(Place.COMMAND, "korora policy test"))
    try:
        results = tried_out(path, examples)
    except KororaError as error:
        return Finding("examples", _LACKING, error.message, links)
    other = [one.example.text for one in results if not one.as_expected]
    if other or not results:
        found = f"not as expected: {'; '.join(other)}" if other else "there are none"
        remedy = "change the policies, or what is expected of them" if other else ""
        return Finding("examples", _LACKING, found, links, remedy=remedy)
    return Finding("examples", _GOOD, f"{len(results)} of {len(results)} are as expected", links)


def _file(path: Path) -> Link:
    return Link(Place.CONFIGURATION, str(path), str(path.absolute()))
