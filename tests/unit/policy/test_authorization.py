"""The access list: what is allowed, and how a wrong text is refused."""

from __future__ import annotations

import base64
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from korora.errors import UsageError
from korora.model.authorization import Authorized, Denied
from korora.model.identity import HostName, OperatorName, VmName
from korora.model.plan import MigrationRequest, Mode
from korora.policy.authorization import parse

KEY = bytes(range(32))
TEXT = f"""
[operators.alice]
key = "{KEY.hex()}"

[operators.bob]
key = "{base64.b64encode(KEY).decode()}"

[[allow]]
operators = ["alice"]
vms = ["web-*", "db"]
from = ["north"]
to = ["south", "east"]

[[allow]]
operators = ["b*"]
vms = ["*"]
from = ["*"]
to = ["north"]
"""
REQUEST = MigrationRequest(
    operator=OperatorName("alice"),
    procedure="migrate",
    vm=VmName("web-1"),
    source=HostName("north"),
    destination=HostName("south"),
    mode=Mode.LIVE,
    nonce="00" * 32,
    issued_at=1,
    not_after=2,
)


def test_the_rule_that_allowed_it_is_named() -> None:
    answer = parse(TEXT).decide(REQUEST)
    assert answer == Authorized("allow 1: alice may migrate web-*, db from north to south, east")


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"vm": "mail"}, "not-allowed"),
        ({"vm": "WEB-1"}, "not-allowed"),
        ({"source": "south"}, "not-allowed"),
        ({"destination": "west"}, "not-allowed"),
        ({"operator": "bob"}, "not-allowed"),
        ({"operator": "mallory"}, "unknown-operator"),
        ({"procedure": "wipe"}, "unknown-procedure"),
    ],
)
def test_what_no_rule_allows_is_denied_with_a_remedy(change: dict[str, str], kind: str) -> None:
    answer = parse(TEXT).decide(replace(REQUEST, **change))  # type: ignore[arg-type]
    assert isinstance(answer, Denied)
    assert answer.kind == kind
    assert answer.remedy


def test_an_empty_list_allows_nobody() -> None:
    assert isinstance(parse("").decide(REQUEST), Denied)


def test_keys_are_read_in_hex_and_in_base64() -> None:
    keys = parse(TEXT).keys
    assert set(keys.values()) == {KEY}


@pytest.mark.parametrize(
    "text",
    [
        "[",
        "surprise = 1",
        TEXT + '\nextra = "x"',
        TEXT.replace("vms", "vm"),
        TEXT.replace('["web-*", "db"]', "[]"),
        TEXT.replace('["web-*", "db"]', '[""]'),
        TEXT.replace('["web-*", "db"]', '"web"'),
        TEXT.replace(KEY.hex(), KEY.hex()[2:]),
        TEXT.replace(KEY.hex(), "not a key"),
        TEXT.replace('operators = ["alice"]', 'operators = ["alcie"]'),
        TEXT.replace("[operators.alice]", '[operators."../alice"]'),
        "a = " + "[" * 5000,
    ],
)
def test_a_text_with_anything_wrong_in_it_is_refused_whole(text: str) -> None:
    with pytest.raises(UsageError):
        parse(text)


@given(st.text(max_size=200))
def test_no_text_makes_the_parser_fail_in_another_way(text: str) -> None:
    with suppress(UsageError):
        parse(text)
