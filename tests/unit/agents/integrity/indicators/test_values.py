"""Values of indicators: one spelling for what is equal, and no indicator that names everybody."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from korora.agents.integrity.indicators import values
from korora.agents.integrity.indicators.domains import a_label
from korora.agents.integrity.indicators.refanging import refanged
from korora.agents.integrity.indicators.urls import host_of, normalised_url
from korora.model.indicator import Kind


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("HTTP://Evil.EXAMPLE:80/a/./b/../c?Q=1#frag", "http://evil.example/a/c?Q=1"),
        ("https://user:secret@evil.example.:443", "https://evil.example/"),
        ("http://evil.example/%7euser/%2f%2F%zz", "http://evil.example/~user/%2F%2F%25zz"),
        ("http://evil.example/%2e%2e/x", "http://evil.example/x"),
        ("http://bücher.example/ä b", "http://xn--bcher-kva.example/%C3%A4%20b"),
        ("http://[2001:DB8:0::1]:8080/x", "http://[2001:db8::1]:8080/x"),
        ("ftp://evil.example:21/..", "ftp://evil.example/"),
        ("http://%65vil.example/", "http://evil.example/"),
    ],
)
def test_urls_that_lead_to_the_same_place_are_spelt_the_same(written: str, normal: str) -> None:
    assert normalised_url(written) == normal


@pytest.mark.parametrize(
    "text", ["evil.example", "http://", "http:///x", "http://a b/", "x" * 9000, "http://[::1/"]
)
def test_what_is_no_url_is_none(text: str) -> None:
    assert normalised_url(text) is None


@given(
    st.from_regex(
        r"(?i)https?://([a-z0-9-]{1,9}\.){1,3}[a-z]{2,5}(:[0-9]{1,5})?(/[ -~ü]{0,40})?", fullmatch=True
    )
)
def test_normalising_twice_changes_nothing(url: str) -> None:
    once = normalised_url(url)
    if once is not None:
        assert normalised_url(once) == once
        assert once.isascii()
        assert host_of(once.encode()) in once.encode()


@given(st.text(max_size=300))
def test_no_text_breaks_the_reading_of_values(text: str) -> None:
    for read in (a_label, normalised_url, refanged, host_of if isinstance(text, bytes) else refanged):
        read(text)
    for judge in (values.guessed, values.address, values.domain, values.url, values.with_port, values.host):
        try:
            judge(text)
        except (values.BadValueError, values.UselessValueError) as error:
            assert str(error)


def defanged(text: str) -> str:
    """As people write it, so that it is no link."""
    return re.sub(r"^http", "hxxp", text).replace(".", "[.]")


@given(st.sampled_from(["http://a.evil.example/x.y?z=1", "https://1.2.3.4:8080/", "evil.example", "1.2.3.4"]))
def test_what_was_defanged_is_refanged_to_what_it_was(value: str) -> None:
    assert refanged(defanged(value)) == value
    assert refanged(refanged(defanged(value))) == value


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("hxxp://evil[.]example/x", "http://evil.example/x"),
        ("hXXps[:]//evil(.)example", "https://evil.example"),
        ("evil[dot]example", "evil.example"),
        ("evil{.}example", "evil.example"),
        ("1[.]2[.]3[.]4", "1.2.3.4"),
        ("evil\\.example", "evil.example"),
        ("h**p://evil.example", "http://evil.example"),
        ("fxp://evil.example/a", "ftp://evil.example/a"),
        ("http[://]evil.example", "http://evil.example"),
        ("history.example", "history.example"),
    ],
)
def test_defanged_forms_are_undone(written: str, value: str) -> None:
    assert refanged(written) == value


@pytest.mark.parametrize("name", ["com", "co.uk", "CO.UK.", "github.io", "localhost", "*.com"])
def test_a_public_suffix_is_refused(name: str) -> None:
    with pytest.raises(values.UselessValueError):
        values.domain(name)


@pytest.mark.parametrize(
    "name", ["", "-a.example", "a..example", "a b.example", "1.2.3.4", "a.123", "x" * 64 + ".example"]
)
def test_what_is_no_domain_is_refused_as_broken(name: str) -> None:
    with pytest.raises(values.BadValueError):
        values.domain(name)


def test_international_names_are_their_a_labels() -> None:
    assert (
        values.domain("BÜCHER.example.") == values.domain("xn--bcher-kva.example") == "xn--bcher-kva.example"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1.2.3.0/24", (Kind.NETWORK, "1.2.3.0/24")),
        ("1.2.3.7/24", (Kind.NETWORK, "1.2.3.0/24")),
        ("1.2.3.4/32", (Kind.IPV4, "1.2.3.4")),
        ("2A00:0::1", (Kind.IPV6, "2a00::1")),
        ("2a00::/32", (Kind.NETWORK, "2a00::/32")),
        ("::ffff:9.9.9.9", (Kind.IPV4, "9.9.9.9")),
        ("[::FFFF:909:909]", (Kind.IPV4, "9.9.9.9")),
        ("::ffff:9.9.9.0/120", (Kind.NETWORK, "9.9.9.0/24")),
        ("::ffff:9.9.9.9/128", (Kind.IPV4, "9.9.9.9")),
        ("::ffff:0:0/95", (Kind.NETWORK, "::fffe:0:0/95")),
    ],
)
def test_addresses_and_networks_have_one_spelling(text: str, expected: tuple[Kind, str]) -> None:
    assert values.address(text) == expected


@pytest.mark.parametrize("text", ["0.0.0.0/1", "::/1", "::ffff:0:0/96"])
def test_a_network_of_half_the_internet_is_refused(text: str) -> None:
    with pytest.raises(values.UselessValueError):
        values.address(text)


@pytest.mark.parametrize(
    "text", ["10.0.0.0/8", "127.0.0.1", "224.0.0.1", "192.0.2.0/24", "fe80::1", "2001:db8::/48"]
)
def test_networks_that_are_nobodys_alone_give_a_warning(text: str) -> None:
    assert values.warning(*values.address(text)) is not None
    assert values.warning(Kind.IPV4, "9.9.9.9") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("d41d8cd98f00b204e9800998ecf8427e", (Kind.MD5, "d41d8cd98f00b204e9800998ecf8427e", "")),
        ("A" * 64, (Kind.SHA256, "a" * 64, "")),
        ("1.2.3.4:443", (Kind.IPV4, "1.2.3.4", "443")),
        ("[2a00::1]:443", (Kind.IPV6, "2a00::1", "443")),
        ("hxxp://evil[.]example", (Kind.URL, "http://evil.example/", "")),
        ("evil.example", (Kind.DOMAIN, "evil.example", "")),
    ],
)
def test_a_value_says_by_its_form_what_it_is(text: str, expected: tuple[Kind, str, str]) -> None:
    assert values.guessed(text) == expected
