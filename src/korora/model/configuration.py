"""Read `hostd.toml`, the file that makes a machine a Korora host. Pure text to value; opens no file it names.

Every key is checked and an unknown one is refused: a misspelt security setting must not be silently absent.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from korora.errors import UsageError
from korora.model import store_settings
from korora.model.identity import HostName, checked_name
from korora.model.store_settings import StoreSettings
from korora.model.stored import Bounds, TenantName

_T = TypeVar("_T")

DAY_S = 86_400
MOST_KEPT_DAYS, MOST_KEPT_GIB = 36_500, 1 << 20
MAX_CHANNELS = 8  # with the main stream as many as a host offers (protocol.handshake)
_EXPECTED: dict[type, str] = {str: "a string", int: "a whole number", dict: "a table", list: "a list"}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A TCP address. `host` is an IP address or a name; an IPv6 address carries no brackets here."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class SiteTrust:
    """Where a host's trust begins: PEM files of the site CA and of TPM makers, and the reference values."""

    authority: Path
    manufacturers: tuple[Path, ...]
    reference_values: Path


@dataclass(frozen=True, slots=True)
class Watching:
    """How often the requests of each VM are watched, and for how long. 0: never."""

    every_s: float = 10.0
    sample_s: float = 1.0


@dataclass(frozen=True, slots=True)
class KeptBounds:
    """Disks of VMs that left are kept for so many days, and so many GiB of storage together. 0: no bound."""

    days: int = 30
    gib: int = 0


@dataclass(frozen=True, slots=True)
class HostConfiguration:
    """One host, as its administrator wrote it. All paths are resolved against the file's folder."""

    name: HostName
    state: Path
    listen: Endpoint
    api: Path
    tpm: str  # a TCTI, such as "device:/dev/tpmrm0"
    event_log: Path
    authorization: Path
    site: SiteTrust
    qemu: str = "qemu-system-x86_64"
    hosts: Mapping[HostName, Endpoint] = field(default_factory=dict)  # addresses only: identity is the key
    incoming_limit: int = 2  # migrations that may arrive at one time
    stall_deadline_s: float = 30.0  # a data connection on which nothing moves for so long is given up
    file: Path | None = None  # where it was read from, if from a file
    storage: tuple[Path, ...] = ()  # where the files of VMs from elsewhere may be; see policy.storage
    api_group: str = ""  # whose members may open the API's socket as well; see host.caller for what they may
    inspection: Path | None = None  # what is looked at in a VM before it leaves: model.inspection_policy
    store: StoreSettings | None = (
        None  # content that need not be sent again; None: STATE/store, as it is made
    )
    heat: Watching = Watching()
    kept: KeptBounds = KeptBounds()
    multifd_channels: int = 0  # of a VM that leaves, beside the main stream; 0: one stream carries all


def parse_host_configuration(text: str, file: Path) -> HostConfiguration:
    """The configuration in `text`, which was read from `file`.

    UsageError(kind="bad-configuration") names the file and the key.
    """
    table = _Table(_toml(text, file), file, "")
    incoming, stall = _limits(table.table("limits", optional=True))
    channels = _stream(table.table("stream", optional=True))
    state = table.path("state")
    store = _store(table.table("store", optional=True), state)
    heat = _heat(table.table("heat", optional=True))
    configuration = HostConfiguration(
        file=file,
        name=HostName(table.name("name")),
        state=state,
        listen=table.endpoint("listen"),
        api=table.path("api"),
        api_group=table.optional_text("api_group"),
        tpm=table.text("tpm"),
        event_log=table.path("event_log"),
        authorization=table.path("authorization"),
        qemu=table.text("qemu", "qemu-system-x86_64"),
        site=_site(table.table("site")),
        hosts=_hosts(table.table("hosts", optional=True)),
        storage=table.paths("storage", optional=True),
        inspection=table.optional_path("inspection"),
        incoming_limit=incoming,
        stall_deadline_s=stall,
        store=store,
        heat=heat,
        kept=_kept(table.table("kept", optional=True)),
        multifd_channels=channels,
    )
    table.refuse_the_rest()
    return configuration


def _site(table: _Table) -> SiteTrust:
    site = SiteTrust(
        authority=table.path("authority"),
        manufacturers=table.paths("manufacturers"),
        reference_values=table.path("reference_values"),
    )
    table.refuse_the_rest()
    return site


def _hosts(table: _Table) -> dict[HostName, Endpoint]:
    hosts = {}
    for name in table.keys():  # noqa: SIM118 (not a dict: reading a key takes it out)
        entry = table.table(name)
        hosts[HostName(entry.checked(name))] = entry.endpoint("address")
        entry.refuse_the_rest()
    return hosts


def _limits(table: _Table) -> tuple[int, float]:
    incoming = table.number("incoming", 2, minimum=1)
    stall = table.number("stall_seconds", 30, minimum=1)
    table.refuse_the_rest()
    return incoming, float(stall)


def _stream(table: _Table) -> int:
    channels = table.number("multifd_channels", 0, minimum=0, maximum=MAX_CHANNELS)
    table.refuse_the_rest()
    return channels


def _store(table: _Table, state: Path) -> StoreSettings:
    gib = table.number("kept_gib", store_settings.KEPT_GIB, minimum=0, maximum=store_settings.MOST_GIB)
    entries = table.number("entries", store_settings.ENTRIES, minimum=0, maximum=store_settings.MOST_ENTRIES)
    session = table.number(
        "session_mib", store_settings.SESSION_MIB, minimum=0, maximum=store_settings.MOST_SESSION_MIB
    )
    folder = table.optional_path("folder") or state / store_settings.NAME
    known = table.keys()
    tenant = TenantName(table.name("tenant", "tenant")) if "tenant" in known else None
    tenants = _tenants(table.table("tenants", optional=True))
    table.refuse_the_rest()
    return StoreSettings(folder, Bounds(gib << 30, entries), session << 20, tenant, tenants)


def _tenants(table: _Table) -> dict[TenantName, tuple[str, ...]]:
    """Each with patterns of its VMs' names, in the order of the file."""
    return {
        TenantName(table.checked(name, kind="tenant")): table.patterns(name)
        for name in table.keys()  # noqa: SIM118 (not a dict: reading a key takes it out)
    }


def _heat(table: _Table) -> Watching:
    every = table.number("every_seconds", 10, minimum=0, maximum=DAY_S)
    sample = table.number("sample_seconds", 1, minimum=1, maximum=max(1, every // 2))
    table.refuse_the_rest()
    return Watching(float(every), float(sample))


def _kept(table: _Table) -> KeptBounds:
    days = table.number("days", KeptBounds().days, minimum=0, maximum=MOST_KEPT_DAYS)
    gib = table.number("gib", KeptBounds().gib, minimum=0, maximum=MOST_KEPT_GIB)
    table.refuse_the_rest()
    return KeptBounds(days, gib)


def parse_endpoint(text: str) -> Endpoint | None:
    """`ip:port`, `name:port` or `[ipv6]:port`; None when it is none of them."""
    host, separator, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    # isascii: int() would read any script's digits.
    numeric = port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536
    if not separator or not host or not numeric or (":" in host) != bracketed or host != host.strip():
        return None
    return Endpoint(host, int(port))


def _toml(text: str, file: Path) -> dict[str, object]:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as problem:
        raise UsageError(
            f"{file}: not valid TOML: {problem}",
            kind="bad-configuration",
            remedy="correct the line that is named; strings need quotes",
        ) from problem


class _Table:
    """One TOML table that is taken apart key by key, so that what is left over was not understood."""

    def __init__(self, values: Mapping[str, object], file: Path, prefix: str) -> None:
        self._values = dict(values)
        self._file = file
        self._prefix = prefix

    def keys(self) -> list[str]:
        return list(self._values)

    def text(self, key: str, default: str | None = None) -> str:
        value = self._take(key, str, default)
        if not value or "\0" in value:
            raise self._wrong(key, "must not be empty or hold a NUL", "write the value between quotes")
        return value

    def optional_text(self, key: str) -> str:
        return self.text(key) if key in self._values else ""

    def number(self, key: str, default: int, *, minimum: int, maximum: int | None = None) -> int:
        value = self._take(key, int, default)
        if maximum is not None and value > maximum:
            raise self._wrong(key, f"is {value}", f"write a whole number of at most {maximum}")
        if value < minimum:
            raise self._wrong(key, f"is {value}", f"write a whole number of at least {minimum}")
        return value

    def path(self, key: str) -> Path:
        return self._file.parent / self.text(key)

    def optional_path(self, key: str) -> Path | None:
        return self.path(key) if key in self._values else None

    def paths(self, key: str, *, optional: bool = False) -> tuple[Path, ...]:
        if optional and key not in self._values:
            return ()
        values = self._take(key, list, None)
        if not values or not all(isinstance(value, str) and value and "\0" not in value for value in values):
            raise self._wrong(key, "must be a list of paths", 'write for example ["manufacturer.pem"]')
        return tuple(self._file.parent / str(value) for value in values)

    def patterns(self, key: str) -> tuple[str, ...]:
        values = self._take(key, list, None)
        if not values or not all(isinstance(value, str) and value for value in values):
            raise self._wrong(key, "must be a list of VMs' names, or patterns", 'write for example ["web-*"]')
        return tuple(map(str, values))

    def name(self, key: str, kind: str = "host") -> str:
        return self.checked(self.text(key), key, kind)

    def checked(self, text: str, key: str = "", kind: str = "host") -> str:
        try:
            return checked_name(text, kind)
        except UsageError as problem:
            raise self._wrong(key, problem.message, problem.remedy) from problem

    def endpoint(self, key: str) -> Endpoint:
        text = self.text(key)
        endpoint = parse_endpoint(text)
        if endpoint is None:
            raise self._wrong(
                key, f"{text!r} is not an address", 'write "ip:port", for example "10.0.0.1:7443"'
            )
        return endpoint

    def table(self, key: str, *, optional: bool = False) -> _Table:
        return _Table(self._take(key, dict, {} if optional else None), self._file, f"{self._prefix}{key}.")

    def refuse_the_rest(self) -> None:
        if self._values:
            unknown = min(self._values)
            raise self._wrong(unknown, "is not a key that Korora knows", "remove it, or correct its spelling")

    def _take(self, key: str, kind: type[_T], default: _T | None) -> _T:
        value = self._values.pop(key, default)
        if value is None:
            raise self._wrong(key, "is missing", f"add it to the file; it is {_EXPECTED[kind]}")
        if not isinstance(value, kind) or isinstance(value, bool):
            raise self._wrong(key, f"must be {_EXPECTED[kind]}", f"it is {value!r} now")
        return value

    def _wrong(self, key: str, what: str, remedy: str) -> UsageError:
        where = f"{self._prefix}{key}".rstrip(".")
        return UsageError(f"{self._file}: {where} {what}", kind="bad-configuration", remedy=remedy)
