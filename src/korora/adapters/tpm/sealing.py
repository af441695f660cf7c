"""Secrets at rest, bound to this TPM, its PCR values and, if wanted, to the present value of an NV counter.

Promise: what `seal` returns opens only on the same TPM, while the chosen PCRs and the counter have the values
of that moment; a copy on disk is worthless elsewhere. Limit: at most 128 bytes; who controls the running
host (with the same PCRs) can unseal as Korora can.

Format of a sealed secret (big-endian): magic "KORSEAL1"; PCR mask, 3 bytes, little-endian; counter's NV
index, 4 bytes (0: none); counter's value, 8 bytes; TPM2B_PRIVATE; TPM2B_PUBLIC. Nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from tpm2_pytss.constants import TPM2_EO, TPM2_SE
from tpm2_pytss.types import (
    TPM2B_DIGEST,
    TPM2B_PRIVATE,
    TPM2B_PUBLIC,
    TPM2B_SENSITIVE_CREATE,
    TPM2B_SENSITIVE_DATA,
    TPML_PCR_SELECTION,
    TPMS_SENSITIVE_CREATE,
)

from korora.adapters.tpm import counters
from korora.adapters.tpm.connection import Refusal, flushed
from korora.adapters.tpm.keys import confidential_session, storage_key, trial_session
from korora.errors import RefusedError
from korora.model.identity import Secret
from korora.policy.pcrs import PCR_COUNT, selection_bytes

MAX_SECRET_BYTES: Final = 128  # MAX_SYM_DATA (part 2, 11.1.10)
MAX_SEALED_BYTES: Final = 4096

_MAGIC: Final = b"KORSEAL1"
_POLICY, _PCR_CHANGED, _NV_RANGE, _NV_RIGHTS, _NV_UNINITIALIZED = 0x126, 0x128, 0x146, 0x149, 0x14A

REFUSAL: Final = Refusal(
    codes=frozenset({_POLICY, _PCR_CHANGED, _NV_RANGE, _NV_RIGHTS, _NV_UNINITIALIZED}),
    kind="sealed",
    message="the TPM does not open this sealed secret: "
    "the host's PCRs or the counter have moved on, or another TPM sealed it",
    remedy="boot the host into the state in which it was sealed, or enrol the host again",
)


@dataclass(frozen=True, slots=True)
class Sealed:
    """The parsed format. `counter` is an NV index; with it goes the value that it must have."""

    pcrs: tuple[int, ...]
    counter: int
    value: int
    private: bytes
    public: bytes

    def to_bytes(self) -> bytes:
        mask = sum(1 << pcr for pcr in self.pcrs).to_bytes(3, "little")
        head = _MAGIC + mask + self.counter.to_bytes(4, "big") + self.value.to_bytes(8, "big")
        return head + self.private + self.public


def parse(data: bytes) -> Sealed:
    """Read the format. RefusedError(kind="sealed") for anything else."""
    if len(data) > MAX_SEALED_BYTES or data[: len(_MAGIC)] != _MAGIC:
        raise _not_sealed("it does not have the format of a sealed secret")
    mask, counter, value = data[8:11], data[11:15], data[15:23]
    private, rest = _sized(data[23:])
    public, rest = _sized(rest)
    if rest:
        raise _not_sealed("something follows it")
    pcrs = tuple(pcr for pcr in range(PCR_COUNT) if int.from_bytes(mask, "little") >> pcr & 1)
    return Sealed(pcrs, int.from_bytes(counter, "big"), int.from_bytes(value, "big"), private, public)


def seal(esys: Any, secret: Secret, pcrs: Sequence[int], counter: int | None) -> bytes:
    """Seal under the present values."""
    value = 0 if counter is None else counters.read(esys, counter)
    wanted = Sealed(tuple(sorted(set(pcrs))), counter or 0, value, b"", b"")
    with trial_session(esys) as session:
        _satisfy(esys, session, wanted)
        policy = bytes(esys.policy_get_digest(session))
    private, public = _create(esys, secret, policy)
    return Sealed(wanted.pcrs, wanted.counter, value, private, public).to_bytes()


def unseal(esys: Any, sealed: Sealed) -> Secret:
    """Load, satisfy the policy, open; the secret crosses the bus encrypted."""
    private, _ = TPM2B_PRIVATE.unmarshal(sealed.private)
    public, _ = TPM2B_PUBLIC.unmarshal(sealed.public)
    with (
        storage_key(esys) as parent,
        flushed(esys, esys.load(parent, private, public)) as item,
        confidential_session(esys, TPM2_SE.POLICY) as session,
    ):
        _satisfy(esys, session, sealed)
        return Secret(bytes(esys.unseal(item, session1=session)))


def _create(esys: Any, secret: Secret, policy: bytes) -> tuple[bytes, bytes]:
    template = TPM2B_PUBLIC.parse("keyedhash", objectAttributes="fixedtpm|fixedparent|noda")
    template.publicArea.authPolicy = TPM2B_DIGEST(policy)
    sensitive = TPM2B_SENSITIVE_CREATE(TPMS_SENSITIVE_CREATE(data=TPM2B_SENSITIVE_DATA(secret.reveal())))
    with (
        storage_key(esys) as parent,
        confidential_session(esys, TPM2_SE.HMAC, towards_tpm=True) as session,
    ):
        private, public, *_ = esys.create(parent, sensitive, template, session1=session)
    return private.marshal(), public.marshal()


def _satisfy(esys: Any, session: Any, wanted: Sealed) -> None:
    """PolicyPCR with what the PCRs are now, then PolicyNV: counter == value. Both ways the same steps."""
    selection, _ = TPML_PCR_SELECTION.unmarshal(selection_bytes(wanted.pcrs))
    esys.policy_pcr(session, b"", selection)
    if wanted.counter:
        index = counters.index(esys, wanted.counter)
        esys.policy_nv(index, index, session, wanted.value.to_bytes(8, "big"), TPM2_EO.EQ)


def _sized(data: bytes) -> tuple[bytes, bytes]:
    """A TPM2B with its length, and what follows it."""
    end = 2 + int.from_bytes(data[:2], "big")
    if len(data) < end:
        raise _not_sealed("it is cut short")
    return data[:end], data[end:]


def _not_sealed(reason: str) -> RefusedError:
    return RefusedError(
        f"this is no sealed secret: {reason}",
        kind="sealed",
        remedy="restore the file from where it came from",
    )
