"""Parse korora.toml: the site's trust anchors, its hosts, and the operator who asks. Opens no file.

Every mistake is a UsageError that names the file and the key. Paths stay as written until `placed` joins
them to the folder of the file; nothing here looks whether they exist.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from korora.errors import UsageError
from korora.model.configuration import Endpoint, parse_endpoint
from korora.model.identity import HostName, OperatorName, checked_name

_TOP = frozenset({"site", "operator", "hosts"})
_SITE = frozenset(
    {"name", "authority", "manufacturers", "reference_values", "authority_key", "authorization"}
)
_OPERATOR = frozenset({"name", "key"})
_HOST = frozenset({"address", "api"})


@dataclass(frozen=True, slots=True)
class SiteHost:
    """One host of the site. `api` is its daemon's unix socket, where this machine can reach it."""

    name: HostName
    address: Endpoint | None = None
    api: Path | None = None


@dataclass(frozen=True, slots=True)
class Operator:
    name: OperatorName
    key: Path


@dataclass(frozen=True, slots=True)
class SiteConfiguration:
    """What korora.toml says. `origin` is the file's name, for messages."""

    origin: str
    name: str = "site"
    authority: Path | None = None
    manufacturers: tuple[Path, ...] = ()
    reference_values: Path | None = None
    authority_key: Path | None = None
    authorization: Path | None = None
    operator: Operator | None = None
    hosts: Mapping[HostName, SiteHost] = field(default_factory=dict)

    def host(self, name: str) -> SiteHost:
        """The host of that name, or UsageError(kind="unknown-host") that lists the known ones."""
        found = self.hosts.get(HostName(name))
        if found is None:
            raise _unknown_host(name, self)
        return found

    def placed(self, folder: Path) -> SiteConfiguration:
        """The same, with relative paths taken from `folder`."""

        def at(path: Path | None) -> Path | None:
            return None if path is None else folder / path

        return replace(
            self,
            authority=at(self.authority),
            manufacturers=tuple(folder / path for path in self.manufacturers),
            reference_values=at(self.reference_values),
            authority_key=at(self.authority_key),
            authorization=at(self.authorization),
            operator=self.operator and replace(self.operator, key=folder / self.operator.key),
            hosts={name: replace(host, api=at(host.api)) for name, host in self.hosts.items()},
        )


def parse_site(text: str, origin: str) -> SiteConfiguration:
    """Read a korora.toml, which `origin` names. UsageError(kind="bad-configuration") on any mistake."""
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise _bad(origin, f"is not TOML: {error}", "correct that line") from error
    top = _Table(document, origin, "")
    top.knows(_TOP)
    site = top.table("site")
    site.knows(_SITE)
    return SiteConfiguration(
        origin=origin,
        name=site.text("name") or "site",
        authority=site.path("authority"),
        manufacturers=site.paths("manufacturers"),
        reference_values=site.path("reference_values"),
        authority_key=site.path("authority_key"),
        authorization=site.path("authorization"),
        operator=_operator(top.table("operator")) if "operator" in document else None,
        hosts=_hosts(top.table("hosts")),
    )


def _operator(table: _Table) -> Operator:
    table.knows(_OPERATOR)
    name, key = table.required("name"), table.required("key")
    return Operator(OperatorName(_name(name, table, "name")), Path(key))


def _hosts(table: _Table) -> dict[HostName, SiteHost]:
    return {HostName(name): _host(name, table) for name in table.values}


def _host(name: str, hosts: _Table) -> SiteHost:
    host = HostName(_name(name, hosts, name))
    table = hosts.table(name)
    table.knows(_HOST)
    written = table.text("address")
    address = parse_endpoint(written) if written is not None else None
    if written is not None and address is None:
        raise table.bad(
            "address", f"{written!r} is not an address", 'write "ip:port", such as "10.0.0.1:7000"'
        )
    return SiteHost(host, address, table.path("api"))


def _name(text: str, table: _Table, key: str) -> str:
    try:
        return checked_name(text, "the name")
    except UsageError as error:
        raise table.bad(key, error.message, error.remedy) from error


@dataclass(frozen=True, slots=True)
class _Table:
    """One table of the document, with where it stands, so that every complaint can name its key."""

    values: Mapping[str, Any]
    origin: str
    prefix: str

    def bad(self, key: str, what: str, remedy: str) -> UsageError:
        return _bad(self.origin, f"key {self.prefix}{key}: {what}", remedy)

    def knows(self, keys: frozenset[str]) -> None:
        for key in self.values:
            if key not in keys:
                close = difflib.get_close_matches(key, keys, n=1)
                meant = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(sorted(keys))}"
                raise self.bad(key, "is not known", meant)

    def table(self, key: str) -> _Table:
        value = self.values.get(key, {})
        if not isinstance(value, dict):
            raise self.bad(key, "must be a table", f"write it as [{self.prefix}{key}]")
        return _Table(value, self.origin, f"{self.prefix}{key}.")

    def text(self, key: str) -> str | None:
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, str) or not value or "\0" in value:
            raise self.bad(key, "must be a text that is not empty", f'write {key} = "…"')
        return value

    def required(self, key: str) -> str:
        value = self.text(key)
        if value is None:
            raise self.bad(key, "is missing", f'add {key} = "…" to [{self.prefix.rstrip(".")}]')
        return value

    def path(self, key: str) -> Path | None:
        value = self.text(key)
        return None if value is None else Path(value)

    def paths(self, key: str) -> tuple[Path, ...]:
        value = self.values.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            raise self.bad(key, "must be a list of paths", f'write {key} = ["a.pem", "b.pem"]')
        return tuple(Path(item) for item in value)


def _bad(origin: str, what: str, remedy: str) -> UsageError:
    return UsageError(f"{origin}: {what}", kind="bad-configuration", remedy=remedy)


def _unknown_host(name: str, site: SiteConfiguration) -> UsageError:
    known = ", ".join(site.hosts) or "none"
    return UsageError(
        f"no host {name!r} in {site.origin}",
        kind="unknown-host",
        remedy=f"known hosts: {known}; add a [hosts.NAME] table for another",
    )
