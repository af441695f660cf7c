"""One value of a source: what kind it is, and its canonical spelling. Knows no source and no format."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from korora.agents.integrity.indicators.domains import a_label, names_too_much
from korora.agents.integrity.indicators.refanging import refanged
from korora.agents.integrity.indicators.urls import normalised_url
from korora.model.indicator import HASHES, Kind

MAX_CHARACTERS: Final = 4096
_HEX: Final = re.compile(r"[0-9a-fA-F]+")
_BY_LENGTH: Final = {digits: kind for kind, digits in HASHES.items()}
_PORT: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:/\s]+):([0-9]{1,5})")
# No such network is anybody's alone: what an indicator says of it is hardly meant for this site.
_OWN: Final = (
    ("private", "is_private"), ("loopback", "is_loopback"), ("multicast", "is_multicast"),
    ("link-local", "is_link_local"), ("reserved", "is_reserved"), ("unspecified", "is_unspecified"),
)  # fmt: skip
_DOCUMENTATION: Final = tuple(
    map(ipaddress.ip_network, ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32"))
)
_WIDE: Final = {4: 8, 6: 19}
_MAPPED_BITS: Final = 96


class BadValueError(ValueError):
    """The text is no value of that kind: the file is damaged, or not what it seems."""


class UselessValueError(ValueError):
    """A value, and no use as an indicator."""


def hash_value(kind: Kind, text: str) -> str:
    digits = text.strip().lower()
    if len(digits) != HASHES[kind] or not _HEX.fullmatch(digits):
        raise BadValueError(f"{_short(text)} is no {kind.value}: that has {HASHES[kind]} hex digits")
    return digits


def address(text: str) -> tuple[Kind, str]:
    """An address or a network, of either version."""
    plain = refanged(text).strip("[]")
    try:
        if "/" not in plain:
            single = _own_version(ipaddress.ip_address(plain))
            return (Kind.IPV4 if single.version == 4 else Kind.IPV6), _without_zone(single)
        network = _network(ipaddress.ip_network(plain, strict=False))
    except ValueError as error:
        raise BadValueError(f"{_short(text)} is no address") from error
    if network.num_addresses == 1:
        return (Kind.IPV4 if network.version == 4 else Kind.IPV6), str(network.network_address)
    if network.prefixlen < _WIDE[network.version]:
        raise UselessValueError(f"{network} names too much of the Internet")
    return Kind.NETWORK, str(network)


def domain(text: str) -> str:
    name = a_label(refanged(text).removeprefix("*."))
    if name is None:
        raise BadValueError(f"{_short(text)} is no domain name")
    why = names_too_much(name)
    if why is not None:
        raise UselessValueError(why)
    return name


def url(text: str) -> str:
    found = normalised_url(refanged(text))
    if found is None:
        raise BadValueError(f"{_short(text)} is no URL")
    return found


def with_port(text: str) -> tuple[Kind, str, str]:
    """`host:port`: the host, and the port as text."""
    match = _PORT.fullmatch(refanged(text))
    if match is None:
        raise BadValueError(f"{_short(text)} is no host with a port")
    kind, value = host(match[1])
    return kind, value, match[2]


def host(text: str) -> tuple[Kind, str]:
    try:
        return address(text)
    except BadValueError:
        return Kind.DOMAIN, domain(text)


def guessed(text: str) -> tuple[Kind, str, str]:
    """Kind, value and port of a value that does not say what it is."""
    plain = refanged(text)
    if len(plain) > MAX_CHARACTERS:
        raise BadValueError(f"{_short(plain)} is too long for a value")
    if "://" in plain:
        return Kind.URL, url(plain), ""
    kind = _BY_LENGTH.get(len(plain))
    if kind is not None and _HEX.fullmatch(plain):
        return kind, plain.lower(), ""
    if _PORT.fullmatch(plain):
        return with_port(plain)
    return *host(plain), ""


def warning(kind: Kind, value: str) -> str | None:
    """What an importer should look at, though it was taken."""
    if kind not in (Kind.IPV4, Kind.IPV6, Kind.NETWORK):
        return None
    network = ipaddress.ip_network(value)
    if any(network.version == one.version and network.subnet_of(one) for one in _DOCUMENTATION):  # type: ignore[arg-type]
        return f"{value} is documentation space: examples use it"
    for word, question in _OWN:
        if getattr(network, question):
            return f"{value} is {word}: it means something else in every network"
    return None


def _own_version(
    single: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Of an IPv4 address in IPv6's spelling (RFC 4291, 2.5.5.2) the IPv4 address."""
    return (single.ipv4_mapped or single) if isinstance(single, ipaddress.IPv6Address) else single


def _network(
    network: ipaddress.IPv4Network | ipaddress.IPv6Network,
) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    first = _own_version(network.network_address)
    if first.version == network.version or network.prefixlen < _MAPPED_BITS:
        return network
    return ipaddress.ip_network(f"{first}/{network.prefixlen - _MAPPED_BITS}")


def _without_zone(single: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    return str(single).partition("%")[0]


def _short(text: str) -> str:
    return repr(text[:80]) + (" …" if len(text) > 80 else "")
