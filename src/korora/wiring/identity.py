"""This host's own identity while the daemon runs: made at enrolment, unsealed at start, shown, signed with.

Promise: the private key is in this process's memory only, and was unsealed by this host's TPM in its attested
state. Before enrolment every use is a RefusedError(kind="not-enrolled").
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from korora.adapters.channel.tls import TlsIdentity
from korora.adapters.tpm import identity as sealed
from korora.agents.vtpm.attestation import HostAttester
from korora.errors import KororaError, RefusedError
from korora.model.evidence import HostEvidence
from korora.model.identity import HostName, Secret
from korora.model.tpm import Credential
from korora.policy.appraisal import Presented
from korora.ports.tpm import Tpm
from korora.protocol.dsse import PublicKey
from korora.protocol.handshake import local_question


@dataclass(frozen=True, slots=True)
class Shown:
    """What a local caller is shown; certificate and enrolment are None before enrolment."""

    certificate: bytes | None
    enrolment: bytes | None
    ek_certificate: bytes
    ek_public: bytes
    ak_public: bytes
    evidence: HostEvidence


@dataclass(frozen=True, slots=True)
class Application:
    ek_certificate: bytes
    ek_public: bytes
    ak_public: bytes
    csr: bytes


class HostIdentity:
    """Attestation and enrolment for the API; attester and signing key for migrations."""

    def __init__(
        self,
        host: HostName,
        tpm: Tpm,
        folder: Path,
        event_log: Path,
        authority: Callable[[], x509.Certificate],
    ) -> None:
        self._host = host
        self._tpm = tpm
        self._folder = folder
        self._event_log = event_log
        self._authority = authority
        self._identity: sealed.Identity | None = None
        self.trouble: KororaError | None = None

    async def load(self) -> None:
        """Unseal the identity, if there is one. A platform in another state leaves the host unenrolled."""
        try:
            self._identity = await asyncio.to_thread(sealed.load_identity, self._tpm, self._folder)
        except KororaError as error:
            self.trouble = error

    # -- for other hosts --------------------------------------------------------------------------------

    def tls(self) -> TlsIdentity | None:
        """None before enrolment. UsageError(kind="bad-anchor") when the authority's file is unusable."""
        if self._identity is None:
            return None
        return TlsIdentity(self._identity.certificate, self._identity.key.private, self._authority())

    async def presented(self) -> Presented:
        return await self._attester().presented()

    async def evidence(self, qualifying: bytes) -> HostEvidence:
        return await self._attester().evidence(qualifying)

    async def available(self) -> bool:
        return await self.tpm_trouble() is None

    @property
    def key_id(self) -> str:
        return self._enrolled().key.key_id

    def sign(self, data: bytes) -> bytes:
        return self._enrolled().key.sign(data)

    @property
    def public(self) -> PublicKey:
        return self._enrolled().key.private.public_key()

    # -- for the API ------------------------------------------------------------------------------------

    def enrolled(self) -> bool:
        return self._identity is not None

    async def present(self, nonce: bytes) -> Shown:
        own = self._identity
        attester = HostAttester(self._tpm, self._event_log, b"", b"") if own is None else self._attester()
        presented = await attester.presented()
        return Shown(
            certificate=own.certificate_der if own else None,
            enrolment=own.enrolment if own else None,
            ek_certificate=presented.ek_certificate,
            ek_public=await asyncio.to_thread(self._tpm.endorsement_public),
            ak_public=presented.ak_public,
            evidence=await attester.evidence(local_question(nonce)),
        )

    async def tpm_trouble(self) -> str | None:
        try:
            await asyncio.to_thread(self._tpm.read_pcrs, (0,))
        except KororaError as error:
            return error.message
        return None

    async def begin(self) -> Application:
        asked = await asyncio.to_thread(self._request)
        csr = x509.load_pem_x509_csr(asked.csr_pem).public_bytes(Encoding.DER)
        return Application(asked.ek_certificate, asked.ek_public, asked.ak_public, csr)

    def _request(self) -> sealed.EnrolmentRequest:
        """A key that this state of the machine cannot open is given up: who enrols anew wants another."""
        try:
            return sealed.request_enrolment(self._tpm, self._folder, self._host)
        except RefusedError as error:
            if error.kind != "sealed":
                raise
            sealed.discard_identity(self._folder)
            return sealed.request_enrolment(self._tpm, self._folder, self._host)

    async def activate(self, credential: Credential) -> Secret:
        answer = await asyncio.to_thread(sealed.answer_challenge, self._tpm, self._folder, credential)
        return Secret(answer)

    async def finish(self, certificate: bytes, enrolment: bytes) -> None:
        self._identity = await asyncio.to_thread(
            sealed.accept_enrolment, self._tpm, self._folder, certificate, enrolment
        )
        self.trouble = None

    # -- inside -----------------------------------------------------------------------------------------

    def _enrolled(self) -> sealed.Identity:
        if self._identity is None:
            raise self.trouble or RefusedError(
                f"host {self._host} is not enrolled",
                kind="not-enrolled",
                remedy=f"korora host enroll {self._host}",
            )
        return self._identity

    def _attester(self) -> HostAttester:
        own = self._enrolled()
        return HostAttester(self._tpm, self._event_log, own.enrolment, own.certificate_der)
