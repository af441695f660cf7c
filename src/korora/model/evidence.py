"""Evidence: digests, PCR values, quotes, vTPM identities. Only values; appraisal is in `policy`."""

from __future__ import annotations

from dataclasses import dataclass, field

from korora.model.identity import Digest

PcrValues = dict[int, str]  # index → hex of the SHA-256 bank's value


@dataclass(frozen=True, slots=True)
class Quote:
    """A TPM2_Quote: TPMS_ATTEST and TPMT_SIGNATURE as the TPM marshalled them (TCG TPM 2.0 part 2, 10.12)."""

    attest: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class HostEvidence:
    """What an attester shows a verifier (RFC 9334): quote, the PCR values it covers, and the event log."""

    quote: Quote
    pcrs: PcrValues
    event_log: bytes


@dataclass(frozen=True, slots=True)
class VtpmIdentity:
    """What must be the same before and after: EK name, all SHA-256 PCRs, and the non-volatile state.

    `nv` covers each NV index's public area; `permanent` is the digest of the whole permanent state
    (seeds, hierarchies, NV contents) as swtpm gives it out, or empty where it could not be read.
    """

    ek_name: str
    pcrs: PcrValues
    nv: dict[str, str]  # handle → digest of its public area's name
    permanent: Digest | None = None


@dataclass(frozen=True, slots=True)
class BlobDigests:
    """Digests of the three vTPM state blobs as sent and as verified (plaintext, SHA-256)."""

    permanent: Digest
    volatile: Digest
    savestate: Digest


@dataclass(frozen=True, slots=True)
class StreamRoot:
    """The running root of one direction of one data connection, after its authenticated end."""

    stream: int
    direction: str  # "forward": source to destination; "return": back
    frames: int
    bytes: int
    root: Digest


@dataclass(frozen=True, slots=True)
class CleanMemoryProof:
    """What was seen of the destination's guest memory before the first byte arrived (S7)."""

    method: str
    size_bytes: int
    allocated_bytes: int
    clean: bool


@dataclass(frozen=True, slots=True)
class WipeStep:
    what: str
    method: str
    bytes: int
    verified: bool
    note: str = ""


@dataclass(frozen=True, slots=True)
class WipeCertificate:
    """What was wiped on the source, how, and what was not reached (S7)."""

    steps: tuple[WipeStep, ...]
    limits: tuple[str, ...] = field(default=())
