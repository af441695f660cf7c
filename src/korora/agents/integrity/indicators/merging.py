"""Judge what several sources say of one value: whether it is in force, and where they differ."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from korora.model.indicator import Indicator, Kind, Provenance, Standing, Verdict

FAR_APART: Final = 40
"""Confidences that differ by so much are a disagreement."""


def in_force(provenance: Provenance, now: int) -> bool:
    return (
        provenance.verdict is Verdict.MALICIOUS
        and not provenance.revoked
        and (provenance.valid_from is None or provenance.valid_from <= now)
        and (provenance.expires is None or now < provenance.expires)
    )


def standing(indicator: Indicator, now: int) -> Standing:
    """One source that calls it malicious is enough; what the others say is shown as disagreement."""
    said = indicator.provenances
    if indicator.kind is Kind.KEPT:
        return Standing.NOT_MATCHED
    if any(in_force(one, now) for one in said):
        return Standing.IN_FORCE
    malicious = [one for one in said if one.verdict is Verdict.MALICIOUS and not one.revoked]
    if any(one.expires is not None and one.expires <= now for one in malicious):
        return Standing.EXPIRED
    if malicious:
        return Standing.NOT_YET
    if any(one.revoked for one in said):
        return Standing.REVOKED
    return Standing.BENIGN if any(one.verdict is Verdict.BENIGN for one in said) else Standing.CONTEXT


def disagreements(indicator: Indicator) -> tuple[str, ...]:
    """A sentence for each matter in which the sources differ."""
    said = indicator.provenances
    bad = _names(one for one in said if one.verdict is Verdict.MALICIOUS and not one.revoked)
    good = _names(one for one in said if one.verdict is Verdict.BENIGN and not one.revoked)
    gone = _names(one for one in said if one.revoked)
    found = []
    if bad and good:
        found.append(f"malicious says {bad}, benign says {good}")
    if bad and gone:
        found.append(f"malicious says {bad}, revoked by {gone}")
    sure = {one.source: one.confidence for one in said if one.confidence is not None and not one.revoked}
    if sure and max(sure.values()) - min(sure.values()) >= FAR_APART:
        told = ", ".join(f"{source} {value}" for source, value in sorted(sure.items()))
        found.append(f"confidences are far apart: {told}")
    return tuple(found)


def confidence(indicator: Indicator, now: int) -> int | None:
    """The highest of the sources whose word is in force."""
    said = [one.confidence for one in indicator.provenances if in_force(one, now)]
    return max((value for value in said if value is not None), default=None)


def _names(provenances: Iterable[Provenance]) -> str:
    return ", ".join(sorted({one.source for one in provenances}))
