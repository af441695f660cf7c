"""korora.toml: what is understood, and that every mistake names the file and the key."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from korora.errors import UsageError
from korora.model.site import SiteConfiguration, parse_site

WHOLE = """
[site]
name = "lab"
authority = "site/ca.pem"
manufacturers = ["tpm/one.pem", "/etc/two.pem"]
reference_values = "reference.toml"
authority_key = "site/ca.key"
authorization = "authorization.toml"

[operator]
name = "alice"
key = "alice.pem"

[hosts.a]
address = "10.0.0.1:7000"
api = "a/api.sock"

[hosts.b]
address = "[fd00::2]:7000"
"""


def test_everything_that_is_written_is_read() -> None:
    site = parse_site(WHOLE, "korora.toml").placed(Path("/etc/korora"))
    assert site.name == "lab"
    assert site.authority == Path("/etc/korora/site/ca.pem")
    assert site.manufacturers == (Path("/etc/korora/tpm/one.pem"), Path("/etc/two.pem"))
    assert site.operator is not None
    assert site.operator.key == Path("/etc/korora/alice.pem")
    assert site.host("a").api == Path("/etc/korora/a/api.sock")
    assert site.host("b").api is None
    assert str(site.host("b").address) == "[fd00::2]:7000"


def test_an_empty_file_is_a_site_without_hosts() -> None:
    assert parse_site("", "korora.toml") == SiteConfiguration(origin="korora.toml")


def test_an_unknown_host_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UsageError) as caught:
        parse_site(WHOLE, "korora.toml").host("c")
    assert caught.value.kind == "unknown-host"
    assert "a, b" in caught.value.remedy


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("site = 3", "site"),
        ("hosts = []", "hosts"),
        ("[sites]", "sites"),
        ("[site]\nauthority = 3", "site.authority"),
        ('[site]\nauthority = ""', "site.authority"),
        ('[site]\nmanufacturers = "one.pem"', "site.manufacturers"),
        ("[site]\nmanufacturers = [1]", "site.manufacturers"),
        ("[site]\nauthorty = 'x'", "site.authorty"),
        ("[operator]\nname = 'alice'", "operator.key"),
        ("[operator]\nkey = 'alice.pem'", "operator.name"),
        ("[operator]\nname = 'a/b'\nkey = 'x'", "operator.name"),
        ("[hosts]\na = 3", "hosts.a"),
        ("[hosts.'../a']\n", "hosts.../a"),
        ("[hosts.a]\naddress = '10.0.0.1'", "hosts.a.address"),
        ("[hosts.a]\naddress = '10.0.0.1:0'", "hosts.a.address"),
        ("[hosts.a]\naddress = ':7000'", "hosts.a.address"),
        ("[hosts.a]\naddress = '10.0.0.1:700000'", "hosts.a.address"),
        ("[hosts.a]\napi = true", "hosts.a.api"),
        ("[hosts.a]\nadress = 'x'", "hosts.a.adress"),
    ],
)
def test_a_mistake_names_the_file_and_the_key(text: str, key: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_site(text, "/x/korora.toml")
    assert caught.value.message.startswith(f"/x/korora.toml: key {key}: ")
    assert caught.value.remedy


def test_a_misspelt_key_is_answered_with_the_right_one() -> None:
    with pytest.raises(UsageError) as caught:
        parse_site("[hosts.a]\nadress = '10.0.0.1:7000'", "korora.toml")
    assert "address" in caught.value.remedy


@pytest.mark.parametrize("text", ["[site", "a = ", "\x00", "a = 1\na = 2", "x = " + "[" * 2000])
def test_what_is_not_toml_is_said_with_its_place(text: str) -> None:
    with pytest.raises(UsageError, match="is not TOML"):
        parse_site(text, "korora.toml")


@given(st.text(max_size=300))
def test_any_text_is_a_site_or_a_usage_error(text: str) -> None:
    try:
        parse_site(text, "korora.toml")
    except UsageError as error:
        assert error.message.startswith("korora.toml: ")
