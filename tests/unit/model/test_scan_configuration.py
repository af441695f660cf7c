"""scan.toml is read strictly; the page's example is one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from korora.errors import UsageError
from korora.model.scan import Answer, Rule
from korora.model.scan_configuration import ScanSettings, parse_scan_settings

PAGE = (Path(__file__).parents[3] / "docs" / "SCANNING.md").read_text()


def parsed(text: str) -> ScanSettings:
    return parse_scan_settings(text, "scan.toml")


def test_an_empty_file_is_clamav_and_yara_and_nobody_on_the_network() -> None:
    assert parsed("") == ScanSettings()
    assert ScanSettings().reputation is None


def test_the_pages_example_is_read() -> None:
    [example] = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    settings = parsed(example)
    assert settings.reputation is not None
    assert [one.name for one in settings.reputation.services] == ["virustotal"]
    assert (settings.rule, settings.reputation.unlisted) == (Rule.ANY, Answer.UNKNOWN)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("rule = 'most'", "rule"),
        ("rules = 1", "rules"),
        ("[clamav]\nused = false\n[yara]\nused = false", "every other engine is off"),
        ("[weights]\nclam = 1", "weights.clam"),
        ("[weights]\nyara = -1", "weights.yara"),
        ("[reputation.virustotal]\nkey = 'x'", "key_file"),
        ("[reputation.virustotal]\nkey_file = 'x'\nurl = 'http://elsewhere.example'", "url"),
        ("[reputation.virustotal]\nkey_file = 'x'\nurl = 'https://user@elsewhere.example'", "url"),
        ("[reputation]\nunlisted = 'infected'", "unlisted"),
        ("[reputation]\nunlisted = 'clean'\n[reputation.virustotal]\nkey_file = 'x'", "unlisted"),
        ("[archives]\ndepth = 0", "archives.depth"),
        ("[", "TOML"),
    ],
)
def test_what_is_wrong_is_named(text: str, key: str) -> None:
    with pytest.raises(UsageError, match=re.escape(key)):
        parsed(text)


def test_services_may_be_spoken_to_on_this_machine_alone_without_tls() -> None:
    settings = parsed("[reputation.metadefender]\nkey_file = 'k'\nurl = 'http://127.0.0.1:80/v4'")
    assert settings.reputation is not None
    assert settings.reputation.services[0].url == "http://127.0.0.1:80/v4"


@given(st.text(max_size=200))
def test_any_text_is_settings_or_an_error(text: str) -> None:
    try:
        parsed(text)
    except UsageError as error:
        assert error.remedy
