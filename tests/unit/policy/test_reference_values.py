"""reference.toml is read strictly, and says which measured states are trusted."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.attested_site import BOOT, reference_of, secure_boot_variable, told
from korora.errors import UsageError
from korora.policy.event_log import Event, EventLog, EventType, replay
from korora.policy.pcrs import PLATFORM_PCRS
from korora.policy.reference_values import (
    Mismatch,
    ReferenceState,
    ReferenceValues,
    compared,
    parse,
    rendered,
)

A, B = "aa" * 32, "bb" * 32
MINIMAL = 'version = 1\n[[state]]\nname = "any"\nignored = [0, 1, 2, 3, 4, 5, 6, 7]\n'


def outcome(story: tuple[Event, ...], reference: ReferenceValues) -> str | tuple[Mismatch, ...]:
    log = EventLog(story)
    return compared(replay(log, reference.pcrs), log, reference)


def kinds(story: tuple[Event, ...], reference: ReferenceValues) -> set[str]:
    found = outcome(story, reference)
    assert isinstance(found, tuple)
    return {mismatch.kind for mismatch in found}


def state(**rules: object) -> ReferenceValues:
    everything = replace(ReferenceState("rules", {}, ignored=frozenset(PLATFORM_PCRS)), **rules)  # type: ignore[arg-type]
    return ReferenceValues((everything,))


def test_a_known_state_is_named() -> None:
    assert outcome(BOOT, reference_of()) == "known good"


def test_the_first_state_that_fits_counts() -> None:
    wrong = ReferenceState("wrong", {0: (A,)})
    right = reference_of().states[0]
    assert outcome(BOOT, ReferenceValues((wrong, right))) == "known good"


def test_of_no_fitting_state_the_closest_is_explained() -> None:
    far = ReferenceState("far", dict.fromkeys(range(8), (A,)))
    near = replace(reference_of().states[0], name="near", pcrs={**reference_of().states[0].pcrs, 5: (A,)})
    found = outcome(BOOT, ReferenceValues((far, near)))
    assert isinstance(found, tuple)
    assert [mismatch.kind for mismatch in found] == ["pcr-mismatch"]
    assert "PCR 5" in found[0].reason
    assert "near" in found[0].reason


def test_one_of_several_values_is_enough() -> None:
    first = reference_of().states[0]
    several = replace(first, pcrs={pcr: (A, *values) for pcr, values in first.pcrs.items()})
    assert outcome(BOOT, ReferenceValues((several,))) == "known good"


def test_every_event_of_a_ruled_pcr_must_be_listed() -> None:
    digests = {event.sha256.hex() for event in BOOT if event.pcr == 4 and event.sha256}
    assert outcome(BOOT, state(events={4: frozenset(digests)})) == "rules"
    extra = told(4, EventType.EV_EFI_BOOT_SERVICES_APPLICATION, b"another kernel")
    assert kinds((*BOOT, extra), state(events={4: frozenset(digests)})) == {"event-refused"}
    assert kinds(BOOT, state(events={5: frozenset()})) == {"event-refused"}


def test_a_required_event_must_be_there_in_its_own_pcr() -> None:
    kernel = BOOT[-1]
    assert kernel.sha256 is not None
    assert outcome(BOOT, state(required={4: (kernel.sha256.hex(),)})) == "rules"
    assert kinds(BOOT, state(required={5: (kernel.sha256.hex(),)})) == {"event-refused"}
    not_extended = replace(kernel, kind=EventType.EV_NO_ACTION)
    assert kinds((*BOOT[:-1], not_extended), state(required={4: (kernel.sha256.hex(),)})) == {"event-refused"}


def test_secure_boot_can_be_asked_for() -> None:
    assert outcome(BOOT, state(secure_boot=True)) == "rules"
    assert kinds(BOOT, state(secure_boot=False)) == {"secure-boot"}
    off = told(7, EventType.EV_EFI_VARIABLE_DRIVER_CONFIG, secure_boot_variable(b"\0"))
    assert kinds((off,), state(secure_boot=True)) == {"secure-boot"}
    assert kinds((), state(secure_boot=True)) == {"secure-boot"}


def test_a_revoked_event_refuses_every_state() -> None:
    kernel = BOOT[-1].sha256
    assert kernel is not None
    assert kinds(BOOT, replace(state(), revoked=frozenset({kernel.hex()}))) == {"event-revoked"}


def test_what_is_written_is_read_back() -> None:
    values = ReferenceValues(
        (
            reference_of().states[0],
            ReferenceState(
                'odd "name" = [\\n] €',
                {0: (A, B)},
                {4: frozenset({A, B}), 2: frozenset()},
                frozenset({1, 3, 5, 6, 7}),
                {7: (A,)},
                False,
            ),
        ),
        frozenset({A}),
    )
    assert parse(rendered(values)) == values


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "version"),
        ("version = 1", "state"),
        ("version = 2\nstate = []", "version 2"),
        ("version = 1\nstate = []\nextra = 1", "extra"),
        ("version = 1\nversion = 1", "overwrite"),
        (MINIMAL.replace("ignored", "ignore"), "ignore"),
        (MINIMAL.replace(", 7]", "]"), "PCR 7"),
        (MINIMAL.replace(", 7]", ", 7, 24]"), "<= 23"),
        (MINIMAL + f'[state.pcrs]\n0 = ["{A}"]', "PCR 0"),
        (MINIMAL.replace("[0, ", "[") + f'[state.pcrs]\n0 = ["{A[1:]}"]', "regex"),
        (MINIMAL.replace("[0, ", "[") + f'[state.pcrs]\n0 = ["{A.upper()}"]', "regex"),
        (MINIMAL.replace("[0, ", "[") + f'[state.pcrs]\nx = ["{A}"]', "int"),
        (MINIMAL + MINIMAL.split("\n", 1)[1], "same name"),
    ],
)
def test_a_mistake_in_the_file_is_named(text: str, word: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert caught.value.kind == "bad-reference-values"
    assert word in caught.value.message


@given(st.text(max_size=100))
def test_no_text_makes_the_reader_fail(text: str) -> None:
    try:
        parse(text)
    except UsageError as error:
        assert error.kind == "bad-reference-values"
