"""The values that are looked for, in sets: one look-up a candidate, however many there are."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Iterator
from typing import Final

from korora.agents.integrity.indicators.urls import host_of
from korora.model.indicator import HASHES, Kind

_V4: Final = 4
_BY_LENGTH: Final = {digits: kind for kind, digits in HASHES.items()}


class Known:
    """Filled once from (kind, canonical value), then only asked. Values are ASCII."""

    __slots__ = ("count", "domains", "exact", "hashes", "hosts", "idn", "networks", "urls")

    def __init__(self, indicators: Iterable[tuple[Kind, bytes]] = ()) -> None:
        self.count = 0
        self.hashes: dict[Kind, set[bytes]] = {}
        self.domains: set[bytes] = set()
        self.idn = False
        self.urls: set[bytes] = set()
        self.hosts: set[bytes] = set()
        self.exact: set[bytes] = set()  # packed addresses
        self.networks: dict[int, dict[int, set[int]]] = {}  # bytes of an address → prefix → leading bits
        for kind, value in indicators:
            self._add(kind, value)

    def add_all(self, kind: Kind, values: list[bytes]) -> None:
        """Many of one kind at once."""
        if kind in HASHES:
            self.hashes.setdefault(kind, set()).update(values)
        elif kind is Kind.DOMAIN:
            self.domains.update(values)
            self.idn = self.idn or any(b"xn--" in value for value in values)
        elif kind is Kind.URL:
            self.urls.update(values)
            self.hosts.update(map(host_of, values))
        elif kind in (Kind.IPV4, Kind.IPV6):
            family = socket.AF_INET if kind is Kind.IPV4 else socket.AF_INET6
            self.exact.update(socket.inet_pton(family, value.decode()) for value in values)
        elif kind is Kind.NETWORK:
            for value in values:
                self._add_network(value)
        self.count += len(values)

    def _add(self, kind: Kind, value: bytes) -> None:
        self.add_all(kind, [value])

    def _add_network(self, value: bytes) -> None:
        network = ipaddress.ip_network(value.decode())
        size = 4 if network.version == _V4 else 16
        bits = int(network.network_address) >> (size * 8 - network.prefixlen)
        self.networks.setdefault(size, {}).setdefault(network.prefixlen, set()).add(bits)

    # -- questions ------------------------------------------------------------------------------------------

    @property
    def addresses(self) -> bool:
        return bool(self.exact or self.networks)

    def mentioned(self, digest: bytes) -> Kind | None:
        """The kind of a known hash, by its hex digits."""
        kind = _BY_LENGTH.get(len(digest))
        return kind if kind is not None and digest in self.hashes.get(kind, ()) else None

    def address(self, packed: bytes) -> Iterator[tuple[Kind, str]]:
        """What is known of an address: itself, and the longest network that it lies in."""
        if packed in self.exact:
            yield (Kind.IPV4 if len(packed) == 4 else Kind.IPV6), str(ipaddress.ip_address(packed))
        network = self._longest(packed)
        if network is not None:
            yield Kind.NETWORK, network

    def _longest(self, packed: bytes) -> str | None:
        lengths = self.networks.get(len(packed))
        if not lengths:
            return None
        number, width = int.from_bytes(packed, "big"), len(packed) * 8
        for prefix in sorted(lengths, reverse=True):
            bits = number >> (width - prefix)
            if bits in lengths[prefix]:
                first = (bits << (width - prefix)).to_bytes(len(packed), "big")
                return f"{ipaddress.ip_address(first)}/{prefix}"
        return None
