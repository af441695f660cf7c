"""authorization.toml: who is who, read strictly; and when a maintenance window is open."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from korora.errors import UsageError
from korora.model.identity import HostName, OperatorName, VmName
from korora.model.plan import MigrationRequest, Mode
from korora.policy.authorization import DAYS, Roster, Window
from korora.policy.authorization import parse as parse_with


def parse(text: str) -> Roster:
    return parse_with(text, ZoneInfo)


KEY, OTHER = "11" * 32, "22" * 32
TEXT = f"""
uncovered = "question"

[operators.alice]
key = "{KEY}"
groups = ["web-team", "on-call"]

[operators.bob]
key = "ERERERERERERERERERERERERERERERERERERERERERI="

[hosts.south]
labels = ["rack-2"]

[[vms]]
names = "web-*"
labels = ["stateless"]

[[vms]]
names = "*-1"
labels = ["first"]

[windows.weekend]
days = ["sat", "sun"]
from = "22:00"
to = "06:00"
zone = "Europe/Berlin"
"""
SATURDAY_NIGHT = datetime(2026, 11, 28, 22, 30, tzinfo=ZoneInfo("Europe/Berlin")).timestamp()


def request(vm: str = "web-1", operator: str = "alice") -> MigrationRequest:
    names = (VmName(vm), HostName("north"), HostName("south"))
    return MigrationRequest(OperatorName(operator), "migrate", *names, Mode.OFFLINE, "00", 0, 1)


def test_an_account_is_one_operators() -> None:
    text = f'[operators.alice]\nkey = "{KEY}"\naccount = "al"\n'
    assert parse(text).accounts == {"al": "alice"}
    other = f'[operators.bob]\nkey = "{"33" * 32}"\n'
    assert parse(text + other).accounts == {"al": "alice"}
    with pytest.raises(UsageError, match="account"):
        parse(text + other + 'account = "al"\n')


def test_what_the_file_says_becomes_the_facts_of_a_request() -> None:
    facts = parse(TEXT).facts(request(), SATURDAY_NIGHT, "hardened")
    assert (facts.operator, facts.groups) == ("alice", ("web-team", "on-call"))
    assert (facts.vm, facts.vm_labels) == ("web-1", ("first", "stateless"))
    assert (facts.source, facts.source_labels) == ("north", ())
    assert (facts.destination, facts.destination_labels) == ("south", ("rack-2",))
    assert (facts.mode, facts.peer_state) == ("offline", "hardened")
    assert (facts.day, facts.minute, facts.windows) == ("sat", 21 * 60 + 30, ("weekend",))


def test_keys_are_read_in_hex_and_in_base64() -> None:
    keys = parse(TEXT).keys
    assert keys[OperatorName("alice")] == b"\x11" * 32
    assert keys[OperatorName("bob")] == b"\x11" * 31 + b"\x12"


def test_an_empty_file_knows_nobody_and_asks_nobody() -> None:
    roster = parse("")
    assert (dict(roster.keys), roster.asks) == ({}, False)
    assert roster.facts(request(), 0, None).windows == ()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("surprise = 1", "surprise"),
        ('uncovered = "allow"', "allow"),
        ("[operators.alice]", "key"),
        ('[operators.alice]\nkey = "short"', "32 bytes"),
        (f'[operators."a/b"]\nkey = "{KEY}"', "a/b"),
        (f'[operators.alice]\nkey = "{KEY}"\n[operators.ally]\nkey = "{KEY.upper()}"', "one person"),
        (f'[operators.alice]\nkey = "{KEY}"\ngroups = "web-team"', "groups"),
        ('[[vms]]\nnames = ""\nlabels = []', "must name something"),
        ('[hosts."../x"]\nlabels = []', "../x"),
        ('[windows.w]\nfrom = "24:00"\nto = "06:00"', "24:00"),
        ('[windows.w]\nfrom = "22:00"\nto = "06:00"\ndays = ["saturday"]', "saturday"),
        ('[windows.w]\nfrom = "22:00"\nto = "06:00"\nzone = "Mars/Olympus"', "Mars/Olympus"),
        ('[windows.w]\nfrom = "22:00"\nto = "06:00"\nzone = "../../etc/passwd"', "window"),
        ("[[allow]]\noperators = ['alice']", "allow"),
        ("a=" + "[" * 5000, "cannot be used"),
    ],
)
def test_whatever_is_wrong_refuses_the_file_and_is_named(text: str, told: str) -> None:
    with pytest.raises(UsageError, match="cannot be used") as caught:
        parse(text)
    assert told in caught.value.message
    assert caught.value.kind == "bad-authorization"
    assert "korora policy check" in caught.value.remedy


@given(
    days=st.sets(st.sampled_from(DAYS), min_size=1),
    since=st.integers(0, 1439),
    until=st.integers(0, 1439),
    start=st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1)),
    minutes=st.integers(0, 3 * 1440),
)
def test_a_window_is_open_from_its_beginning_until_its_end(
    days: set[str], since: int, until: int, start: datetime, minutes: int
) -> None:
    window = Window(tuple(days), since, until, ZoneInfo("UTC"))
    now = start.replace(tzinfo=UTC) + timedelta(minutes=minutes)
    lasts = (until - since) % 1440 or 1440
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    began = [midnight + timedelta(days=back, minutes=since) for back in (0, -1)]
    expected = any(
        DAYS[begin.weekday()] in days and begin <= now < begin + timedelta(minutes=lasts) for begin in began
    )
    assert window.open_at(now.timestamp()) == expected


@given(st.text(max_size=200))
def test_no_text_breaks_the_reader(text: str) -> None:
    try:
        parse(text)
    except UsageError as error:
        assert error.kind == "bad-authorization"
