"""The host's TLS key exists on disk only sealed to its TPM and platform state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fakes.attested_site import Authority
from fakes.host_tpm import HostTpm, host_tpm
from korora.adapters.tpm import identity
from korora.adapters.tpm.esys import EsysTpm
from korora.errors import IntegrityError, RefusedError
from korora.model.identity import HostName
from korora.protocol import dsse


@dataclass(frozen=True)
class Host:
    device: HostTpm
    tpm: EsysTpm
    directory: Path


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with host_tpm(tmp_path / "tpm") as device:
        tpm = EsysTpm(device.tcti)
        yield Host(device, tpm, tmp_path / "identity")
        tpm.close()


def test_an_identity_is_the_same_after_a_restart_of_the_host(host: Host) -> None:
    enrolled = Authority.create().enrol(host.tpm, host.directory, "alpha")
    host.device.reset()
    loaded = identity.load_identity(host.tpm, host.directory)
    assert loaded.key.key_id == enrolled.key.key_id
    assert loaded.certificate == enrolled.certificate
    assert loaded.enrolment == enrolled.enrolment


def test_the_identity_signs_statements_that_its_certificate_verifies(host: Host) -> None:
    who = Authority.create().enrol(host.tpm, host.directory, "alpha")
    public = who.certificate.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    envelope = dsse.envelope("text/plain", b"statement", [who.key])
    assert dsse.opened(envelope, "text/plain", {who.key.key_id: public}) == b"statement"
    public.verify(who.key.sign(b"data"), b"data", ec.ECDSA(hashes.SHA256()))
    with pytest.raises(InvalidSignature):
        public.verify(who.key.sign(b"data"), b"date", ec.ECDSA(hashes.SHA256()))


def test_the_private_key_is_nowhere_on_disk(host: Host) -> None:
    who = Authority.create().enrol(host.tpm, host.directory, "alpha")
    scalar = who.key.private.private_numbers().private_value.to_bytes(32)
    der = who.key.private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    files = sorted(path.name for path in host.directory.iterdir())
    assert files == ["certificate.pem", "enrolment.json", "key.sealed"]
    for path in host.directory.iterdir():
        assert scalar not in path.read_bytes()
        assert der not in path.read_bytes()
        assert path.stat().st_mode & 0o077 == 0
    assert host.directory.stat().st_mode & 0o077 == 0
    assert repr(who.key) == "TlsKey()"


def test_asking_again_keeps_the_key(host: Host) -> None:
    first = identity.request_enrolment(host.tpm, host.directory, HostName("alpha"))
    key = (host.directory / "key.sealed").read_bytes()
    second = identity.request_enrolment(host.tpm, host.directory, HostName("alpha"))
    assert (host.directory / "key.sealed").read_bytes() == key
    assert first.ak_public == second.ak_public


def test_the_key_does_not_open_in_another_platform_state(host: Host) -> None:
    Authority.create().enrol(host.tpm, host.directory, "alpha")
    host.device.extend(0, bytes(32))
    for use in (
        lambda: identity.load_identity(host.tpm, host.directory),
        lambda: identity.request_enrolment(host.tpm, host.directory, HostName("alpha")),
    ):
        with pytest.raises(RefusedError) as caught:
            use()
        assert caught.value.kind == "sealed"


def test_after_discarding_the_host_can_be_enrolled_in_its_new_state(host: Host) -> None:
    site = Authority.create()
    before = site.enrol(host.tpm, host.directory, "alpha")
    host.device.extend(0, bytes(32))
    identity.discard_identity(host.directory)
    assert site.enrol(host.tpm, host.directory, "alpha").key.key_id != before.key.key_id


def test_the_key_does_not_open_in_another_tpm(host: Host, tmp_path: Path) -> None:
    Authority.create().enrol(host.tpm, host.directory, "alpha")
    with host_tpm(tmp_path / "other", serial=2) as device, pytest.raises(RefusedError) as caught:
        identity.load_identity(EsysTpm(device.tcti), host.directory)
    assert caught.value.kind == "sealed"


def test_a_host_that_was_never_enrolled_says_how_to(host: Host) -> None:
    for _ in range(2):
        with pytest.raises(RefusedError) as caught:
            identity.load_identity(host.tpm, host.directory)
        assert caught.value.kind == "not-enrolled"
        assert "host enroll" in caught.value.remedy
        identity.request_enrolment(host.tpm, host.directory, HostName("alpha"))


def test_a_certificate_for_another_key_is_not_taken(host: Host, tmp_path: Path) -> None:
    site = Authority.create()
    with host_tpm(tmp_path / "other", serial=2) as device:
        theirs = site.enrol(EsysTpm(device.tcti), tmp_path / "theirs", "beta")
    for bad in (theirs.certificate_pem, b"", b"-----BEGIN CERTIFICATE-----"):
        with pytest.raises(IntegrityError) as caught:
            identity.accept_enrolment(host.tpm, host.directory, bad, theirs.enrolment)
        assert caught.value.kind == "wrong-certificate"
    mine = site.enrol(host.tpm, host.directory, "alpha")
    (host.directory / "certificate.pem").write_bytes(theirs.certificate_pem)
    with pytest.raises(IntegrityError):
        identity.load_identity(host.tpm, host.directory)
    assert mine.key.key_id != theirs.key.key_id
