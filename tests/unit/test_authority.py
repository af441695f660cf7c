"""The site authority issues nothing before a host's TPM has proved itself."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes.attested_site import NOW, Authority
from fakes.host_tpm import host_tpm, manufacturer_certificates
from fakes.tpm_structures import SoftwareAk, ecc_public, private_key
from korora import authority
from korora.adapters.tpm import identity
from korora.adapters.tpm.esys import EsysTpm
from korora.adapters.tpm.identity import EnrolmentRequest
from korora.errors import KororaError, RefusedError, ToolError, UsageError
from korora.model.identity import HostName, Secret, sha256
from korora.policy.appraisal import AK_ATTRIBUTES
from korora.policy.certificates import checked_host_certificate, key_digest
from korora.protocol.enrolment import credential_answer, opened_enrolment


@dataclass(frozen=True)
class Candidate:
    tpm: EsysTpm
    directory: Path
    request: EnrolmentRequest


@pytest.fixture(scope="module")
def alpha(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Candidate]:
    yield from _candidate(tmp_path_factory.mktemp("alpha"), 1)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Candidate]:
    yield from _candidate(tmp_path_factory.mktemp("other"), 2)


@pytest.fixture(scope="module")
def site() -> Authority:
    return Authority.create()


def _candidate(directory: Path, serial: int) -> Iterator[Candidate]:
    with host_tpm(directory, serial=serial) as device:
        tpm = EsysTpm(device.tcti)
        request = identity.request_enrolment(tpm, directory / "identity", HostName("alpha"))
        yield Candidate(tpm, directory / "identity", request)
        tpm.close()


def challenged(
    who: Candidate,
    changed: dict[str, bytes] | None = None,
    *,
    host: str = "alpha",
    maker: str = "good",
) -> authority.Challenge:
    request = replace(who.request, **(changed or {}))
    return authority.challenge(
        request.ek_certificate,
        request.ek_public,
        request.ak_public,
        request.csr_pem,
        host,
        manufacturer_certificates(maker),
        NOW,
    )


def refused(who: Candidate, kind: str, **changed: bytes) -> None:
    with pytest.raises(KororaError) as caught:
        challenged(who, changed)
    assert caught.value.kind == kind
    assert caught.value.remedy


def test_a_host_that_solves_its_challenge_gets_a_certificate_and_an_enrolment(
    alpha: Candidate, site: Authority
) -> None:
    made = challenged(alpha)
    answer = identity.answer_challenge(alpha.tpm, alpha.directory, made.credential)
    issued = authority.issue(made, answer, site.certificate, site.key, now=NOW, lifetime=dt.timedelta(days=9))
    certificate = x509.load_pem_x509_certificate(issued.certificate_pem)
    checked_host_certificate(certificate.public_bytes(Encoding.DER), HostName("alpha"), site.certificate, NOW)
    enrolment = opened_enrolment(issued.enrolment, site.certificate)
    assert (enrolment.host, enrolment.ek_certificate) == ("alpha", sha256(alpha.request.ek_certificate))
    assert enrolment.tls_key == key_digest(certificate)
    assert enrolment.not_after == int(NOW + 9 * 86400)
    assert abs(certificate.not_valid_after_utc.timestamp() - enrolment.not_after) <= 1


def test_a_wrong_or_late_answer_issues_nothing(alpha: Candidate, site: Authority) -> None:
    made = challenged(alpha)
    answer = identity.answer_challenge(alpha.tpm, alpha.directory, made.credential)
    for wrong, now, kind in (
        (bytes(32), NOW, "not-this-tpm"),
        (b"", NOW, "not-this-tpm"),
        (answer + b"\0", NOW, "not-this-tpm"),
        (answer, NOW + 601, "expired"),
        (answer, NOW - 1, "expired"),
    ):
        with pytest.raises(RefusedError) as caught:
            authority.issue(made, wrong, site.certificate, site.key, now=now)
        assert caught.value.kind == kind


def test_an_answer_to_an_earlier_challenge_issues_nothing(alpha: Candidate, site: Authority) -> None:
    earlier = identity.answer_challenge(alpha.tpm, alpha.directory, challenged(alpha).credential)
    with pytest.raises(RefusedError):
        authority.issue(challenged(alpha), earlier, site.certificate, site.key, now=NOW)


def test_a_credential_for_another_tpm_cannot_be_answered(alpha: Candidate, other: Candidate) -> None:
    made = challenged(alpha)
    with pytest.raises(ToolError):
        identity.answer_challenge(other.tpm, other.directory, made.credential)


def test_an_ak_of_another_tpm_cannot_be_enrolled_with_this_ek(alpha: Candidate, other: Candidate) -> None:
    made = challenged(alpha, {"ak_public": other.request.ak_public})
    for candidate in (alpha, other):
        with pytest.raises(ToolError):
            identity.answer_challenge(candidate.tpm, candidate.directory, made.credential)


def test_a_tls_key_put_in_on_the_way_is_not_certified(alpha: Candidate, site: Authority) -> None:
    """The host opens the credential, but answers for its own TLS key."""
    made = challenged(alpha, {"csr_pem": _csr("alpha")})
    answer = identity.answer_challenge(alpha.tpm, alpha.directory, made.credential)
    with pytest.raises(RefusedError) as caught:
        authority.issue(made, answer, site.certificate, site.key, now=NOW)
    assert caught.value.kind == "not-this-tpm"


def test_an_ek_from_an_unknown_manufacturer_is_refused(alpha: Candidate) -> None:
    with pytest.raises(RefusedError) as caught:
        challenged(alpha, maker="unknown")
    assert caught.value.kind == "unknown-manufacturer"


def test_an_ek_that_is_not_the_certified_one_is_refused(alpha: Candidate, other: Candidate) -> None:
    refused(alpha, "ek-mismatch", ek_public=other.request.ek_public)
    refused(alpha, "ek-mismatch", ek_public=alpha.request.ak_public)
    rights = bytearray(alpha.request.ek_public)
    rights[7] ^= 0x01  # no longer restricted
    refused(alpha, "ek-mismatch", ek_public=bytes(rights))


def test_an_ak_that_signs_anything_is_refused(alpha: Candidate) -> None:
    key = private_key(5).public_key()
    for attributes, scheme in ((AK_ATTRIBUTES ^ 0x10000, b"\0\x18\0\x0b"), (AK_ATTRIBUTES, b"\0\x10")):
        refused(alpha, "ak-mismatch", ak_public=ecc_public(key, attributes, scheme=scheme))


def test_an_ak_in_software_cannot_answer(alpha: Candidate) -> None:
    made = challenged(alpha, {"ak_public": SoftwareAk().public})
    with pytest.raises(ToolError):
        identity.answer_challenge(alpha.tpm, alpha.directory, made.credential)


def test_a_bad_certificate_request_is_refused(alpha: Candidate) -> None:
    rsa_key = rsa.generate_private_key(65537, 2048)
    forged = bytearray(_csr_der("alpha"))
    forged[-1] ^= 1
    for bad in (b"", b"-----BEGIN", _csr("beta"), _csr("alpha", rsa_key), _csr("alpha", ec.SECP384R1())):
        refused(alpha, "bad-csr", csr_pem=bad)
    pem = x509.load_der_x509_csr(bytes(forged)).public_bytes(Encoding.PEM)
    refused(alpha, "bad-csr", csr_pem=pem)


def test_a_host_name_that_is_none_is_refused(alpha: Candidate) -> None:
    with pytest.raises(UsageError):
        challenged(alpha, host="../alpha")


def test_a_key_that_is_not_the_authoritys_signs_nothing(alpha: Candidate, site: Authority) -> None:
    made = challenged(alpha)
    answer = identity.answer_challenge(alpha.tpm, alpha.directory, made.credential)
    with pytest.raises(UsageError) as caught:
        authority.issue(made, answer, site.certificate, Authority.create().key, now=NOW)
    assert caught.value.kind == "authority-key"


def test_nothing_outlives_the_authority(alpha: Candidate, site: Authority) -> None:
    made = challenged(alpha)
    answer = identity.answer_challenge(alpha.tpm, alpha.directory, made.credential)
    issued = authority.issue(
        made, answer, site.certificate, site.key, now=NOW, lifetime=dt.timedelta(days=9999)
    )
    until = opened_enrolment(issued.enrolment, site.certificate).not_after
    assert until == int(site.certificate.not_valid_after_utc.timestamp())


@given(data=st.data())
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_request_makes_the_authority_fail(alpha: Candidate, data: st.DataObject) -> None:
    part = data.draw(st.sampled_from(["ek_certificate", "ek_public", "ak_public", "csr_pem"]))
    genuine: bytes = getattr(alpha.request, part)
    cut = st.integers(0, len(genuine) - 40).map(lambda end: genuine[:end])
    noise = data.draw(st.one_of(st.binary(max_size=300), cut))
    with pytest.raises(KororaError):
        challenged(alpha, {part: noise})


def test_the_specified_answer_vector_holds() -> None:
    """docs/protocol/attestation.md, "Enrolment", test vector."""
    answer = credential_answer(Secret(bytes(range(32))), "sha256:" + "00" * 32)
    assert answer.hex() == "0f95e8310f34fa323f672ac3d8f16f540e786cfa008178d3088faed2984bdef0"


def _csr(name: str, key: object = None) -> bytes:
    return _csr_of(name, key).public_bytes(Encoding.PEM)


def _csr_der(name: str) -> bytes:
    return _csr_of(name, None).public_bytes(Encoding.DER)


def _csr_of(name: str, key: object) -> x509.CertificateSigningRequest:
    if not isinstance(key, rsa.RSAPrivateKey):
        key = ec.generate_private_key(key if isinstance(key, ec.EllipticCurve) else ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    return x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
