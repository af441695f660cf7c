"""Whom this site believes, read from the files that korora.toml names. Each mistake names its file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar
from zoneinfo import ZoneInfo

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from korora.cli.site import read_bytes, read_text
from korora.errors import KororaError, UsageError
from korora.model.identity import OperatorName
from korora.model.site import SiteConfiguration
from korora.policy import authorization, reference_values
from korora.policy.appraisal import TrustAnchors
from korora.policy.certificates import anchors_in

_T = TypeVar("_T")


def trust_anchors(site: SiteConfiguration) -> TrustAnchors:
    """Authority, manufacturers and reference values. UsageError when one is not configured, or malformed."""
    reference = named(site.reference_values, "reference_values", site)
    return TrustAnchors(
        authority=authority_of(site),
        manufacturers=manufacturers_of(site),
        reference=_parsed(reference, reference_values.parse),
    )


def authority_of(site: SiteConfiguration) -> x509.Certificate:
    return _certificates(named(site.authority, "authority", site))[0]


def manufacturers_of(site: SiteConfiguration) -> tuple[x509.Certificate, ...]:
    """Every certificate of every file: a chain may stand in one."""
    if not site.manufacturers:
        named(None, "manufacturers", site)
    return tuple(certificate for path in site.manufacturers for certificate in _certificates(path))


def authority_key_of(site: SiteConfiguration) -> ec.EllipticCurvePrivateKey:
    """The site authority's private key, which only the machine that enrols hosts has."""
    path = named(site.authority_key, "authority_key", site)
    try:
        key = load_pem_private_key(read_bytes(path, "the authority's key"), None)
    except (ValueError, TypeError) as error:
        raise _bad(path, "is no unencrypted private key in PEM") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _bad(path, "is not an ECDSA P-256 key")
    return key


def operators_of(site: SiteConfiguration, given: Path | None = None) -> Mapping[OperatorName, bytes]:
    """The operators' public keys (Ed25519, 32 bytes), from the file given or the site's `authorization`."""
    path = given or named(site.authorization, "authorization", site)
    return _parsed(path, partial(authorization.parse, zone=ZoneInfo)).keys


def named(path: Path | None, key: str, site: SiteConfiguration) -> Path:
    """The file that `key` of [site] names. UsageError(kind="no-anchor") when it names none."""
    if path is None:
        raise UsageError(
            f"{site.origin} does not say whom to trust: `{key}` is missing",
            kind="no-anchor",
            remedy=f"add {key} to [site]",
        )
    return path


def _certificates(path: Path) -> tuple[x509.Certificate, ...]:
    try:
        return anchors_in(read_bytes(path, "the certificate"))
    except UsageError as error:
        if error.kind != "bad-anchor":
            raise
        raise UsageError(f"{path}: {error.message}", kind=error.kind, remedy=error.remedy) from error


def _parsed(path: Path, parse: Callable[[str], _T]) -> _T:
    """What the parser makes of the file, its complaints led by the file's name."""
    text = read_text(path, "the file")
    try:
        return parse(text)
    except KororaError as error:
        raise UsageError(f"{path}: {error.message}", kind=error.kind, remedy=error.remedy) from error


def _bad(path: Path, what: str) -> UsageError:
    return UsageError(f"{path} {what}", kind="bad-anchor", remedy="correct the file, or its path in [site]")
