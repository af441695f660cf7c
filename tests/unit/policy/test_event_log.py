"""An event log is read completely or not at all, and replays to what a TPM would hold."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.attested_site import BOOT, secure_boot_variable, told
from korora.errors import IntegrityError
from korora.policy import event_log
from korora.policy.event_log import MAX_EVENTS, Event, EventLog, EventType, encoded, parse, replay
from korora.policy.measured_boot import contradictions, described, secure_boot, variable

LOG = encoded(BOOT)
DIGEST = hashlib.sha256(b"measured").digest()

events = st.builds(
    Event,
    st.integers(0, 23),
    st.sampled_from(list(EventType)).map(int) | st.integers(0, 2**32 - 1),
    st.binary(min_size=32, max_size=32),
    st.binary(max_size=60),
)


def refused(data: bytes) -> None:
    with pytest.raises(IntegrityError) as caught:
        parse(data)
    assert caught.value.kind == "malformed-event-log"


def test_a_log_is_read_as_it_was_written() -> None:
    assert parse(LOG) == EventLog(BOOT)


@given(st.lists(events.filter(lambda event: event.data[:16] != b"StartupLocality\0"), max_size=12))
def test_every_log_that_can_be_written_is_read_back(story: list[Event]) -> None:
    told_story = [replace(event, pcr=event.pcr, kind=event.kind or 1) for event in story]
    assert list(parse(encoded(told_story)).events) == told_story


@given(st.binary(max_size=400))
def test_noise_is_refused_with_our_own_error(data: bytes) -> None:
    try:
        parse(data)
    except IntegrityError as error:
        assert error.kind == "malformed-event-log"


@given(st.integers(0, len(LOG) - 1), st.integers(0, 255))
def test_a_damaged_log_is_read_or_refused_and_nothing_else(at: int, value: int) -> None:
    try:
        replay(parse(LOG[:at] + bytes([value]) + LOG[at + 1 :]), range(24))
    except IntegrityError as error:
        assert error.kind in {"malformed-event-log", "event-log-mismatch"}


def test_a_log_that_is_cut_inside_an_event_is_never_read_as_a_longer_one() -> None:
    """Up to seven zeros of a cut event pass for padding; then the event counts as not told."""
    ends = [len(encoded(BOOT[:count])) for count in range(len(BOOT) + 1)]
    for end in range(len(LOG)):
        whole = sum(at <= end for at in ends) - 1
        if whole >= 0 and end - ends[whole] < 8:
            with suppress(IntegrityError):
                assert parse(LOG[:end]).events == BOOT[:whole]
        else:
            refused(LOG[:end])


def test_padding_after_the_last_event_is_ignored_and_anything_else_refused() -> None:
    for padding in (bytes(1), bytes(4096), b"\xff" * 4096, b"\xff" * 3):
        assert parse(LOG + padding) == EventLog(BOOT)
    refused(LOG + bytes(64) + b"\x01")
    refused(LOG + b"\x01")


def test_sizes_are_bounded_before_anything_is_kept() -> None:
    refused(bytes(event_log.MAX_LOG_BYTES + 1))
    many = [told(1, EventType.EV_ACTION, b"")] * (MAX_EVENTS + 2)
    refused(encoded(many))
    huge = LOG[:-10] + b"\xff\xff\xff\x7f"
    refused(huge)


def test_an_event_outside_the_pcrs_is_refused() -> None:
    refused(encoded([Event(24, EventType.EV_ACTION, DIGEST, b"")]))


def test_a_digest_twice_or_of_an_unannounced_algorithm_is_refused() -> None:
    one = encoded([Event(1, EventType.EV_ACTION, DIGEST, b"")])
    twice = one.replace(b"\1\0\0\0\x0b\0" + DIGEST, b"\2\0\0\0" + (b"\x0b\0" + DIGEST) * 2)
    assert twice != one
    refused(twice)
    refused(one.replace(b"\x0b\0" + DIGEST, b"\x0c\0" + DIGEST))


def test_other_digests_beside_sha256_are_skipped() -> None:
    header = b"Spec ID Event03\0" + bytes(4) + bytes([0, 2, 0, 2]) + (2).to_bytes(4, "little")
    header += b"\x04\0\x14\0" + b"\x0b\0\x20\0" + b"\0"
    start = bytes(4) + b"\3\0\0\0" + bytes(20) + len(header).to_bytes(4, "little") + header
    event = b"\4\0\0\0" + b"\5\0\0\0" + b"\2\0\0\0" + b"\x04\0" + bytes(20) + b"\x0b\0" + DIGEST + bytes(4)
    assert parse(start + event).events == (Event(4, EventType.EV_ACTION, DIGEST, b""),)
    refused(start.replace(b"\x0b\0\x20\0", b"\x0b\0\x14\0") + event)


def test_a_log_in_the_old_format_is_read_but_cannot_be_replayed() -> None:
    old = b"\4\0\0\0" + b"\5\0\0\0" + bytes(20) + b"\4\0\0\0" + b"text"
    log = parse(old * 2)
    assert log.events == (Event(4, EventType.EV_ACTION, None, b"text"),) * 2
    assert replay(log, [5]) == {5: bytes(32).hex()}
    with pytest.raises(IntegrityError) as caught:
        replay(log, [4])
    assert caught.value.kind == "event-log-mismatch"


def test_replay_extends_in_order_from_what_a_reset_leaves() -> None:
    first, second = hashlib.sha256(b"1").digest(), hashlib.sha256(b"2").digest()
    log = EventLog(
        (
            Event(3, EventType.EV_ACTION, first, b""),
            Event(3, EventType.EV_NO_ACTION, second, b""),
            Event(3, 0x1234, second, b""),
        )
    )
    expected = hashlib.sha256(hashlib.sha256(bytes(32) + first).digest() + second).hexdigest()
    assert replay(log, [3, 4, 17]) == {3: expected, 4: bytes(32).hex(), 17: "ff" * 32}


def test_the_startup_locality_is_where_pcr_0_starts() -> None:
    log = parse(encoded([Event(0, EventType.EV_ACTION, DIGEST, b"")], startup_locality=3))
    assert replay(log, [0]) == {0: hashlib.sha256(bytes(31) + b"\3" + DIGEST).hexdigest()}
    refused(encoded([], startup_locality=2))


def test_secure_boot_is_told_from_its_variable() -> None:
    kind = EventType.EV_EFI_VARIABLE_DRIVER_CONFIG
    on, off = told(7, kind, secure_boot_variable()), told(7, kind, secure_boot_variable(b"\0"))
    absent = told(7, kind, secure_boot_variable(b""))
    assert secure_boot(EventLog((on,))) is True
    assert secure_boot(EventLog((off,))) is False
    assert secure_boot(EventLog((absent,))) is False
    assert secure_boot(EventLog((on, off))) is False
    assert secure_boot(EventLog(())) is None
    assert secure_boot(EventLog((replace(on, pcr=1),))) is None
    assert secure_boot(EventLog((told(7, kind, secure_boot_variable(name="PK")),))) is None
    assert secure_boot(EventLog((told(7, kind, b"\1" * 40),))) is None


def test_text_that_was_not_measured_is_a_contradiction() -> None:
    kind = EventType.EV_EFI_VARIABLE_DRIVER_CONFIG
    false = replace(told(7, kind, secure_boot_variable(b"\0")), data=secure_boot_variable())
    assert contradictions(EventLog((false, *BOOT))) == (false,)
    assert secure_boot(EventLog((false,))) is False
    assert contradictions(EventLog(BOOT)) == ()


def test_an_error_separator_may_carry_a_diagnosis() -> None:
    failed = Event(0, EventType.EV_SEPARATOR, hashlib.sha256(b"\1\0\0\0").digest(), b"why")
    assert contradictions(EventLog((failed,))) == ()


@given(events)
def test_every_event_can_be_described(event: Event) -> None:
    assert described(event).startswith(f"PCR {event.pcr}, ")
    assert described(event).isprintable()


def test_a_variable_with_an_absurd_length_is_malformed() -> None:
    data = bytes(16) + b"\xff" * 16
    with pytest.raises(IntegrityError):
        variable(Event(7, EventType.EV_EFI_VARIABLE_DRIVER_CONFIG, DIGEST, data))
