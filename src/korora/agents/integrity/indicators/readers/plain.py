"""Lists: one value a line, with comments; also hosts files and the simplest rules of ad blockers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO, Final

import msgspec

from korora.agents.integrity.indicators import values
from korora.agents.integrity.indicators.readers.reading import Item, lines, told
from korora.model.indicator import Finding, Provenance, Severity

_COMMENT: Final = re.compile(r"(?:^|\s)(?:#|;|//).*")
_HOSTS_FILE: Final = re.compile(r"(?:0\.0\.0\.0|127\.0\.0\.1|::1?)\s+(\S+)")
_RULE: Final = re.compile(r"\|\|([^\^/$|*]+)\^?")
_OF_EVERY_HOSTS_FILE: Final = frozenset(
    {
        "localhost",
        "localhost.localdomain",
        "local",
        "broadcasthost",
        "ip6-localhost",
        "ip6-loopback",
    }
)


def read(file: BinaryIO, basis: Provenance) -> Iterator[Item]:
    for line in lines(file):
        where = f"line {line.number}"
        if line.text is None:
            yield Finding(Severity.BROKEN, where, "the line is too long for a value")
            continue
        text = _COMMENT.sub("", line.text).strip().strip("\"',")
        if not text or text.startswith("!"):
            continue
        match = _HOSTS_FILE.fullmatch(text) or _RULE.fullmatch(text)
        if match and match[1] in _OF_EVERY_HOSTS_FILE:
            continue
        yield from _value(where, basis, match[1] if match else text)


def _value(where: str, basis: Provenance, text: str) -> Iterator[Item]:
    try:
        kind, value, port = values.guessed(text)
    except ValueError:
        yield from told(where, basis, lambda: values.guessed(text)[:2])
        return
    provenance = msgspec.structs.replace(basis, note=f"port {port}") if port else basis
    yield from told(where, provenance, lambda: (kind, value))
