"""scan.toml: which engines look for malware, by which rule and within which bounds.

Pure: paths are as they are written. Every refusal is UsageError(kind="bad-definition") with the key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from korora.model.scan import Answer, Rule
from korora.model.strict_toml import PATH_MAX_CHARS, StrictTable, read_toml

ENGINES: Final = ("clamav", "yara", "reputation")
SERVICES: Final = ("virustotal", "malwarebazaar", "metadefender")
_URL: Final = re.compile(r"https://[^\s?#@]+|http://(127\.0\.0\.1|localhost|\[::1\])(:\d+)?(/[^\s?#@]*)?")
_PROXY: Final = re.compile(r"https?://[^\s?#]+")


@dataclass(frozen=True, slots=True)
class ClamAvSettings:
    """`socket`: of a clamd that runs; otherwise Debian's is tried, then one of our own with `signatures`."""

    socket: str | None = None
    signatures: str | None = None
    stream_mib: int = 256


@dataclass(frozen=True, slots=True)
class YaraSettings:
    """`rules` None: Korora's own, for test files alone."""

    rules: str | None = None
    cache: str | None = None
    read_mib: int = 64


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """None of the numbers: what the service gives away. `url` is for a mirror of one's own."""

    name: str
    key_file: str
    per_minute: int | None = None
    per_day: int | None = None
    url: str | None = None


@dataclass(frozen=True, slots=True)
class ReputationSettings:
    known_bad: tuple[str, ...] = ()
    known_good: tuple[str, ...] = ()
    indicators: str | None = None
    unlisted: Answer = Answer.UNKNOWN
    services: tuple[ServiceSettings, ...] = ()
    quota: str = "scan-quota.db"
    proxy: str | None = None


@dataclass(frozen=True, slots=True)
class ArchiveSettings:
    archive_mib: int = 64
    total_mib: int = 1024
    members: int = 10_000
    depth: int = 3
    ratio: int = 200


@dataclass(frozen=True, slots=True)
class ScanSettings:
    """An engine that is None is not asked; so are archives not opened."""

    rule: Rule = Rule.ANY
    weights: Mapping[str, int] = field(default_factory=dict)
    parallel: int = 2
    file_seconds: int = 120
    total_seconds: int = 86_400
    clamav: ClamAvSettings | None = field(default_factory=ClamAvSettings)
    yara: YaraSettings | None = field(default_factory=YaraSettings)
    reputation: ReputationSettings | None = None
    archives: ArchiveSettings | None = field(default_factory=ArchiveSettings)


def parse_scan_settings(text: str, origin: str) -> ScanSettings:
    table = StrictTable(read_toml(text, origin), "", origin)
    settings = ScanSettings(
        rule=Rule(table.one_of("rule", tuple(Rule), Rule.ANY)),
        weights=_weights(table.table("weights")),
        parallel=table.number("parallel", 1, 64, 2),
        file_seconds=table.number("file_seconds", 1, 86_400, 120),
        total_seconds=table.number("total_seconds", 1, 30 * 86_400, 86_400),
        clamav=_clamav(table.table("clamav")),
        yara=_yara(table.table("yara")),
        reputation=_reputation(table.table("reputation")) if table.has("reputation") else None,
        archives=_archives(table.table("archives")),
    )
    table.end()
    if all(one is None for one in (settings.clamav, settings.yara, settings.reputation)):
        raise table.refuse("clamav", "and every other engine is off", "leave one of them on")
    return settings


def _weights(table: StrictTable) -> dict[str, int]:
    weights = {name: table.number(name, 0, 1000, 1) for name in ENGINES if table.has(name)}
    table.end()
    return weights


def _clamav(table: StrictTable) -> ClamAvSettings | None:
    used = table.flag("used", True)
    settings = ClamAvSettings(
        _optional(table, "socket"), _optional(table, "signatures"), table.number("stream_mib", 1, 2000, 256)
    )
    table.end()
    return settings if used else None


def _yara(table: StrictTable) -> YaraSettings | None:
    used = table.flag("used", True)
    settings = YaraSettings(
        _optional(table, "rules"), _optional(table, "cache"), table.number("read_mib", 1, 512, 64)
    )
    table.end()
    return settings if used else None


def _reputation(table: StrictTable) -> ReputationSettings:
    settings = ReputationSettings(
        known_bad=table.texts("known_bad", limit=64, each=PATH_MAX_CHARS),
        known_good=table.texts("known_good", limit=64, each=PATH_MAX_CHARS),
        indicators=_optional(table, "indicators"),
        unlisted=Answer(table.one_of("unlisted", (Answer.UNKNOWN, Answer.CLEAN), Answer.UNKNOWN)),
        services=tuple(_service(table.table(name), name) for name in SERVICES if table.has(name)),
        quota=table.text("quota", "scan-quota.db", limit=PATH_MAX_CHARS),
        proxy=table.matching("proxy", _PROXY, "http://proxy.example:3128") if table.has("proxy") else None,
    )
    if settings.services and settings.unlisted is Answer.CLEAN:
        raise table.refuse(
            "unlisted",
            "is clean while services are asked",
            "remove it: who is asked and does not know, says so",
        )
    table.end()
    return settings


def _service(table: StrictTable, name: str) -> ServiceSettings:
    settings = ServiceSettings(
        name,
        table.text("key_file", limit=PATH_MAX_CHARS),
        table.number("per_minute", 0, 1_000_000, 0) if table.has("per_minute") else None,
        table.number("per_day", 0, 100_000_000, 0) if table.has("per_day") else None,
        table.matching("url", _URL, "https://reputation.example/api") if table.has("url") else None,
    )
    table.end()
    return settings


def _archives(table: StrictTable) -> ArchiveSettings | None:
    opened = table.flag("opened", True)
    settings = ArchiveSettings(
        table.number("archive_mib", 1, 1024, 64),
        table.number("total_mib", 1, 1 << 20, 1024),
        table.number("members", 1, 1_000_000, 10_000),
        table.number("depth", 1, 16, 3),
        table.number("ratio", 1, 100_000, 200),
    )
    table.end()
    return settings if opened else None


def _optional(table: StrictTable, key: str) -> str | None:
    return table.text(key, limit=PATH_MAX_CHARS) if table.has(key) else None
