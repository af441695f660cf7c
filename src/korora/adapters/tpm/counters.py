"""Monotonic counters in the TPM's NV memory: they only grow, also across removal and a restart.

A counter that is removed and made again starts above every value that any counter of this TPM ever had
(TCG TPM 2.0 part 3, 31.7), so an old value never comes back.
"""

from __future__ import annotations

from typing import Any, Final

from tpm2_pytss import TSS2_Exception
from tpm2_pytss.constants import ESYS_TR, TPM2_ALG, TPM2_NT, TPMA_NV
from tpm2_pytss.types import TPM2_HANDLE, TPM2B_NV_PUBLIC, TPMS_NV_PUBLIC

from korora.adapters.tpm.connection import RC_HANDLE, answered
from korora.errors import ToolError

_BYTES: Final = 8
_RIGHTS: Final = TPMA_NV.AUTHREAD | TPMA_NV.AUTHWRITE | TPMA_NV.OWNERREAD | TPMA_NV.OWNERWRITE | TPMA_NV.NO_DA
_WRITTEN: Final = TPMA_NV.WRITTEN


def create(esys: Any, counter: int) -> None:
    """Define it unless it is there, and give it a first value. ToolError if the index is something else's."""
    try:
        found = index(esys, counter)
    except TSS2_Exception as error:
        if not answered(error, RC_HANDLE):
            raise
        found = _define(esys, counter)
    attributes = _attributes(esys, found)
    if attributes & ~_WRITTEN != _wanted():
        raise ToolError(
            f"NV index {counter:#010x} of the TPM is in use for something else",
            kind="nv-occupied",
            remedy=f"choose another index, or remove it if it is not needed: tpm2_nvundefine {counter:#010x}",
        )
    if not attributes & _WRITTEN:  # new, or a crash came between definition and first increment
        esys.nv_increment(found, auth_handle=found)


def read(esys: Any, counter: int) -> int:
    found = index(esys, counter)
    return int.from_bytes(bytes(esys.nv_read(found, _BYTES, auth_handle=found)), "big")


def increment(esys: Any, counter: int) -> None:
    found = index(esys, counter)
    esys.nv_increment(found, auth_handle=found)


def remove(esys: Any, counter: int) -> None:
    esys.nv_undefine_space(index(esys, counter))


def index(esys: Any, counter: int) -> Any:
    """The ESAPI handle; it needs no flush."""
    return esys.tr_from_tpmpublic(TPM2_HANDLE(counter))


def _define(esys: Any, counter: int) -> Any:
    public = TPMS_NV_PUBLIC(
        nvIndex=counter, nameAlg=TPM2_ALG.SHA256, attributes=TPMA_NV(_wanted()), dataSize=_BYTES
    )
    return esys.nv_define_space(b"", TPM2B_NV_PUBLIC(nvPublic=public), ESYS_TR.OWNER)


def _attributes(esys: Any, found: Any) -> int:
    public, _ = esys.nv_read_public(found)
    return int(public.nvPublic.attributes)


def _wanted() -> int:
    return int(_RIGHTS) | int(TPM2_NT.COUNTER) << 4
