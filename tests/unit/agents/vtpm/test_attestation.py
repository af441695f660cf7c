"""The attester's evidence answers exactly the question that was asked."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from fakes.attested_site import NOW, QUESTION, Authority, boot
from fakes.host_tpm import HostTpm, host_tpm
from korora.adapters.tpm.esys import EsysTpm
from korora.agents.vtpm.attestation import HostAttester
from korora.errors import ToolError
from korora.model.evidence import Quote
from korora.model.identity import HostName
from korora.policy.appraisal import Trusted
from korora.protocol.host_appraisal import appraise_host


@pytest.fixture
def device(tmp_path: Path) -> Iterator[HostTpm]:
    with host_tpm(tmp_path / "tpm") as made:
        yield made


def attester_of(device: HostTpm, tpm: EsysTpm, site: Authority) -> HostAttester:
    log = device.directory / "event_log"
    log.write_bytes(boot(device))
    who = site.enrol(tpm, device.directory / "identity", "alpha")
    return HostAttester(tpm, log, who.enrolment, who.certificate_der)


def test_what_the_attester_shows_convinces_a_verifier(device: HostTpm) -> None:
    site = Authority.create()
    attester = attester_of(device, EsysTpm(device.tcti), site)
    verdict = appraise_host(
        asyncio.run(attester.presented()),
        asyncio.run(attester.evidence(QUESTION)),
        host=HostName("alpha"),
        qualifying_data=QUESTION,
        anchors=site.anchors(),
        now=NOW,
    )
    assert isinstance(verdict, Trusted)


def test_a_pcr_extended_between_quote_and_read_is_quoted_again(device: HostTpm) -> None:
    class ExtendsOnce(EsysTpm):
        extended = False

        def quote(self, pcrs: Sequence[int], qualifying_data: bytes) -> Quote:
            quote = super().quote(pcrs, qualifying_data)
            if not self.extended:
                self.extended = True
                device.extend(4, bytes(32))
            return quote

    tpm = ExtendsOnce(device.tcti)
    attester = attester_of(device, tpm, Authority.create())
    evidence = asyncio.run(attester.evidence(QUESTION))
    assert tpm.extended
    assert evidence.pcrs == tpm.read_pcrs(range(8))


def test_an_event_log_that_is_missing_or_endless_is_named(device: HostTpm, tmp_path: Path) -> None:
    for log in (tmp_path / "none", tmp_path, Path("/dev/zero")):
        attester = HostAttester(EsysTpm(device.tcti), log, b"", b"")
        with pytest.raises(ToolError) as caught:
            asyncio.run(attester.evidence(QUESTION))
        assert caught.value.kind == "event-log-unreadable"
        assert str(log) in caught.value.message
