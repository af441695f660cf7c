"""A host is trusted when everything about it fits, and each thing that does not has its own name."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes.attested_site import BOOT, NOW, QUESTION, Authority, boot, evidence, presented, reference_of, told
from fakes.host_tpm import HostTpm, host_tpm
from korora.adapters.tpm.esys import EsysTpm
from korora.adapters.tpm.identity import Identity
from korora.model.evidence import HostEvidence, Quote
from korora.model.identity import HostName
from korora.policy import event_log
from korora.policy.appraisal import Presented, TrustAnchors, Trusted, Untrusted
from korora.policy.event_log import EventType
from korora.policy.reference_values import ReferenceValues
from korora.protocol.dsse import KeyPair
from korora.protocol.enrolment import opened_enrolment, signed_enrolment
from korora.protocol.host_appraisal import appraise_host

ALPHA = HostName("alpha")


@dataclass(frozen=True)
class Shown:
    """What host alpha shows, and the site that judges it."""

    site: Authority
    device: HostTpm
    tpm: EsysTpm
    identity: Identity
    presented: Presented
    evidence: HostEvidence
    anchors: TrustAnchors

    def verdict(
        self, *, host: str = "alpha", now: float = NOW, question: bytes = QUESTION
    ) -> Trusted | Untrusted:
        return appraise_host(
            self.presented,
            self.evidence,
            host=HostName(host),
            qualifying_data=question,
            anchors=self.anchors,
            now=now,
        )

    def kind(self, *, host: str = "alpha", now: float = NOW, question: bytes = QUESTION) -> str:
        verdict = self.verdict(host=host, now=now, question=question)
        assert isinstance(verdict, Untrusted)
        assert verdict.reason
        assert verdict.remedy
        return verdict.kind


@pytest.fixture(scope="module")
def site() -> Authority:
    return Authority.create()


@pytest.fixture(scope="module")
def alpha(site: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """For tests that leave the TPM as it is."""
    with host_tpm(tmp_path_factory.mktemp("alpha")) as device:
        yield _shown(site, device)


@pytest.fixture
def own(site: Authority, tmp_path: Path) -> Iterator[Shown]:
    """For tests that extend PCRs."""
    with host_tpm(tmp_path) as device:
        yield _shown(site, device)


@pytest.fixture(scope="module")
def other(site: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """Host beta of the same site, in the same state, with a TPM of its own."""
    with host_tpm(tmp_path_factory.mktemp("beta"), serial=2) as device:
        yield _shown(site, device, "beta")


def _shown(site: Authority, device: HostTpm, host: str = "alpha") -> Shown:
    tpm = EsysTpm(device.tcti)
    log = boot(device)
    identity = site.enrol(tpm, device.directory / "identity", host)
    return Shown(site, device, tpm, identity, presented(tpm, identity), evidence(tpm, log), site.anchors())


def test_a_host_that_is_what_it_says_is_trusted(alpha: Shown) -> None:
    verdict = alpha.verdict()
    assert isinstance(verdict, Trusted)
    assert verdict.host == "alpha"
    assert verdict.platform.state == "known good"
    assert verdict.platform.secure_boot is True
    assert verdict.pcrs == alpha.evidence.pcrs
    assert verdict.enrolled_until > NOW


def test_a_quote_with_an_old_nonce_is_refused(alpha: Shown) -> None:
    assert alpha.kind(question=bytes(32)) == "quote-nonce"


def test_a_quote_of_another_tpm_is_refused(alpha: Shown, other: Shown) -> None:
    assert replace(alpha, evidence=other.evidence).kind() == "quote-signature"


def test_a_changed_quote_is_refused(alpha: Shown) -> None:
    quote = alpha.evidence.quote
    for at in range(0, len(quote.attest), 7):
        changed = quote.attest[:at] + bytes([quote.attest[at] ^ 1]) + quote.attest[at + 1 :]
        shown = replace(alpha, evidence=replace(alpha.evidence, quote=Quote(changed, quote.signature)))
        assert shown.kind() == "quote-signature"


def test_an_ak_of_another_tpm_is_refused(alpha: Shown, other: Shown) -> None:
    theirs = replace(alpha.presented, ak_public=other.presented.ak_public)
    assert replace(alpha, presented=theirs, evidence=other.evidence).kind() == "ak-mismatch"


def test_an_ek_of_another_tpm_is_refused(alpha: Shown, other: Shown) -> None:
    theirs = replace(alpha.presented, ek_certificate=other.presented.ek_certificate)
    assert replace(alpha, presented=theirs).kind() == "not-enrolled"


def test_the_whole_identity_of_another_host_is_refused(alpha: Shown, other: Shown) -> None:
    assert replace(other, anchors=alpha.anchors).kind(host="alpha") == "wrong-host"


def test_an_enrolment_of_another_host_is_refused(alpha: Shown, other: Shown) -> None:
    theirs = replace(alpha.presented, enrolment=other.presented.enrolment)
    assert replace(alpha, presented=theirs).kind() == "not-enrolled"


def test_an_enrolment_by_another_authority_is_refused(alpha: Shown) -> None:
    read = opened_enrolment(alpha.presented.enrolment, alpha.site.certificate)
    forged = signed_enrolment(read, KeyPair(Authority.create().key))
    assert replace(alpha, presented=replace(alpha.presented, enrolment=forged)).kind() == "not-enrolled"


def test_an_enrolment_that_ended_is_refused_though_the_certificate_is_valid(alpha: Shown) -> None:
    read = opened_enrolment(alpha.presented.enrolment, alpha.site.certificate)
    ended = msgspec.structs.replace(read, not_after=int(NOW) - 1)
    again = signed_enrolment(ended, KeyPair(alpha.site.key))
    assert replace(alpha, presented=replace(alpha.presented, enrolment=again)).kind() == "expired"


def test_a_statement_of_another_type_is_no_enrolment(alpha: Shown) -> None:
    for bad in (b"", b"{}", b"\xff", alpha.presented.enrolment[:-1], b"[" * 5000):
        shown = replace(alpha, presented=replace(alpha.presented, enrolment=bad))
        assert shown.kind() == "not-enrolled"


def test_an_ek_of_an_unknown_manufacturer_is_refused(alpha: Shown) -> None:
    assert replace(alpha, anchors=alpha.site.anchors(maker="unknown")).kind() == "unknown-manufacturer"


def test_an_ek_certificate_whose_intermediate_is_missing_is_refused(alpha: Shown) -> None:
    root, _ = alpha.anchors.manufacturers
    for known in ((root,), ()):
        anchors = replace(alpha.anchors, manufacturers=known)
        assert replace(alpha, anchors=anchors).kind() == "unknown-manufacturer"


def test_a_site_certificate_is_no_ek_certificate_even_if_the_manufacturer_issued_it(alpha: Shown) -> None:
    anchors = replace(alpha.anchors, manufacturers=(alpha.site.certificate,))
    theirs = replace(alpha.presented, ek_certificate=alpha.identity.certificate_der)
    assert replace(alpha, anchors=anchors, presented=theirs).kind() == "unknown-manufacturer"


def test_an_expired_certificate_is_refused(alpha: Shown) -> None:
    assert alpha.kind(now=NOW + 366 * 86400) == "expired"
    assert alpha.kind(now=NOW - 86400) == "expired"


def test_a_certificate_of_another_authority_is_refused(alpha: Shown) -> None:
    assert replace(alpha, anchors=Authority.create().anchors()).kind() == "unknown-authority"


def test_a_certificate_of_an_authority_with_the_same_name_is_refused(alpha: Shown) -> None:
    theirs = replace(alpha.presented, tls_certificate=_certificate(Authority.create("site")))
    assert replace(alpha, presented=theirs).kind() == "unknown-authority"


def test_a_certificate_for_another_host_is_refused(alpha: Shown) -> None:
    assert alpha.kind(host="beta") == "wrong-host"
    for names in (["beta"], ["alpha", "beta"], []):
        theirs = replace(alpha.presented, tls_certificate=_certificate(alpha.site, names=names))
        assert replace(alpha, presented=theirs).kind() == "wrong-host"


def test_a_certificate_for_servers_alone_is_refused(alpha: Shown) -> None:
    for usages in ([], [ExtendedKeyUsageOID.SERVER_AUTH], [ExtendedKeyUsageOID.CLIENT_AUTH]):
        theirs = replace(alpha.presented, tls_certificate=_certificate(alpha.site, usages=usages))
        assert replace(alpha, presented=theirs).kind() == "wrong-usage"


def test_a_second_certificate_of_the_same_host_is_not_the_enrolled_one(alpha: Shown) -> None:
    theirs = replace(alpha.presented, tls_certificate=_certificate(alpha.site))
    assert replace(alpha, presented=theirs).kind() == "tls-key-mismatch"


def test_a_pcr_that_was_extended_is_a_mismatch(own: Shown) -> None:
    own.device.extend(4, bytes(32))
    assert replace(own, evidence=evidence(own.tpm, own.evidence.event_log)).kind() == "pcr-mismatch"


def test_pcr_values_other_than_those_quoted_are_refused(own: Shown) -> None:
    own.device.extend(4, bytes(32))
    changed = evidence(own.tpm, own.evidence.event_log)
    good = replace(changed, pcrs=own.evidence.pcrs)
    assert replace(own, evidence=good).kind() == "quote-pcrs"


def test_a_quote_over_fewer_pcrs_is_refused(alpha: Shown) -> None:
    seven = range(7)
    quote, values = alpha.tpm.quote(seven, QUESTION), alpha.tpm.read_pcrs(seven)
    short = HostEvidence(quote, values, alpha.evidence.event_log)
    assert replace(alpha, evidence=short).kind() == "quote-pcrs"
    longer = {**alpha.evidence.pcrs, 8: bytes(32).hex()}
    assert replace(alpha, evidence=replace(alpha.evidence, pcrs=longer)).kind() == "quote-pcrs"


def test_an_empty_site_trusts_no_state(alpha: Shown) -> None:
    assert replace(alpha, anchors=alpha.site.anchors(ReferenceValues(()))).kind() == "pcr-mismatch"


@pytest.mark.parametrize(
    "events",
    [
        BOOT[:-1],
        (*BOOT, told(4, EventType.EV_EFI_BOOT_SERVICES_APPLICATION, b"another kernel")),
        (BOOT[1], BOOT[0], *BOOT[2:]),
        (*BOOT[:-1], replace(BOOT[-1], sha256=bytes(32))),
        (),
    ],
)
def test_an_event_log_that_lies_is_refused(alpha: Shown, events: tuple[event_log.Event, ...]) -> None:
    lie = replace(alpha.evidence, event_log=event_log.encoded(events))
    assert replace(alpha, evidence=lie).kind() == "event-log-mismatch"


def test_a_log_that_describes_an_event_falsely_is_refused(alpha: Shown) -> None:
    """The digests are those measured, but the text says that Secure Boot was something else."""
    position = [event.kind for event in BOOT].index(EventType.EV_EFI_VARIABLE_DRIVER_CONFIG)
    events = list(BOOT)
    events[position] = replace(BOOT[position], data=BOOT[position].data[:-1] + b"\0")
    lie = replace(alpha.evidence, event_log=event_log.encoded(events))
    anchors = alpha.site.anchors(_without_secure_boot_rule(reference_of()))
    assert replace(alpha, evidence=lie, anchors=anchors).kind() == "event-log-mismatch"


def test_a_malformed_log_is_refused(alpha: Shown) -> None:
    for log in (b"", b"\1" * 7, alpha.evidence.event_log[:-1], alpha.evidence.event_log + b"\1"):
        lie = replace(alpha.evidence, event_log=log)
        assert replace(alpha, evidence=lie).kind() == "malformed-event-log"


def test_a_revoked_event_refuses_a_state_that_is_otherwise_trusted(alpha: Shown) -> None:
    kernel = BOOT[-1].sha256
    assert kernel is not None
    reference = replace(reference_of(), revoked=frozenset({kernel.hex()}))
    assert replace(alpha, anchors=alpha.site.anchors(reference)).kind() == "event-revoked"


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_bytes_make_the_verifier_fail_or_trust(alpha: Shown, data: st.DataObject) -> None:
    """Replace any one part by noise or by a damaged copy: the answer is Untrusted, never an exception."""
    part = data.draw(st.sampled_from(["ek_certificate", "ak_public", "enrolment", "tls_certificate"]))
    genuine: bytes = getattr(alpha.presented, part)
    damaged = data.draw(_damaged(genuine))
    if damaged != genuine:
        theirs = replace(alpha.presented, **{part: damaged})
        assert isinstance(replace(alpha, presented=theirs).verdict(), Untrusted)


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_evidence_makes_the_verifier_fail(alpha: Shown, data: st.DataObject) -> None:
    quote = alpha.evidence.quote
    pcrs = data.draw(
        st.dictionaries(st.integers(-1, 30), st.one_of(st.text(max_size=64), st.just("0" * 64)), max_size=9)
    )
    noise = HostEvidence(
        Quote(data.draw(_damaged(quote.attest)), data.draw(_damaged(quote.signature))),
        pcrs,
        data.draw(_damaged(alpha.evidence.event_log)),
    )
    assert isinstance(replace(alpha, evidence=noise).verdict(), Untrusted)


def _damaged(genuine: bytes) -> st.SearchStrategy[bytes]:
    """Noise, a prefix, a bit flip, or something appended."""
    positions = st.integers(0, len(genuine) - 1)
    flipped = st.builds(
        lambda at, bit: genuine[:at] + bytes([genuine[at] ^ (1 << bit)]) + genuine[at + 1 :],
        positions,
        st.integers(0, 7),
    )
    appended = st.binary(min_size=1, max_size=8).map(lambda tail: genuine + tail)
    return st.one_of(st.binary(max_size=200), positions.map(lambda end: genuine[:end]), flipped, appended)


def _certificate(
    site: Authority,
    *,
    names: list[str] | None = None,
    usages: list[x509.ObjectIdentifier] | None = None,
) -> bytes:
    """What a careless authority might issue; the key is fresh."""
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH] if usages is None else usages
    names = ["alpha"] if names is None else names
    moment = dt.datetime.fromtimestamp(NOW, dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(site.certificate.subject)
        .public_key(ec.generate_private_key(ec.SECP256R1()).public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment - dt.timedelta(days=1))
        .not_valid_after(moment + dt.timedelta(days=1))
    )
    if usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    if names:
        shown = [x509.DNSName(name) for name in names]
        builder = builder.add_extension(x509.SubjectAlternativeName(shown), critical=False)
    return builder.sign(site.key, hashes.SHA256()).public_bytes(Encoding.DER)


def _without_secure_boot_rule(reference: ReferenceValues) -> ReferenceValues:
    return replace(reference, states=tuple(replace(state, secure_boot=None) for state in reference.states))
