"""Compute with PCR values as a TPM does: selections, digests, policies. SHA-256 bank only."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

from korora.model.evidence import PcrValues

PLATFORM_PCRS: Final = tuple(range(8))  # firmware, its configuration, boot loader and Secure Boot state
PCR_COUNT: Final = 24

_SHA256: Final = (0x000B).to_bytes(2)
_POLICY_PCR: Final = (0x0000017F).to_bytes(4)


def selection_bytes(pcrs: Iterable[int]) -> bytes:
    """TPML_PCR_SELECTION of these PCRs of the SHA-256 bank."""
    mask = sum(1 << pcr for pcr in set(pcrs))
    return (1).to_bytes(4) + _SHA256 + b"\x03" + mask.to_bytes(3, "little")


def pcr_digest(pcrs: PcrValues) -> bytes:
    """What a quote's pcrDigest is for these values (part 1, 17.5)."""
    return hashlib.sha256(b"".join(bytes.fromhex(pcrs[pcr]) for pcr in sorted(pcrs))).digest()


def policy_pcr(pcrs: PcrValues) -> bytes:
    """The authPolicy that only TPM2_PolicyPCR with these values satisfies (part 3, 23.7)."""
    return hashlib.sha256(bytes(32) + _POLICY_PCR + selection_bytes(pcrs) + pcr_digest(pcrs)).digest()


def well_formed(pcrs: PcrValues) -> bool:
    """Whether these are values of the SHA-256 bank, one spelling each."""
    return bool(pcrs) and all(0 <= pcr < PCR_COUNT and _is_sha256_hex(value) for pcr, value in pcrs.items())


def _is_sha256_hex(text: str) -> bool:
    return len(text) == 64 and set(text) <= set("0123456789abcdef")
