"""The policy's word about a boot, as a judgement: no input makes it raise."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from korora.model.evidence import PcrValues
from korora.supervision.boots.appraiser import NO_LOG, GuestBootAppraiser

PCRS: PcrValues = {pcr: f"{pcr:02x}" * 32 for pcr in range(24)}


def test_a_boot_without_a_log_is_learned_by_its_pcrs_and_says_so() -> None:
    baseline, judgement = GuestBootAppraiser().learn(None, PCRS)
    assert judgement.trusted
    assert judgement.reasons == (NO_LOG,)
    assert GuestBootAppraiser().appraise(baseline, None, PCRS).trusted


def test_another_pcr_is_named() -> None:
    baseline, _ = GuestBootAppraiser().learn(None, PCRS)
    judgement = GuestBootAppraiser().appraise(baseline, None, PCRS | {4: "ff" * 32})
    assert not judgement.trusted
    assert "PCR 4" in judgement.reasons[0]


def test_a_damaged_baseline_is_no_trust() -> None:
    judgement = GuestBootAppraiser().appraise(b"{}", None, PCRS)
    assert not judgement.trusted
    assert any("baseline" in reason for reason in judgement.reasons)


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_whatever_a_guest_writes_is_judged_and_not_trusted(log: bytes, baseline: bytes) -> None:
    assert not GuestBootAppraiser().learn(log, PCRS)[1].trusted
    assert not GuestBootAppraiser().appraise(baseline, log, PCRS).trusted
