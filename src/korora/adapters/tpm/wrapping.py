"""The destination's side of a key wrap: a fresh ECDH key per migration, usable only while the PCRs hold.

Promise: the private half never leaves the TPM, and after a TPM reset it cannot be loaded again (its parent
belongs to the null hierarchy). Limit: nothing here decides whether the PCRs are good; the source does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tpm2_pytss.constants import ESYS_TR, TPM2_ALG, TPM2_SE
from tpm2_pytss.types import (
    TPM2B_DIGEST,
    TPM2B_ECC_POINT,
    TPM2B_PUBLIC,
    TPM2B_SENSITIVE_CREATE,
    TPML_PCR_SELECTION,
    TPMS_ECC_POINT,
    TPMT_SIG_SCHEME,
)

from korora.adapters.tpm.connection import Refusal, flushed
from korora.adapters.tpm.keys import attestation_key, confidential_session, storage_key, trial_session
from korora.errors import RefusedError
from korora.model.evidence import Quote
from korora.model.identity import Secret
from korora.model.tpm import WrappingKey
from korora.policy.pcrs import selection_bytes
from korora.protocol.key_wrap import ATTRIBUTES

_POINT_BYTES: Final = 64
_POLICY, _PCR_CHANGED = 0x126, 0x128

REFUSAL: Final = Refusal(
    codes=frozenset({_POLICY, _PCR_CHANGED}),
    kind="wrapped-key",
    message="the TPM does not use its wrapping key: a PCR changed, or the TPM was reset, since it was made",
    remedy="find out what changed a PCR of this host, then start the migration again",
)


@dataclass(frozen=True, slots=True)
class Held:
    """What loads the key again: the TPM's own encrypted blob, worthless elsewhere."""

    private: Any = field(repr=False)
    public: Any = field(repr=False)
    name: bytes
    pcrs: tuple[int, ...]


def create(esys: Any, nonce: bytes, pcrs: Sequence[int]) -> tuple[WrappingKey, Held]:
    """Make the key for `nonce` under the present values of `pcrs`, certified by the AK."""
    selection = _selection(pcrs)
    template = _template(esys, selection)
    with storage_key(esys, ESYS_TR.RH_NULL) as parent:
        private, public, data, digest, ticket = esys.create(
            parent, TPM2B_SENSITIVE_CREATE(), template, outside_info=nonce, creation_pcr=selection
        )
        key = esys.load(parent, private, public)
    own_scheme = TPMT_SIG_SCHEME(scheme=TPM2_ALG.NULL)
    with flushed(esys, key), attestation_key(esys) as (ak, _):
        attest, signature = esys.certify_creation(ak, key, nonce, digest, own_scheme, ticket)
    certification = Quote(bytes(attest), signature.marshal())
    name = bytes(public.get_name())
    held = Held(private, public, name, tuple(sorted(set(pcrs))))
    return WrappingKey(public.marshal(), data.marshal(), certification), held


def agree(esys: Any, held: Held, ephemeral: bytes) -> Secret:
    """ECDH with the source's ephemeral point: the x-coordinate, 32 bytes."""
    if len(ephemeral) != _POINT_BYTES:
        raise RefusedError("the wrapped key has no P-256 point", kind="wrapped-key", remedy=REFUSAL.remedy)
    point = TPM2B_ECC_POINT(TPMS_ECC_POINT(x=ephemeral[:32], y=ephemeral[32:]))
    with (
        storage_key(esys, ESYS_TR.RH_NULL) as parent,
        flushed(esys, esys.load(parent, held.private, held.public)) as key,
        confidential_session(esys, TPM2_SE.POLICY) as session,
    ):
        esys.policy_pcr(session, b"", _selection(held.pcrs))
        # Held in names on purpose: a chained attribute outlives the structure that owns its bytes.
        shared = esys.ecdh_zgen(key, point, session1=session)
        inner = shared.point
        return Secret(bytes(inner.x).rjust(32, b"\0"))


def _template(esys: Any, selection: Any) -> Any:
    with trial_session(esys) as session:
        esys.policy_pcr(session, b"", selection)
        policy = bytes(esys.policy_get_digest(session))
    template = TPM2B_PUBLIC.parse("ecc256:null:null", objectAttributes=int(ATTRIBUTES))
    template.publicArea.authPolicy = TPM2B_DIGEST(policy)
    return template


def _selection(pcrs: Sequence[int]) -> Any:
    selection, _ = TPML_PCR_SELECTION.unmarshal(selection_bytes(pcrs))
    return selection
