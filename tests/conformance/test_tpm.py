"""What every adapter of the Tpm port does, shown on a real TPM 2.0 (swtpm, switched on by the test)."""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tpm2_pytss import ESAPI
from tpm2_pytss.constants import ESYS_TR
from tpm2_pytss.types import TPM2B_PUBLIC
from tpm2_pytss.utils import make_credential

from fakes.host_tpm import HostTpm, host_tpm
from korora.adapters.tpm.esys import EsysTpm
from korora.errors import IntegrityError, RefusedError, ToolError
from korora.model.evidence import PcrValues
from korora.model.identity import Secret
from korora.model.tpm import Credential, WrappedKey, WrappingKey
from korora.policy import attest
from korora.policy.attest import Attribute, QuoteInfo
from korora.policy.pcrs import PLATFORM_PCRS, pcr_digest
from korora.ports.tpm import Tpm
from korora.protocol import key_wrap

COUNTER = 0x01800100
NONCE = bytes(range(32))
SECRET = Secret(b"a secret of this host")


@pytest.fixture
def device(tmp_path: Path) -> Iterator[HostTpm]:
    with host_tpm(tmp_path / "one") as made:
        yield made


@pytest.fixture
def tpm(device: HostTpm) -> Iterator[Tpm]:
    made = EsysTpm(device.tcti)
    yield made
    made.close()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Tpm]:
    with host_tpm(tmp_path / "two", serial=2) as made:
        tpm = EsysTpm(made.tcti)
        yield tpm
        tpm.close()


def test_the_ek_certificate_is_for_the_ek(tpm: Tpm) -> None:
    certificate = x509.load_der_x509_certificate(tpm.endorsement_certificate())
    ek = attest.parse_public(tpm.endorsement_public())
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert certificate.public_key().public_bytes(*form) == ek.key.public_bytes(*form)


def test_an_ek_that_is_not_persistent_is_made_again_and_is_the_same(device: HostTpm, tpm: Tpm) -> None:
    before = tpm.endorsement_public()
    with ESAPI(device.tcti) as esys:
        esys.evict_control(ESYS_TR.OWNER, esys.tr_from_tpmpublic(0x81010001), 0)
    assert tpm.endorsement_public() == before


def test_a_tpm_without_ek_certificate_says_what_is_missing(device: HostTpm, tpm: Tpm) -> None:
    with ESAPI(device.tcti) as esys:
        esys.nv_undefine_space(esys.tr_from_tpmpublic(0x01C00002), ESYS_TR.PLATFORM)
    with pytest.raises(ToolError) as caught:
        tpm.endorsement_certificate()
    assert caught.value.kind == "no-ek-certificate"


def test_the_ak_is_a_restricted_signing_key_and_survives_a_restart(device: HostTpm, tpm: Tpm) -> None:
    before = tpm.attestation_public()
    ak = attest.parse_public(before)
    assert Attribute.RESTRICTED | Attribute.SIGN in ak.attributes
    assert Attribute.DECRYPT not in ak.attributes
    device.reset()
    assert tpm.attestation_public() == before


def test_two_tpms_have_different_keys(tpm: Tpm, other: Tpm) -> None:
    assert tpm.attestation_public() != other.attestation_public()
    assert tpm.endorsement_public() != other.endorsement_public()


def test_pcrs_follow_an_extend(device: HostTpm, tpm: Tpm) -> None:
    digest = hashlib.sha256(b"event").digest()
    assert tpm.read_pcrs([4]) == {4: bytes(32).hex()}
    device.extend(4, digest)
    assert tpm.read_pcrs([4]) == {4: hashlib.sha256(bytes(32) + digest).hexdigest()}


def test_all_pcrs_can_be_read_at_once(tpm: Tpm) -> None:
    assert list(tpm.read_pcrs(range(24))) == list(range(24))


def test_a_quote_is_signed_by_the_ak_over_the_data_and_the_pcrs(device: HostTpm, tpm: Tpm) -> None:
    device.extend(7, bytes(32))
    quote = tpm.quote([7, 0, 2], NONCE)
    read = attest.verify_attestation(quote, attest.parse_public(tpm.attestation_public()))
    assert read.extra_data == NONCE
    assert read.attested == QuoteInfo((0, 2, 7), pcr_digest(tpm.read_pcrs([0, 2, 7])))


def test_a_quote_of_another_tpm_does_not_verify(tpm: Tpm, other: Tpm) -> None:
    with pytest.raises(IntegrityError) as caught:
        attest.verify_attestation(other.quote([0], NONCE), attest.parse_public(tpm.attestation_public()))
    assert caught.value.kind == "quote-signature"


def test_a_credential_opens_in_its_own_tpm(tpm: Tpm) -> None:
    assert tpm.activate_credential(_credential(tpm, tpm)).reveal() == bytes(32)


def test_a_credential_for_another_ek_or_another_ak_does_not_open(tpm: Tpm, other: Tpm) -> None:
    for credential in (_credential(other, other), _credential(tpm, other), Credential(b"", b"")):
        with pytest.raises(ToolError):
            tpm.activate_credential(credential)


def test_a_sealed_secret_opens_again_also_after_a_reset(device: HostTpm, tpm: Tpm) -> None:
    sealed = tpm.seal(SECRET, PLATFORM_PCRS)
    assert tpm.unseal(sealed) == SECRET
    device.reset()
    assert tpm.unseal(sealed) == SECRET


def test_the_longest_secret_can_be_sealed_and_no_longer_one(tpm: Tpm) -> None:
    longest = Secret(bytes(128))
    assert tpm.unseal(tpm.seal(longest, [0])) == longest
    with pytest.raises(ValueError, match="128"):
        tpm.seal(Secret(bytes(129)), [0])


def test_a_sealed_secret_does_not_open_once_a_pcr_has_changed(device: HostTpm, tpm: Tpm) -> None:
    sealed = tpm.seal(SECRET, PLATFORM_PCRS)
    device.extend(7, bytes(32))
    _refused_as_sealed(tpm, sealed)


def test_a_pcr_that_was_not_chosen_does_not_matter(device: HostTpm, tpm: Tpm) -> None:
    sealed = tpm.seal(SECRET, [0, 2])
    device.extend(7, bytes(32))
    assert tpm.unseal(sealed) == SECRET


def test_a_sealed_secret_does_not_open_in_another_tpm(tpm: Tpm, other: Tpm) -> None:
    _refused_as_sealed(other, tpm.seal(SECRET, PLATFORM_PCRS))


def test_a_changed_sealed_secret_does_not_open(tpm: Tpm) -> None:
    tpm.counter_create(COUNTER)
    sealed = tpm.seal(SECRET, PLATFORM_PCRS, COUNTER)
    for at in range(0, len(sealed), 5):
        _refused_as_sealed(tpm, sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :])
    _refused_as_sealed(tpm, sealed + b"\0")
    _refused_as_sealed(tpm, sealed[:-1])
    _refused_as_sealed(tpm, b"")


def test_a_counter_only_grows(device: HostTpm, tpm: Tpm) -> None:
    tpm.counter_create(COUNTER)
    first = tpm.counter_read(COUNTER)
    assert tpm.counter_increment(COUNTER) == first + 1
    tpm.counter_create(COUNTER)
    device.reset()
    assert tpm.counter_read(COUNTER) == first + 1


def test_a_counter_that_is_made_again_starts_above_its_old_value(tpm: Tpm) -> None:
    tpm.counter_create(COUNTER)
    old = tpm.counter_increment(COUNTER)
    tpm.counter_remove(COUNTER)
    with pytest.raises(ToolError):
        tpm.counter_read(COUNTER)
    tpm.counter_create(COUNTER)
    assert tpm.counter_read(COUNTER) > old


def test_an_index_that_is_something_else_is_not_taken_for_a_counter(tpm: Tpm) -> None:
    with pytest.raises(ToolError) as caught:
        tpm.counter_create(0x01C00002)
    assert caught.value.kind == "nv-occupied"


def test_a_secret_sealed_under_a_counter_opens_until_it_moves_on(device: HostTpm, tpm: Tpm) -> None:
    tpm.counter_create(COUNTER)
    sealed = tpm.seal(SECRET, PLATFORM_PCRS, COUNTER)
    device.reset()
    assert tpm.unseal(sealed) == SECRET
    tpm.counter_increment(COUNTER)
    _refused_as_sealed(tpm, sealed)
    tpm.counter_remove(COUNTER)
    _refused_as_sealed(tpm, sealed)
    tpm.counter_create(COUNTER)
    _refused_as_sealed(tpm, sealed)


def test_a_wrapped_key_opens_in_the_tpm_that_it_was_wrapped_for(tpm: Tpm) -> None:
    made = tpm.create_wrapping_key(NONCE, PLATFORM_PCRS)
    wrapped = _wrap(tpm, made, tpm.read_pcrs(PLATFORM_PCRS))
    assert tpm.open_wrapped(NONCE, wrapped, b"vm 1") == SECRET


def test_a_wrapped_key_does_not_open_in_another_context(tpm: Tpm) -> None:
    wrapped = _wrap(tpm, tpm.create_wrapping_key(NONCE, PLATFORM_PCRS), tpm.read_pcrs(PLATFORM_PCRS))
    _refused_as_wrapped(tpm, NONCE, wrapped, context=b"vm 2")
    for at in range(0, 64, 9):
        ephemeral = wrapped.ephemeral[:at] + bytes([wrapped.ephemeral[at] ^ 1]) + wrapped.ephemeral[at + 1 :]
        _refused_as_wrapped(tpm, NONCE, replace(wrapped, ephemeral=ephemeral))
    for bad in (b"", bytes(64), b"\xff" * 64, bytes(65)):
        _refused_as_wrapped(tpm, NONCE, replace(wrapped, ephemeral=bad))
    for bad in (b"", wrapped.ciphertext[:-1], wrapped.ciphertext + b"\0"):
        _refused_as_wrapped(tpm, NONCE, replace(wrapped, ciphertext=bad))
    assert tpm.open_wrapped(NONCE, wrapped, b"vm 1") == SECRET


def test_a_wrapped_key_does_not_open_for_another_migrations_key(tpm: Tpm) -> None:
    wrapped = _wrap(tpm, tpm.create_wrapping_key(NONCE, PLATFORM_PCRS), tpm.read_pcrs(PLATFORM_PCRS))
    second = secrets.token_bytes(32)
    tpm.create_wrapping_key(second, PLATFORM_PCRS)
    _refused_as_wrapped(tpm, second, wrapped)


def test_a_wrapped_key_does_not_open_once_a_pcr_has_changed(device: HostTpm, tpm: Tpm) -> None:
    wrapped = _wrap(tpm, tpm.create_wrapping_key(NONCE, PLATFORM_PCRS), tpm.read_pcrs(PLATFORM_PCRS))
    device.extend(0, bytes(32))
    _refused_as_wrapped(tpm, NONCE, wrapped)


def test_a_wrapped_key_does_not_open_after_a_reset_though_the_pcrs_are_the_same(
    device: HostTpm, tpm: Tpm
) -> None:
    wrapped = _wrap(tpm, tpm.create_wrapping_key(NONCE, PLATFORM_PCRS), tpm.read_pcrs(PLATFORM_PCRS))
    device.reset()
    _refused_as_wrapped(tpm, NONCE, wrapped)


def test_a_wrapped_key_does_not_open_in_another_tpm(tpm: Tpm, other: Tpm) -> None:
    wrapped = _wrap(tpm, tpm.create_wrapping_key(NONCE, PLATFORM_PCRS), tpm.read_pcrs(PLATFORM_PCRS))
    _refused_as_wrapped(other, NONCE, wrapped)
    other.create_wrapping_key(NONCE, PLATFORM_PCRS)
    _refused_as_wrapped(other, NONCE, wrapped)


def test_a_forgotten_wrapping_key_opens_nothing(tpm: Tpm) -> None:
    wrapped = _wrap(tpm, tpm.create_wrapping_key(NONCE, PLATFORM_PCRS), tpm.read_pcrs(PLATFORM_PCRS))
    tpm.forget_wrapping_key(NONCE)
    tpm.forget_wrapping_key(NONCE)
    _refused_as_wrapped(tpm, NONCE, wrapped)


def test_an_absent_tpm_is_named_and_found_again_when_it_returns(device: HostTpm, tpm: Tpm) -> None:
    tpm.read_pcrs([0])
    device.switch_off()
    with pytest.raises(ToolError) as caught:
        tpm.read_pcrs([0])
    assert caught.value.kind == "tpm-unreachable"
    assert "hostd.toml" in caught.value.remedy
    device.switch_on()
    assert tpm.read_pcrs([0]) == {0: bytes(32).hex()}


def test_a_tcti_that_does_not_exist_is_a_tool_error() -> None:
    for tcti in ("nonsense:x", "swtpm:path=/does/not/exist", ""):
        with pytest.raises(ToolError):
            EsysTpm(tcti).read_pcrs([0])


def test_objects_that_a_killed_process_left_behind_are_not_in_the_way(device: HostTpm, tpm: Tpm) -> None:
    with ESAPI(device.tcti) as esys:
        for _ in range(3):
            esys.create_primary(None)
        for _ in range(3):
            esys.start_auth_session(ESYS_TR.NONE, ESYS_TR.NONE, 1, "null", "sha256")
    assert tpm.unseal(tpm.seal(SECRET, [0])) == SECRET


def test_nothing_stays_loaded_after_any_call(device: HostTpm, tpm: Tpm) -> None:
    for _ in range(4):
        tpm.quote([0], NONCE)
        wrapped = _wrap(tpm, tpm.create_wrapping_key(NONCE, PLATFORM_PCRS), tpm.read_pcrs(PLATFORM_PCRS))
        tpm.open_wrapped(NONCE, wrapped, b"vm 1")
        _refused_as_wrapped(tpm, NONCE, replace(wrapped, ephemeral=bytes(64)))
        tpm.unseal(tpm.seal(SECRET, [0]))
        tpm.activate_credential(_credential(tpm, tpm))
    with ESAPI(device.tcti) as esys:
        for first in (0x80000000, 0x02000000, 0x03000000):
            _, found = esys.get_capability(1, first, 16)
            assert len(found.data.handles) == 0


def test_many_threads_share_one_tpm(tpm: Tpm) -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(5):
                assert tpm.unseal(tpm.seal(SECRET, [0])) == SECRET
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def _credential(ek_of: Tpm, ak_of: Tpm) -> Credential:
    ek, _ = TPM2B_PUBLIC.unmarshal(ek_of.endorsement_public())
    ak = attest.parse_public(ak_of.attestation_public())
    blob, encrypted = make_credential(ek, bytes(32), ak.name)
    return Credential(blob.marshal(), encrypted.marshal())


def _wrap(tpm: Tpm, made: WrappingKey, pcrs: PcrValues) -> WrappedKey:
    return key_wrap.wrap(
        SECRET,
        made,
        ak_public=tpm.attestation_public(),
        nonce=NONCE,
        pcrs=pcrs,
        context=b"vm 1",
        ephemeral=ec.generate_private_key(ec.SECP256R1()),
    )


def _refused_as_sealed(tpm: Tpm, sealed: bytes) -> None:
    with pytest.raises(RefusedError) as caught:
        tpm.unseal(sealed)
    assert caught.value.kind == "sealed"


def _refused_as_wrapped(tpm: Tpm, nonce: bytes, wrapped: WrappedKey, context: bytes = b"vm 1") -> None:
    with pytest.raises(RefusedError) as caught:
        tpm.open_wrapped(nonce, wrapped, context)
    assert caught.value.kind == "wrapped-key"
