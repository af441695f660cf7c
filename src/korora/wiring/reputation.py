"""The reputation of files, from lists, indicators and services that scan.toml names."""

from __future__ import annotations

import stat
import time
from pathlib import Path
from typing import Final

from korora import named_file
from korora.adapters.scanner.online.asking import Kind, Service
from korora.adapters.scanner.online.malwarebazaar import MALWAREBAZAAR
from korora.adapters.scanner.online.metadefender import METADEFENDER
from korora.adapters.scanner.online.quota import Quota
from korora.adapters.scanner.online.virustotal import VIRUSTOTAL
from korora.adapters.scanner.reputation import Hashes, Known, Lists, Reputation
from korora.errors import KororaError, UsageError
from korora.model import indicator
from korora.model.indicator import HASHES, Standing
from korora.model.scan_configuration import ReputationSettings, ServiceSettings
from korora.ports.scanner import Scanner
from korora.wiring import indicators

KINDS: Final = {kind.name: kind for kind in (VIRUSTOTAL, MALWAREBAZAAR, METADEFENDER)}
_KEY_MAX_BYTES: Final = 4096


def reputation(settings: ReputationSettings, folder: Path) -> Scanner:
    """UsageError when a list, the indicators or a key cannot be read."""
    lists = Lists.read(
        [folder / path for path in settings.known_bad], [folder / path for path in settings.known_good]
    )
    known, count = _known(folder / settings.indicators) if settings.indicators else (None, 0)
    services = [
        _service(KINDS[one.name], one, folder, folder / settings.quota, settings.proxy)
        for one in settings.services
    ]
    return Reputation(lists, known, count, services, settings.unlisted)


def _known(path: Path) -> tuple[Known, int]:
    """The hashes that may be in force are held in memory; of one that is met, all sources are asked."""
    now = int(time.time())
    with indicators.opened(path) as store:
        held = {kind: frozenset(store.values(kind, now)) for kind in HASHES}

    def known(hashes: Hashes) -> str | None:
        met = [
            (kind, hashes[kind.value]) for kind in HASHES if hashes.get(kind.value, "").encode() in held[kind]
        ]
        return _told(path, met, now) if met else None

    return known, sum(map(len, held.values()))


def _told(path: Path, met: list[tuple[indicator.Kind, str]], now: int) -> str | None:
    try:
        with indicators.opened(path) as store:
            for kind, value in met:
                found = store.find(kind, value)
                if found is not None and indicators.told(found, now).standing is Standing.IN_FORCE:
                    sources = ", ".join(sorted({one.source for one in found.provenances}))
                    return f"{kind} {value} is an indicator of {sources}"
    except KororaError as error:
        kind, value = met[0]
        return f"{kind} {value} may be an indicator: {error.message}"
    return None


def _service(kind: Kind, settings: ServiceSettings, folder: Path, quota: Path, proxy: str | None) -> Service:
    per_minute = kind.per_minute if settings.per_minute is None else settings.per_minute
    per_day = kind.per_day if settings.per_day is None else settings.per_day
    spent = Quota(quota, kind.name, per_minute, per_day)
    return Service(kind, _key(folder / settings.key_file), spent, url=settings.url, proxy=proxy)


def _key(path: Path) -> str:
    try:
        with named_file.opened(path) as file:
            mode, content = stat.S_IMODE(path.stat().st_mode), file.read(_KEY_MAX_BYTES)
        key = content.decode("ascii").strip()
    except (OSError, ValueError) as error:
        raise _bad_key(path, getattr(error, "strerror", None) or "it is no key") from error
    if mode & 0o077:
        raise _bad_key(path, "others can read it", f"chmod 600 {path}")
    if not key or not key.isprintable() or " " in key:
        raise _bad_key(path, "it is no key")
    return key


def _bad_key(
    path: Path, why: str, remedy: str = "write the service's key, and nothing else, into it"
) -> UsageError:
    return UsageError(f"the key {path} cannot be used: {why}", kind="bad-key", remedy=remedy)
