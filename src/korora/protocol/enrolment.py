"""The enrolment statement: the site authority says that this TPM, AK and TLS key belong to this host.

Promise: `opened_enrolment` returns a statement only when the authority signed it, in its one spelling.
Limit: whether it is about the host in question, and still valid, `host_appraisal` decides.
"""

from __future__ import annotations

import hmac
from typing import Annotated, Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from korora.errors import IntegrityError, RefusedError
from korora.model.identity import Secret
from korora.protocol import dsse

PAYLOAD_TYPE: Final = "application/vnd.korora.enrolment.v1+json"
MAX_ENROLMENT_BYTES: Final = 8192

_ANSWER_LABEL: Final = b"korora/1 enrolment answer\0"

_Sha256 = Annotated[str, msgspec.Meta(pattern="^sha256:[0-9a-f]{64}$")]


class Enrolment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the authority states. `ak_name` is the AK's TPM name in hex; times are Unix seconds."""

    host: str
    ek_certificate: _Sha256
    ak_name: Annotated[str, msgspec.Meta(pattern="^000b[0-9a-f]{64}$")]
    tls_key: _Sha256
    issued_at: int
    not_after: int


def signed_enrolment(enrolment: Enrolment, authority: dsse.SigningKey) -> bytes:
    """The DSSE envelope."""
    return dsse.envelope(PAYLOAD_TYPE, msgspec.json.encode(enrolment), [authority])


def opened_enrolment(envelope: bytes, authority: x509.Certificate) -> Enrolment:
    """The statement. RefusedError(kind="not-enrolled") unless this authority signed exactly this."""
    try:
        key = _signing_key(authority)
        payload = dsse.opened(envelope, PAYLOAD_TYPE, {dsse.key_id(key): key}, limit=MAX_ENROLMENT_BYTES)
        enrolment = msgspec.json.decode(payload, type=Enrolment)
        if msgspec.json.encode(enrolment) != payload:
            raise ValueError("it is not in canonical form")
    except (IntegrityError, msgspec.MsgspecError, UnicodeError, ValueError) as error:
        raise RefusedError(
            f"the host's enrolment was not signed by this site's authority: {error}",
            kind="not-enrolled",
            remedy="enrol that host with this site's authority: korora host enroll",
        ) from error
    return enrolment


def credential_answer(activated: Secret, tls_key: str) -> bytes:
    """What a host answers to its challenge: HMAC-SHA256 under the activated credential, 32 bytes.

    It covers the TLS key (`tls_key` as in the statement), so that nobody between host and authority can put
    another key into a certificate for this TPM.
    """
    return hmac.digest(activated.reveal(), _ANSWER_LABEL + tls_key.encode(), "sha256")


def _signing_key(authority: x509.Certificate) -> dsse.PublicKey:
    key = authority.public_key()
    if not isinstance(key, ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey):
        raise ValueError("the authority's key is neither Ed25519 nor P-256")
    return key
