"""Decide whether a host is trusted, from everything it showed. Reads no clock, no network.

Promise: Trusted only if the site authority issued the TLS certificate to this host, the EK is a known
manufacturer's, the authority enrolled exactly this EK, AK and TLS key together, and a quote for exactly this
`qualifying_data` shows a trusted state. Limit: as of the quote; what happens on the host later it does not
say, and there is no revocation but the enrolment's end.
"""

from __future__ import annotations

from korora.errors import IntegrityError, RefusedError
from korora.model.evidence import HostEvidence
from korora.model.identity import HostName, sha256
from korora.policy.appraisal import (
    Presented,
    TrustAnchors,
    Trusted,
    Untrusted,
    appraise_platform,
    check_attestation_key,
)
from korora.policy.attest import Public, parse_public
from korora.policy.certificates import checked_endorsement, checked_host_certificate, key_digest
from korora.protocol.enrolment import Enrolment, opened_enrolment


def appraise_host(
    presented: Presented,
    evidence: HostEvidence,
    *,
    host: HostName,
    qualifying_data: bytes,
    anchors: TrustAnchors,
    now: float,
) -> Trusted | Untrusted:
    """The verdict on the host that claims to be `host`; every failure has its own kind. Raises nothing.

    `qualifying_data` is what this verifier expects in the quote; `now` is in Unix seconds.
    """
    try:
        enrolment, ak = check_credentials(presented, host=host, anchors=anchors, now=now)
        platform = appraise_platform(evidence, ak, qualifying_data, anchors.reference)
    except (RefusedError, IntegrityError) as error:
        return Untrusted(error.kind, error.message, error.remedy)
    return Trusted(host, platform, ak.name.hex(), sha256(presented.ek_certificate), enrolment.not_after)


def check_credentials(
    presented: Presented, *, host: HostName, anchors: TrustAnchors, now: float
) -> tuple[Enrolment, Public]:
    """Who the host is, without its state: the enrolment and the AK that belongs to it.

    RefusedError or IntegrityError of kind malformed-certificate, unknown-authority, expired, wrong-host,
    wrong-usage, unknown-manufacturer, not-enrolled, ak-mismatch, tls-key-mismatch, malformed-attestation.
    """
    certificate = checked_host_certificate(presented.tls_certificate, host, anchors.authority, now)
    checked_endorsement(presented.ek_certificate, anchors.manufacturers, now)
    enrolment = opened_enrolment(presented.enrolment, anchors.authority)
    _check_enrolled(enrolment, host, presented, now)
    if enrolment.tls_key != key_digest(certificate):
        raise _refused("tls-key-mismatch", f"{host} was enrolled with another TLS key than it uses")
    ak = parse_public(presented.ak_public)
    check_attestation_key(ak)
    if enrolment.ak_name != ak.name.hex():
        raise _refused("ak-mismatch", f"{host} was enrolled with another attestation key than it shows")
    return enrolment, ak


def _check_enrolled(enrolment: Enrolment, host: HostName, presented: Presented, now: float) -> None:
    if enrolment.host != host:
        raise _refused("not-enrolled", f"the enrolment that {host} shows is that of {enrolment.host}")
    if enrolment.ek_certificate != sha256(presented.ek_certificate):
        raise _refused("not-enrolled", f"{host} was enrolled with another TPM")
    if not enrolment.issued_at <= now <= enrolment.not_after:
        raise _refused("expired", f"the enrolment of {host} is not valid now")


def _refused(kind: str, message: str) -> RefusedError:
    return RefusedError(
        message, kind=kind, remedy="enrol that host again, if its TPM or keys were changed on purpose"
    )
