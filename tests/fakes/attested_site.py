"""A site for tests: an authority, a host whose (emulated) TPM booted a told story, and its evidence."""

from __future__ import annotations

import datetime as dt
import hashlib
import uuid
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from fakes.host_tpm import HostTpm, manufacturer_certificates
from korora import authority
from korora.adapters.tpm import identity
from korora.adapters.tpm.esys import EsysTpm
from korora.model.evidence import HostEvidence
from korora.model.identity import HostName
from korora.policy import event_log
from korora.policy.appraisal import Presented, TrustAnchors
from korora.policy.event_log import Event, EventType
from korora.policy.pcrs import PLATFORM_PCRS
from korora.policy.reference_values import ReferenceValues, learned

NOW = dt.datetime.now(dt.UTC).timestamp() + 3600  # however long the run: every TPM of it is made before
QUESTION = bytes(range(32))
GLOBAL = uuid.UUID("8be4df61-93ca-11d2-aa0d-00e098032b8c").bytes_le


def secure_boot_variable(content: bytes = b"\x01", name: str = "SecureBoot") -> bytes:
    """UEFI_VARIABLE_DATA."""
    sizes = len(name).to_bytes(8, "little") + len(content).to_bytes(8, "little")
    return GLOBAL + sizes + name.encode("utf-16-le") + content


def told(pcr: int, kind: EventType, data: bytes) -> Event:
    """An event whose digest covers its data."""
    return Event(pcr, kind, hashlib.sha256(data).digest(), data)


BOOT = (
    told(0, EventType.EV_S_CRTM_VERSION, b"1\x002\x00"),
    told(0, EventType.EV_EFI_PLATFORM_FIRMWARE_BLOB, b"firmware"),
    told(1, EventType.EV_PLATFORM_CONFIG_FLAGS, b"settings"),
    told(7, EventType.EV_EFI_VARIABLE_DRIVER_CONFIG, secure_boot_variable()),
    *(told(pcr, EventType.EV_SEPARATOR, bytes(4)) for pcr in PLATFORM_PCRS),
    told(4, EventType.EV_EFI_BOOT_SERVICES_APPLICATION, b"kernel"),
)


def boot(tpm: HostTpm, events: tuple[Event, ...] = BOOT) -> bytes:
    """Measure the story as firmware would; returns its log."""
    for event in events:
        if event.kind != EventType.EV_NO_ACTION and event.sha256 is not None:
            tpm.extend(event.pcr, event.sha256)
    return event_log.encoded(events)


def reference_of(events: tuple[Event, ...] = BOOT) -> ReferenceValues:
    log = event_log.EventLog(events)
    return ReferenceValues((learned("known good", event_log.replay(log, PLATFORM_PCRS), log),))


@dataclass
class Authority:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def create(cls, name: str = "site", now: float = NOW) -> Authority:
        certificate, key = authority.create_authority(name, now)
        private = load_pem_private_key(key, None)
        assert isinstance(private, ec.EllipticCurvePrivateKey)
        return cls(x509.load_pem_x509_certificate(certificate), private)

    def enrol(
        self, tpm: EsysTpm, directory: Path, host: str, now: float = NOW, maker: str = "good"
    ) -> identity.Identity:
        """The whole enrolment, as a daemon and the command line do it together."""
        asked = identity.request_enrolment(tpm, directory, HostName(host))
        made = authority.challenge(
            asked.ek_certificate,
            asked.ek_public,
            asked.ak_public,
            asked.csr_pem,
            host,
            manufacturer_certificates(maker),
            now,
        )
        answer = identity.answer_challenge(tpm, directory, made.credential)
        issued = authority.issue(made, answer, self.certificate, self.key, now=now)
        return identity.accept_enrolment(tpm, directory, issued.certificate_pem, issued.enrolment)

    def anchors(self, reference: ReferenceValues | None = None, maker: str = "good") -> TrustAnchors:
        return TrustAnchors(self.certificate, manufacturer_certificates(maker), reference or reference_of())


def presented(tpm: EsysTpm, who: identity.Identity) -> Presented:
    return Presented(
        tpm.endorsement_certificate(), tpm.attestation_public(), who.enrolment, who.certificate_der
    )


def evidence(tpm: EsysTpm, log: bytes, question: bytes = QUESTION) -> HostEvidence:
    return HostEvidence(tpm.quote(PLATFORM_PCRS, question), tpm.read_pcrs(PLATFORM_PCRS), log)
