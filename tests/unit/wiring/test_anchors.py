"""The files a host's trust begins with: all of them are read, and each mistake names its file."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from fakes.attested_site import reference_of
from fakes.site import TestSite
from korora.adapters.authorization.files import FileAuthorizer
from korora.errors import ExitCode, UsageError
from korora.model.configuration import SiteTrust
from korora.policy.reference_values import rendered
from korora.wiring.anchors import SiteAnchors, SiteFiles

ONE, OTHER = TestSite("one maker"), TestSite("another maker")


def pem(site: TestSite) -> bytes:
    return site.certificate.public_bytes(Encoding.PEM)


@pytest.fixture
def trust(tmp_path: Path) -> SiteTrust:
    site = SiteTrust(tmp_path / "authority.pem", (tmp_path / "makers.pem",), tmp_path / "reference.toml")
    site.authority.write_bytes(pem(ONE))
    site.manufacturers[0].write_bytes(pem(ONE) + pem(OTHER))
    site.reference_values.write_text(rendered(reference_of()))
    return site


def test_every_certificate_of_a_manufacturers_file_is_an_anchor(trust: SiteTrust) -> None:
    assert len(SiteAnchors(trust).all().manufacturers) == 2


def test_an_edit_takes_effect_at_the_next_look(trust: SiteTrust) -> None:
    anchors = SiteAnchors(trust)
    before = anchors.authority()
    trust.authority.write_bytes(pem(OTHER))
    assert anchors.authority() != before


@pytest.mark.parametrize(
    "content", [None, b"", b"no PEM", b"\xff\xfe", b"-----BEGIN CERTIFICATE-----\nAAAA\n"]
)
@pytest.mark.parametrize("which", ["authority", "manufacturers", "reference_values"])
def test_a_file_that_is_missing_or_malformed_is_named_with_what_to_do(
    trust: SiteTrust, which: str, content: bytes | None
) -> None:
    named = getattr(trust, which)
    file: Path = named[0] if isinstance(named, tuple) else named
    file.unlink() if content is None else file.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        SiteAnchors(trust).all()
    assert caught.value.kind in {"bad-anchor", "bad-reference-values"}
    assert caught.value.exit_code == ExitCode.USAGE
    assert str(file) in caught.value.message
    assert "hostd.toml" in caught.value.remedy


def test_every_file_that_cannot_be_used_now_is_told_of_until_it_can_again(trust: SiteTrust) -> None:
    rules = trust.authority.with_name("authorization.toml")
    rules.write_text("")
    files = SiteFiles((SiteAnchors(trust).all, FileAuthorizer(rules).check))
    assert files.problems() == []
    rules.write_text("[")
    trust.reference_values.unlink()
    told = files.problems()
    assert [problem.kind for problem in told] == ["bad-anchor", "bad-authorization"]
    assert all(problem.remedy for problem in told)
    rules.write_text("")
    assert [problem.kind for problem in files.problems()] == ["bad-anchor"]
