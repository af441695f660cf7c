"""A guest's boot is compared with its first one, and what differs is named."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.attested_site import BOOT, secure_boot_variable, told
from korora.errors import IntegrityError
from korora.model.evidence import PcrValues
from korora.policy.event_log import Event, EventLog, EventType, encoded, replay
from korora.policy.guest_boot import (
    BOOT_PCRS,
    BootBaseline,
    Changed,
    Unchanged,
    appraise_guest_boot,
    baseline_json,
    learn_baseline,
    parse_baseline,
)


def booted(*story: Event) -> tuple[PcrValues, bytes]:
    return replay(EventLog(story), range(24)), encoded(story)


PCRS, LOG = booted(*BOOT)
BASELINE = learn_baseline(PCRS, LOG)


def findings(pcrs: PcrValues, log: bytes | None, baseline: BootBaseline = BASELINE) -> tuple[str, ...]:
    verdict = appraise_guest_boot(pcrs, log, baseline)
    assert isinstance(verdict, Changed)
    return verdict.findings


def test_the_same_boot_is_unchanged_and_secure_boot_is_reported() -> None:
    assert appraise_guest_boot(PCRS, LOG, BASELINE) == Unchanged(secure_boot=True)


def test_what_the_guest_measures_later_does_not_matter() -> None:
    assert isinstance(appraise_guest_boot({**PCRS, 10: "ab" * 32, 16: "cd" * 32}, LOG, BASELINE), Unchanged)


def test_another_kernel_is_named_with_both_digests() -> None:
    kernel = told(4, EventType.EV_EFI_BOOT_SERVICES_APPLICATION, b"another kernel")
    (finding,) = findings(*booted(*BOOT[:-1], kernel))
    assert finding.startswith("event 2 of PCR 4 was (PCR 4, EV_EFI_BOOT_SERVICES_APPLICATION, ")
    for event in (BOOT[-1], kernel):
        assert event.sha256 is not None
        assert event.sha256.hex() in finding


def test_an_added_and_a_missing_event_are_named() -> None:
    added = told(5, EventType.EV_EFI_ACTION, b"Exit Boot Services Invocation")
    (finding,) = findings(*booted(*BOOT, added))
    assert finding.startswith("an event was added: PCR 5, EV_EFI_ACTION")
    assert "Exit Boot Services" in finding
    (finding,) = findings(*booted(*BOOT[:-1]))
    assert finding.startswith("an event is missing: PCR 4")


def test_secure_boot_switched_off_is_said_in_words() -> None:
    off = told(7, EventType.EV_EFI_VARIABLE_DRIVER_CONFIG, secure_boot_variable(b"\0"))
    story = [off if event.kind == off.kind else event for event in BOOT]
    found = findings(*booted(*story))
    assert any("'SecureBoot'" in finding for finding in found)
    assert "Secure Boot is off; it is on before" in found or any(
        "Secure Boot is off" in text for text in found
    )


def test_a_log_that_does_not_replay_is_a_finding() -> None:
    (finding,) = findings({**PCRS, 2: "ab" * 32}, LOG)
    assert "PCR 2" in finding


def test_a_malformed_log_is_a_finding() -> None:
    for log in (b"", b"\1\2\3", LOG[:-1]):
        (finding,) = findings(PCRS, log)
        assert "event log" in finding


def test_a_guest_that_no_longer_tells_its_boot_is_a_finding() -> None:
    (finding,) = findings(PCRS, None)
    assert "no event log" in finding


def test_without_a_log_the_pcrs_alone_are_compared() -> None:
    silent = learn_baseline(PCRS, None)
    assert appraise_guest_boot(PCRS, None, silent) == Unchanged(None)
    assert appraise_guest_boot(PCRS, LOG, replace(silent, secure_boot=True)) == Unchanged(True)
    (finding,) = findings({**PCRS, 9: "ab" * 32}, None, silent)
    assert finding.startswith("PCR 9 was 0000")


def test_a_log_that_is_not_this_boots_cannot_become_the_baseline() -> None:
    with pytest.raises(IntegrityError):
        learn_baseline({**PCRS, 0: "ab" * 32}, LOG)
    with pytest.raises(IntegrityError):
        learn_baseline({}, None)


def test_a_baseline_survives_its_file() -> None:
    assert parse_baseline(baseline_json(BASELINE)) == BASELINE
    assert set(BASELINE.pcrs) == set(BOOT_PCRS)


@given(st.binary(max_size=200) | st.integers(0, 500).map(lambda end: baseline_json(BASELINE)[:end]))
def test_a_damaged_baseline_is_refused(text: bytes) -> None:
    with pytest.raises(IntegrityError) as caught:
        parse_baseline(text)
    assert caught.value.kind == "malformed-baseline"


@given(
    st.dictionaries(st.integers(-1, 30), st.text(max_size=66), max_size=12),
    st.none() | st.binary(max_size=300),
)
def test_nothing_a_guest_says_makes_the_appraisal_fail(pcrs: PcrValues, log: bytes | None) -> None:
    assert isinstance(appraise_guest_boot(pcrs, log, BASELINE), Changed)
