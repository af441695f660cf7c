"""Decide whether a platform is in a trusted state, from its quote, PCRs and event log. Reads no clock.

The host's credentials are checked in `protocol.host_appraisal`, which calls this last; a guest's boot in
`policy.guest_boot`. (RFC 9334: verifier, reference values, appraisal; requirement S3.)
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Final

from cryptography import x509

from korora.errors import IntegrityError, RefusedError
from korora.model.evidence import HostEvidence, PcrValues
from korora.model.identity import Digest, HostName
from korora.policy import event_log, measured_boot
from korora.policy.attest import Attestation, Attribute, Public, QuoteInfo, verify_attestation
from korora.policy.event_log import EventLog
from korora.policy.pcrs import pcr_digest, well_formed
from korora.policy.reference_values import Mismatch, ReferenceValues, compared

# What an attestation key must be able to do, and nothing else: sign what its own TPM made.
AK_ATTRIBUTES: Final = (
    Attribute.FIXED_TPM
    | Attribute.FIXED_PARENT
    | Attribute.SENSITIVE_DATA_ORIGIN
    | Attribute.USER_WITH_AUTH
    | Attribute.RESTRICTED
    | Attribute.SIGN
)
_ECDSA: Final = 0x0018
_REASONS_SHOWN: Final = 3


@dataclass(frozen=True, slots=True)
class Presented:
    """What a host shows in its HELLO and in TLS: certificates in DER, TPM2B_PUBLIC, DSSE."""

    ek_certificate: bytes
    ak_public: bytes
    enrolment: bytes
    tls_certificate: bytes


@dataclass(frozen=True, slots=True)
class TrustAnchors:
    """Whom this site believes: its authority, makers of TPMs, and which measured states are good."""

    authority: x509.Certificate
    manufacturers: tuple[x509.Certificate, ...]
    reference: ReferenceValues


@dataclass(frozen=True, slots=True)
class Platform:
    """A platform in a trusted state. `state` names the reference state; counts are the TPM's own."""

    state: str
    pcrs: PcrValues
    secure_boot: bool | None
    reset_count: int
    restart_count: int


@dataclass(frozen=True, slots=True)
class Trusted:
    """This host is who it says and in a trusted state, as of the quote."""

    host: HostName
    platform: Platform
    ak_name: str
    ek_certificate: Digest
    enrolled_until: int

    @property
    def pcrs(self) -> PcrValues:
        return self.platform.pcrs


@dataclass(frozen=True, slots=True)
class Untrusted:
    """Why not: `kind` is stable and machine-readable, `reason` and `remedy` are for people."""

    kind: str
    reason: str
    remedy: str


def check_attestation_key(ak: Public) -> None:
    """RefusedError(kind="ak-mismatch") unless this key only ever signs what its TPM made."""
    if ak.attributes != AK_ATTRIBUTES or ak.scheme != _ECDSA:
        raise RefusedError(
            f"the attestation key has the rights {ak.attributes!r}: it could sign statements of its owner",
            kind="ak-mismatch",
            remedy="enrol the host again with Korora's own attestation key",
        )


def appraise_platform(
    evidence: HostEvidence, ak: Public, qualifying_data: bytes, reference: ReferenceValues
) -> Platform:
    """The platform, once this very quote shows a trusted state.

    RefusedError or IntegrityError otherwise, of kind quote-signature, malformed-attestation, quote-nonce,
    quote-pcrs, malformed-event-log, event-log-mismatch, pcr-mismatch, event-refused, event-revoked or
    secure-boot.
    """
    quote = _checked_quote(evidence, ak, qualifying_data)
    missing = sorted(set(reference.pcrs) - set(evidence.pcrs))
    if missing:
        raise _quote_is_short(missing)
    log = event_log.parse(evidence.event_log)
    found = compared(evidence.pcrs, log, reference)
    if isinstance(found, tuple) and found[0].kind == "pcr-mismatch":
        raise _in_no_trusted_state(found)  # said first: it is the cause, a log that differs its consequence
    check_log(log, evidence.pcrs)
    if isinstance(found, tuple):
        raise _in_no_trusted_state(found)
    secure_boot = measured_boot.secure_boot(log)
    return Platform(found, evidence.pcrs, secure_boot, quote.reset_count, quote.restart_count)


def check_log(log: EventLog, pcrs: PcrValues) -> None:
    """IntegrityError(kind="event-log-mismatch") unless the log tells how these PCRs came about."""
    replayed = event_log.replay(log, pcrs)
    wrong = [pcr for pcr in sorted(pcrs) if replayed[pcr] != pcrs[pcr]]
    if wrong:
        named = ", ".join(map(str, wrong))
        raise _false_log(f"replayed, the event log gives other values than the TPM has for PCR {named}")
    false = measured_boot.contradictions(log)
    if false:
        raise _false_log(f"an event is not what was measured: {measured_boot.described(false[0])}")


def _checked_quote(evidence: HostEvidence, ak: Public, qualifying_data: bytes) -> Attestation:
    """The quote, once it is the AK's, for this very question, over the PCR values that came with it."""
    read = verify_attestation(evidence.quote, ak)
    quoted = read.attested
    if not isinstance(quoted, QuoteInfo):
        raise IntegrityError("the attestation is no quote", kind="quote-pcrs", remedy=_ASK_AGAIN)
    if not hmac.compare_digest(read.extra_data, qualifying_data):
        raise IntegrityError(
            "the quote answers another question: it is an old one, or made for another session",
            kind="quote-nonce",
            remedy="somebody may be replaying or relaying quotes: check what stands between the hosts",
        )
    if not well_formed(evidence.pcrs) or quoted.pcrs != tuple(sorted(evidence.pcrs)):
        raise IntegrityError("the quote is over other PCRs than shown", kind="quote-pcrs", remedy=_ASK_AGAIN)
    if quoted.pcr_digest != pcr_digest(evidence.pcrs):
        raise IntegrityError(
            "the PCR values shown are not those quoted", kind="quote-pcrs", remedy=_ASK_AGAIN
        )
    return read


def _in_no_trusted_state(found: tuple[Mismatch, ...]) -> RefusedError:
    shown = "; ".join(mismatch.reason for mismatch in found[:_REASONS_SHOWN])
    more = f"; and {len(found) - _REASONS_SHOWN} more" if len(found) > _REASONS_SHOWN else ""
    return RefusedError(
        f"the host is in no trusted state: {shown}{more}",
        kind=found[0].kind,
        remedy="if the change was meant (new firmware, boot loader, kernel or setting), add the new state to "
        "reference.toml on every host; if not, investigate that host",
    )


def _quote_is_short(missing: list[int]) -> IntegrityError:
    return IntegrityError(
        f"the quote leaves out PCR {', '.join(map(str, missing))}, which the reference values speak of",
        kind="quote-pcrs",
        remedy="let that host quote them, or take them out of reference.toml",
    )


def _false_log(message: str) -> IntegrityError:
    return IntegrityError(
        message,
        kind="event-log-mismatch",
        remedy="check `event_log` in that host's hostd.toml; if it is the right one, do not trust that host",
    )


_ASK_AGAIN: Final = "attest the host again; if it recurs, do not trust it"
