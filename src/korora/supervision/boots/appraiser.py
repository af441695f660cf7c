"""What to think of one boot: the policy of `policy.guest_boot`, put as one judgement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, assert_never

from korora.errors import KororaError
from korora.model.evidence import PcrValues
from korora.policy.guest_boot import (
    Changed,
    Unchanged,
    appraise_guest_boot,
    baseline_json,
    learn_baseline,
    parse_baseline,
)

NO_LOG = "the guest gave no event log: only its PCRs were compared"


@dataclass(frozen=True, slots=True)
class Judgement:
    """`reasons` say what is wrong with an untrusted boot, or what a trusted one could not show."""

    trusted: bool
    reasons: tuple[str, ...]
    secure_boot: bool | None


class BootAppraiser(Protocol):
    """Judges an event log (None: there is none) and the PCRs beside it. Pure; never raises."""

    def learn(self, event_log: bytes | None, pcrs: PcrValues) -> tuple[bytes, Judgement]:
        """The baseline that this boot makes; worth nothing unless the judgement is good."""
        ...

    def appraise(self, baseline: bytes, event_log: bytes | None, pcrs: PcrValues) -> Judgement: ...


class GuestBootAppraiser:
    """The appraiser in use."""

    def learn(self, event_log: bytes | None, pcrs: PcrValues) -> tuple[bytes, Judgement]:
        try:
            baseline = learn_baseline(pcrs, event_log)
        except KororaError as problem:
            return b"", Judgement(False, (problem.message,), None)
        return baseline_json(baseline), Judgement(True, _shortcoming(event_log), baseline.secure_boot)

    def appraise(self, baseline: bytes, event_log: bytes | None, pcrs: PcrValues) -> Judgement:
        try:
            appraisal = appraise_guest_boot(pcrs, event_log, parse_baseline(baseline))
        except KororaError as problem:
            return Judgement(False, (problem.message, problem.remedy), None)
        match appraisal:
            case Unchanged(secure_boot):
                return Judgement(True, _shortcoming(event_log), secure_boot)
            case Changed(findings, secure_boot):
                return Judgement(False, findings, secure_boot)
            case _:
                assert_never(appraisal)


def _shortcoming(event_log: bytes | None) -> tuple[str, ...]:
    return (NO_LOG,) if event_log is None else ()
