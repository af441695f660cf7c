"""Appraise a host from here, and enrol one: the command line as verifier, and as the site's authority.

Limit: the host is asked over its own daemon's socket; that the quote is fresh its nonce shows, and that the
TPM is real its endorsement certificate.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from korora.cli.evidence.anchors import authority_key_of, authority_of, manufacturers_of, trust_anchors
from korora.client import Daemon
from korora.client.views import AttestationView
from korora.errors import KororaError, RefusedError
from korora.model.evidence import PcrValues
from korora.model.identity import HostName
from korora.model.site import SiteConfiguration
from korora.policy import event_log
from korora.policy.appraisal import Presented, Trusted, Untrusted
from korora.policy.event_log import Event, EventType
from korora.policy.measured_boot import described
from korora.protocol.handshake import local_question
from korora.protocol.host_appraisal import appraise_host

# What tells one boot from another; the rest are separators and tables.
_TELLING = frozenset(
    {
        EventType.EV_S_CRTM_VERSION,
        EventType.EV_IPL,
        EventType.EV_EFI_BOOT_SERVICES_APPLICATION,
        EventType.EV_EFI_BOOT_SERVICES_DRIVER,
        EventType.EV_EFI_VARIABLE_AUTHORITY,
        EventType.EV_EFI_VARIABLE_DRIVER_CONFIG,
    }
)


@dataclass(frozen=True, slots=True)
class Appraised:
    """The verdict with what it was drawn from. `events` are lines for people."""

    verdict: Trusted | Untrusted
    pcrs: PcrValues
    events: tuple[str, ...]


def appraise(site: SiteConfiguration, host: HostName, daemon: Daemon) -> Appraised:
    """Ask the host for evidence over a fresh nonce, and appraise it against the site's anchors."""
    anchors = trust_anchors(site)
    nonce = secrets.token_bytes(32)
    shown = daemon.attestation(nonce)
    if shown.certificate is None or shown.enrolment is None:
        verdict: Trusted | Untrusted = Untrusted(
            "not-enrolled", f"host {host} is not enrolled", f"korora host enroll {host}"
        )
    else:
        presented = Presented(shown.ek_certificate, shown.ak_public, shown.enrolment, shown.certificate)
        verdict = appraise_host(
            presented,
            shown.evidence,
            host=host,
            qualifying_data=local_question(nonce),
            anchors=anchors,
            now=time.time(),
        )
    return Appraised(verdict, shown.pcrs, _highlights(shown))


def enrol(site: SiteConfiguration, host: HostName, daemon: Daemon) -> str:
    """Challenge the host's TPM, and have the authority vouch for it; returns the certificate in PEM.

    RefusedError when the TPM's maker is unknown or the challenge is not met; the host then is as before.
    """
    # Only whoever enrols has tpm2-pytss installed and the authority's key at hand.
    from korora.authority import challenge, issue

    authority, key = authority_of(site), authority_key_of(site)
    _check_name(daemon, host)
    applicant = daemon.begin_enrolment()
    asked = challenge(
        applicant.ek_certificate,
        applicant.ek_public,
        applicant.ak_public,
        _pem(applicant.csr),
        host,
        manufacturers_of(site),
        time.time(),
    )
    answer = daemon.activate(asked.credential.blob, asked.credential.encrypted_secret)
    issued = issue(asked, answer, authority, key, now=time.time())
    certificate = issued.certificate_pem.decode()
    daemon.finish_enrolment(certificate, issued.enrolment.decode())
    return certificate


def _check_name(daemon: Daemon, host: HostName) -> None:
    """A socket of another host's daemon would be enrolled under a name that is not its own."""
    name = daemon.host().name
    if name != host:
        raise RefusedError(
            f"the daemon that was asked is that of host {name!r}, not of {host!r}",
            kind="wrong-host",
            remedy=f"correct `api` of [hosts.{host}]",
        )


def _pem(csr: bytes) -> bytes:
    try:
        return x509.load_der_x509_csr(csr).public_bytes(Encoding.PEM)
    except ValueError as error:
        raise RefusedError(
            f"the certificate request cannot be read: {error}",
            kind="bad-csr",
            remedy="see that the daemon is korora hostd, of the same version as this command",
        ) from error


def _highlights(shown: AttestationView) -> tuple[str, ...]:
    try:
        log = event_log.parse(shown.event_log)
        return tuple(described(event) for event in log.events if _tells(event))
    except KororaError as error:
        return (f"the event log cannot be read: {error.message}",)


def _tells(event: Event) -> bool:
    return event.kind in _TELLING
