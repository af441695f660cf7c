"""This host as attester (RFC 9334): what its HELLO presents, and evidence for a verifier's question.

Promise: the quote is over exactly the question that was asked and the values that go with it. Limit: whether
anybody should believe it, the verifier decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from korora.errors import ToolError
from korora.model.evidence import HostEvidence
from korora.policy.appraisal import Presented
from korora.policy.attest import QuoteInfo, parse_attestation
from korora.policy.event_log import MAX_LOG_BYTES
from korora.policy.pcrs import PLATFORM_PCRS, pcr_digest
from korora.ports.tpm import Tpm

_ATTEMPTS: Final = 5  # a PCR may be extended between quote and read; more often than that is no accident


@dataclass(frozen=True, slots=True)
class HostAttester:
    """Speaks for one host. Its certificate (DER) and enrolment are those of its identity."""

    tpm: Tpm
    event_log: Path
    enrolment: bytes
    tls_certificate: bytes
    pcrs: Sequence[int] = PLATFORM_PCRS

    async def presented(self) -> Presented:
        """What goes into a HELLO, and the TLS certificate that goes beside it."""
        return await asyncio.to_thread(self._presented)

    async def evidence(self, qualifying_data: bytes) -> HostEvidence:
        """A quote over `qualifying_data` (32 bytes), its PCR values and the event log.

        ToolError when the TPM or the event log cannot be read.
        """
        return await asyncio.to_thread(self._evidence, qualifying_data)

    def _presented(self) -> Presented:
        ek_certificate, ak = self.tpm.endorsement_certificate(), self.tpm.attestation_public()
        return Presented(ek_certificate, ak, self.enrolment, self.tls_certificate)

    def _evidence(self, qualifying_data: bytes) -> HostEvidence:
        log = _read_log(self.event_log)
        for _ in range(_ATTEMPTS):
            quote = self.tpm.quote(self.pcrs, qualifying_data)
            values = self.tpm.read_pcrs(self.pcrs)
            attested = parse_attestation(quote.attest).attested
            if isinstance(attested, QuoteInfo) and attested.pcr_digest == pcr_digest(values):
                return HostEvidence(quote, values, log)
        raise ToolError(
            "the PCRs of this host change faster than they can be quoted",
            kind="tpm",
            remedy="find the program that keeps extending one of PCRs 0 to 7",
        )


def _read_log(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            log = file.read(MAX_LOG_BYTES + 1)
    except OSError as error:
        raise ToolError(
            f"the event log {path} cannot be read: {error.strerror}",
            kind="event-log-unreadable",
            remedy="set `event_log` in hostd.toml, on most hosts to "
            "/sys/kernel/security/tpm0/binary_bios_measurements",
        ) from error
    if len(log) > MAX_LOG_BYTES:
        raise ToolError(f"the event log {path} is too large to be one", kind="event-log-unreadable")
    return log
