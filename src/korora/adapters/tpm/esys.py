"""The host's TPM through the TPM software stack's ESAPI, on any TCTI ("device:/dev/tpmrm0", "swtpm:path=…").

Promise: the contract of `ports.tpm`; every object and session is flushed after each call, so three transient
slots and no resource manager are enough; what is secret (activated credential, unsealed data, ECDH result)
crosses the bus only in sessions that are salted to the EK and encrypted. Limit: empty hierarchy
authorizations (Debian's and swtpm's default); wrapping keys are remembered in this process only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from tpm2_pytss.constants import ESYS_TR, TPM2_ALG, TPM2_SE
from tpm2_pytss.types import (
    TPM2B_ENCRYPTED_SECRET,
    TPM2B_ID_OBJECT,
    TPML_PCR_SELECTION,
    TPMT_SIG_SCHEME,
)

from korora.adapters.tpm import counters, keys, sealing, wrapping
from korora.adapters.tpm.connection import Connection
from korora.errors import RefusedError, ToolError
from korora.model.evidence import PcrValues, Quote
from korora.model.identity import Secret
from korora.model.tpm import Credential, WrappedKey, WrappingKey
from korora.policy.pcrs import selection_bytes
from korora.protocol import key_wrap

_MAX_QUALIFYING_BYTES: Final = 32  # every TPM takes that many, whatever digests it knows
_PCRS_AT_ONCE: Final = 8  # a TPM may answer with fewer than asked for, never with fewer than these

T = TypeVar("T")


class EsysTpm:
    """A `ports.tpm.Tpm`. Thread-safe; calls wait for one another."""

    def __init__(self, tcti: str) -> None:
        self._connection = Connection(tcti)
        self._wrapping: dict[bytes, wrapping.Held] = {}

    def endorsement_certificate(self) -> bytes:
        return self._run("read of the EK certificate", keys.endorsement_certificate)

    def endorsement_public(self) -> bytes:
        return self._run("read of the EK", lambda esys: _marshalled(keys.endorsement_key(esys)[1]))

    def attestation_public(self) -> bytes:
        return self._run("creation of the AK", _attestation_public)

    def activate_credential(self, credential: Credential) -> Secret:
        return self._run("activation of a credential", lambda esys: _activate(esys, credential))

    def read_pcrs(self, pcrs: Sequence[int]) -> PcrValues:
        return self._run("read of PCRs", lambda esys: _read_pcrs(esys, pcrs))

    def quote(self, pcrs: Sequence[int], qualifying_data: bytes) -> Quote:
        if len(qualifying_data) > _MAX_QUALIFYING_BYTES:
            raise ValueError(f"qualifying data has at most {_MAX_QUALIFYING_BYTES} bytes")
        return self._run("quote", lambda esys: _quote(esys, pcrs, qualifying_data))

    def seal(self, secret: Secret, pcrs: Sequence[int], counter: int | None = None) -> bytes:
        if not 0 < len(secret) <= sealing.MAX_SECRET_BYTES:
            raise ValueError(f"a secret to seal has 1 to {sealing.MAX_SECRET_BYTES} bytes, not {len(secret)}")
        return self._run("sealing", lambda esys: sealing.seal(esys, secret, pcrs, counter))

    def unseal(self, sealed: bytes) -> Secret:
        parsed = sealing.parse(sealed)
        return self._connection.run(
            "unsealing", lambda esys: sealing.unseal(esys, parsed), refusal=sealing.REFUSAL
        )

    def counter_create(self, counter: int) -> None:
        self._run("creation of a counter", lambda esys: counters.create(esys, counter))

    def counter_read(self, counter: int) -> int:
        return self._run("read of a counter", lambda esys: counters.read(esys, counter))

    def counter_increment(self, counter: int) -> int:
        self.counter_read(counter)  # mends a dead connection, which an increment must not do by repetition
        self._connection.run(
            "increment of a counter", lambda esys: counters.increment(esys, counter), repeatable=False
        )
        return self.counter_read(counter)

    def counter_remove(self, counter: int) -> None:
        self._connection.run(
            "removal of a counter", lambda esys: counters.remove(esys, counter), repeatable=False
        )

    def create_wrapping_key(self, nonce: bytes, pcrs: Sequence[int]) -> WrappingKey:
        created, held = self._run(
            "creation of a wrapping key", lambda esys: wrapping.create(esys, nonce, pcrs)
        )
        self._wrapping[nonce] = held
        return created

    def open_wrapped(self, nonce: bytes, wrapped: WrappedKey, context: bytes) -> Secret:
        held = self._wrapping.get(nonce)
        if held is None:
            raise RefusedError(
                "this host holds no wrapping key for that migration",
                kind="wrapped-key",
                remedy="start the migration again: the key is lost when the daemon restarts or gives up",
            )
        shared = self._connection.run(
            "opening of a wrapped key",
            lambda esys: wrapping.agree(esys, held, wrapped.ephemeral),
            refusal=wrapping.REFUSAL,
        )
        return key_wrap.opened(shared, wrapped, key_name=held.name, nonce=nonce, context=context)

    def forget_wrapping_key(self, nonce: bytes) -> None:
        self._wrapping.pop(nonce, None)

    def close(self) -> None:
        """Forget the wrapping keys and leave the TPM. A later call opens it again."""
        self._wrapping.clear()
        self._connection.close()

    def _run(self, operation: str, work: Callable[[Any], T]) -> T:
        return self._connection.run(operation, work)


def _attestation_public(esys: Any) -> bytes:
    with keys.attestation_key(esys) as (_, public):
        return _marshalled(public)


def _activate(esys: Any, credential: Credential) -> Secret:
    blob, _ = TPM2B_ID_OBJECT.unmarshal(credential.blob)
    encrypted, _ = TPM2B_ENCRYPTED_SECRET.unmarshal(credential.encrypted_secret)
    endorsement, _ = keys.endorsement_key(esys)
    with (
        keys.attestation_key(esys) as (ak, _),
        keys.confidential_session(esys, TPM2_SE.POLICY) as session,
    ):
        esys.policy_secret(ESYS_TR.ENDORSEMENT, session, expiration=0)  # the EK's policy (EK profile, B.3)
        return Secret(bytes(esys.activate_credential(ak, endorsement, blob, encrypted, session2=session)))


def _read_pcrs(esys: Any, pcrs: Sequence[int]) -> PcrValues:
    """All of them, of one moment: read again if a PCR was extended between two answers."""
    while True:
        values: PcrValues = {}
        updates = set()
        wanted = sorted(set(pcrs))
        while wanted:
            update, _, digests = esys.pcr_read(_selection(wanted[:_PCRS_AT_ONCE]))
            updates.add(int(update))
            if not len(digests):
                raise ToolError("the TPM has no SHA-256 bank, or not those PCRs", kind="tpm-no-sha256-bank")
            answered = wanted[: len(digests)]
            values |= {pcr: bytes(digest).hex() for pcr, digest in zip(answered, digests, strict=True)}
            wanted = wanted[len(digests) :]
        if len(updates) <= 1:
            return values


def _quote(esys: Any, pcrs: Sequence[int], qualifying_data: bytes) -> Quote:
    own_scheme = TPMT_SIG_SCHEME(scheme=TPM2_ALG.NULL)
    with keys.attestation_key(esys) as (ak, _):
        attest, signature = esys.quote(ak, _selection(pcrs), qualifying_data, own_scheme)
    return Quote(bytes(attest), signature.marshal())


def _selection(pcrs: Sequence[int]) -> Any:
    selection, _ = TPML_PCR_SELECTION.unmarshal(selection_bytes(pcrs))
    return selection


def _marshalled(public: Any) -> bytes:
    return bytes(public.marshal())
