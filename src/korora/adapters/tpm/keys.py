"""The keys that Korora uses in a host's TPM: their templates, and how each is brought into a slot.

Promise: EK, AK and storage key are the same after every restart, since they are derived from the TPM's
seeds by fixed templates; only the EK occupies persistent memory, at the handle that TCG reserves for it.
Limit: an RSA-2048 EK with its certificate at NV index 0x01C00002 (TCG EK Credential Profile 2.5, L-1).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from tpm2_pytss import TSS2_Exception
from tpm2_pytss.constants import ESYS_TR, TPM2_SE, TPMA_SESSION
from tpm2_pytss.types import TPM2_HANDLE, TPM2B_PUBLIC, TPM2B_SENSITIVE_CREATE, TPMT_SYM_DEF
from tpm2_pytss.utils import NVReadEK, create_ek_template

from korora.adapters.tpm.connection import RC_HANDLE, answered, flushed
from korora.errors import ToolError

EK_HANDLE: Final = 0x81010001
EK_CERTIFICATE: Final = 0x01C00002

_PART: Final = 512  # bytes of NV memory per command; every TPM can do that many
_ATTRIBUTES: Final = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted"


def attestation_template() -> Any:
    """The AK: restricted ECDSA P-256."""
    return TPM2B_PUBLIC.parse("ecc256:ecdsa-sha256:null", objectAttributes=f"{_ATTRIBUTES}|sign")


def storage_template() -> Any:
    """A parent for other keys: ECC P-256 with AES-128 (TCG provisioning guidance, SRK template)."""
    return TPM2B_PUBLIC.parse("ecc256:null:aes128cfb", objectAttributes=f"{_ATTRIBUTES}|decrypt|noda")


def endorsement_key(esys: Any) -> tuple[Any, Any]:
    """Handle and public area of the EK; it is made persistent when it was not yet. Needs no flush."""
    try:
        handle = esys.tr_from_tpmpublic(TPM2_HANDLE(EK_HANDLE))
    except TSS2_Exception as error:
        if not answered(error, RC_HANDLE):
            raise
        handle = _provisioned(esys)
    public, _, _ = esys.read_public(handle)
    return handle, public


def endorsement_certificate(esys: Any) -> bytes:
    """The EK certificate from NV memory, DER. ToolError(kind="no-ek-certificate") when there is none."""
    try:
        index = esys.tr_from_tpmpublic(TPM2_HANDLE(EK_CERTIFICATE))
    except TSS2_Exception as error:
        if not answered(error, RC_HANDLE):
            raise
        raise ToolError(
            f"this TPM has no EK certificate at NV index {EK_CERTIFICATE:#010x}",
            kind="no-ek-certificate",
            remedy="write the manufacturer's certificate there, or make one: swtpm_setup --create-ek-cert",
        ) from error
    size = int(esys.nv_read_public(index)[0].nvPublic.dataSize)
    parts = range(0, size, _PART)
    stored = b"".join(
        bytes(esys.nv_read(index, min(_PART, size - at), at, auth_handle=index)) for at in parts
    )
    return _without_padding(stored)


@contextmanager
def primary(esys: Any, template: Any, hierarchy: Any) -> Iterator[tuple[Any, Any]]:
    """A primary key for a moment: (handle, public area)."""
    handle, public, *_ = esys.create_primary(TPM2B_SENSITIVE_CREATE(), template, hierarchy)
    with flushed(esys, handle):
        yield handle, public


@contextmanager
def attestation_key(esys: Any) -> Iterator[tuple[Any, Any]]:
    with primary(esys, attestation_template(), ESYS_TR.ENDORSEMENT) as key:
        yield key


@contextmanager
def storage_key(esys: Any, hierarchy: Any = ESYS_TR.OWNER) -> Iterator[Any]:
    """The parent of what is sealed (owner), or of one boot's wrapping keys (null hierarchy)."""
    with primary(esys, storage_template(), hierarchy) as (handle, _):
        yield handle


@contextmanager
def confidential_session(esys: Any, kind: Any, *, towards_tpm: bool = False) -> Iterator[Any]:
    """A session salted to the EK: whoever listens between us and the TPM sees no secret parameter.

    The first parameter of the answer is encrypted, or of the command where the secret goes `towards_tpm`.
    """
    endorsement, _ = endorsement_key(esys)
    aes = TPMT_SYM_DEF.parse("aes128cfb")
    session = esys.start_auth_session(endorsement, ESYS_TR.NONE, kind, aes, "sha256")
    with flushed(esys, session):
        direction = TPMA_SESSION.DECRYPT if towards_tpm else TPMA_SESSION.ENCRYPT
        esys.trsess_set_attributes(session, direction | TPMA_SESSION.CONTINUESESSION)
        yield session


@contextmanager
def trial_session(esys: Any) -> Iterator[Any]:
    """A session that only computes what a policy's digest would be."""
    session = esys.start_auth_session(
        ESYS_TR.NONE, ESYS_TR.NONE, TPM2_SE.TRIAL, TPMT_SYM_DEF.parse("null"), "sha256"
    )
    with flushed(esys, session):
        yield session


def _provisioned(esys: Any) -> Any:
    _, template = create_ek_template("EK-RSA2048", NVReadEK(esys))
    with primary(esys, template, ESYS_TR.ENDORSEMENT) as (handle, _):
        return esys.evict_control(ESYS_TR.OWNER, handle, EK_HANDLE)


def _without_padding(stored: bytes) -> bytes:
    """Some manufacturers' NV index is longer than the certificate in it: DER says where it ends."""
    if stored[:2] != b"\x30\x82":
        return stored
    return stored[: 4 + int.from_bytes(stored[2:4], "big")]
