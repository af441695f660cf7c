"""The CSV exports of abuse.ch: URLhaus, ThreatFox, MalwareBazaar, Feodo Tracker.

Columns are found by the names in the header, which stands in a comment or in the first row; without one
they are taken to be in the order of `COLUMNS`. Fields may be quoted, with doubled quotes inside; lines may
end in CR LF.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO, Final

import msgspec

from korora.agents.integrity.indicators import values
from korora.agents.integrity.indicators.readers.reading import Item, Line, kept, lines, text_of, told
from korora.agents.integrity.indicators.readers.times import moment
from korora.model.indicator import Finding, Kind, Provenance, Severity

URLHAUS, THREATFOX, BAZAAR, FEODO = "urlhaus", "threatfox", "malwarebazaar", "feodo"
COLUMNS: Final = {
    URLHAUS: (
        *("id", "dateadded", "url", "url_status", "last_online", "threat", "tags"),
        *("urlhaus_link", "reporter"),
    ),
    THREATFOX: (
        *("first_seen_utc", "ioc_id", "ioc_value", "ioc_type", "threat_type", "fk_malware", "malware_alias"),
        *("malware_printable", "last_seen_utc", "confidence_level", "is_compromised", "reference", "tags"),
        *("anonymous", "reporter"),
    ),
    BAZAAR: (
        *("first_seen_utc", "sha256_hash", "md5_hash", "sha1_hash", "reporter", "file_name"),
        *("file_type_guess", "mime_type", "signature", "clamav", "vtpercent", "imphash", "ssdeep", "tlsh"),
    ),
    FEODO: ("first_seen_utc", "dst_ip", "dst_port", "c2_status", "last_online", "malware"),
}
_NEEDED: Final = {
    URLHAUS: {"url", "dateadded"},
    THREATFOX: {"ioc_value", "ioc_type"},
    BAZAAR: {"sha256_hash"},
    FEODO: {"dst_ip"},
}
_NOTHING: Final = frozenset({"", "n/a", "none", "null", "-"})
Row = dict[str, str]


def service_of(names: list[str]) -> str | None:
    """Whose columns these are."""
    there = {name.strip().lower() for name in names}
    return next((service for service, needed in _NEEDED.items() if needed <= there), None)


def reader(service: str) -> Callable[[BinaryIO, Provenance], Iterator[Item]]:
    return partial(_read, service)


def _read(service: str, file: BinaryIO, basis: Provenance) -> Iterator[Item]:
    columns = list(COLUMNS[service])
    rows = _Rows(lines(file))
    for where, fields in rows:
        if isinstance(fields, str):
            yield Finding(Severity.BROKEN, where, fields)
            continue
        if service_of(fields) == service:
            columns = [name.strip().lower() for name in fields]
            continue
        if len(fields) < min(len(columns), 3):
            yield Finding(Severity.BROKEN, where, f"{len(fields)} fields where {len(columns)} are expected")
            continue
        row = dict(zip(columns, map(str.strip, fields), strict=False))
        yield from _SERVICES[service](where, row, basis)


@dataclass
class _Rows:
    """Rows of a CSV with the line they begin at; a str instead of fields says what is wrong with one."""

    source: Iterator[Line]
    number: int = 0
    header: list[str] | None = None
    overlong: bool = False

    def __iter__(self) -> Iterator[tuple[str, list[str] | str]]:
        parsed = csv.reader(self._texts(), skipinitialspace=True, strict=True)
        while True:
            began = self.number + 1
            try:
                fields = next(parsed)
            except StopIteration:
                break
            except csv.Error as error:
                yield f"line {self.number}", f"it is no row of a CSV file: {error}"
                continue
            if self.overlong:
                self.overlong = False
                yield f"line {self.number}", "the line is too long"
            if fields and fields[0].lstrip().startswith("#"):
                fields = [fields[0].lstrip("# ").strip('"'), *fields[1:]]
                if service_of(fields) is None:
                    continue
            if any(field.strip() for field in fields):
                yield f"line {began}", fields

    def _texts(self) -> Iterator[str]:
        for line in self.source:
            self.number = line.number
            if line.text is None:
                self.overlong = True
                yield "\n"
            elif line.text.lstrip().startswith("#"):
                # A header's quotes may stand behind "# ", where they are no quotes to a CSV parser.
                plain = line.text.lstrip("# \t")
                yield f"{plain}\n" if service_of(_names(plain)) else "\n"
            else:
                yield f"{line.text}\n"


def _names(text: str) -> list[str]:
    return [name.strip().strip('"') for name in text.split(",")]


def _present(row: Row, name: str) -> str:
    value = row.get(name, "")
    return "" if value.lower() in _NOTHING else value


def _provenance(
    row: Row, basis: Provenance, reference: str, family: str, first: str, last: str
) -> Provenance:
    seen_first, seen_last = moment(row.get(first, "")), moment(row.get(last, ""))
    return msgspec.structs.replace(
        basis,
        reference=text_of(reference),
        family=text_of(family),
        author=text_of(_present(row, "reporter")),
        note=text_of(
            " ".join(
                filter(None, (_present(row, "threat"), _present(row, "threat_type"), _present(row, "tags")))
            )
        ),
        first_seen=seen_first,
        last_seen=seen_last,
        changed_at=basis.changed_at or seen_last or seen_first,
    )


def _urlhaus(where: str, row: Row, basis: Provenance) -> Iterator[Item]:
    reference = _present(row, "urlhaus_link") or _present(row, "id")
    provenance = _provenance(row, basis, reference, "", "dateadded", "last_online")
    yield from told(where, provenance, lambda: (Kind.URL, values.url(row.get("url", ""))))


def _feodo(where: str, row: Row, basis: Provenance) -> Iterator[Item]:
    port = _present(row, "dst_port")
    provenance = _provenance(
        row, basis, f"port {port}", _present(row, "malware"), "first_seen_utc", "last_online"
    )
    yield from told(where, provenance, lambda: values.address(row.get("dst_ip", "")))


def _bazaar(where: str, row: Row, basis: Provenance) -> Iterator[Item]:
    sha256 = row.get("sha256_hash", "")
    provenance = _provenance(row, basis, sha256, _present(row, "signature"), "first_seen_utc", "")
    provenance = msgspec.structs.replace(provenance, note=text_of(_present(row, "file_name")))
    yield from told(where, provenance, lambda: (Kind.SHA256, values.hash_value(Kind.SHA256, sha256)))
    for column, kind in (("md5_hash", Kind.MD5), ("sha1_hash", Kind.SHA1)):
        text = _present(row, column)
        if text:
            yield from told(where, provenance, partial(_hash, kind, text))
    for column in ("imphash", "ssdeep", "tlsh"):
        text = _present(row, column)
        if text:
            yield from kept(
                where, provenance, column, text, f"{column} compares what is alike, not what is equal"
            )


def _hash(kind: Kind, text: str) -> tuple[Kind, str]:
    return kind, values.hash_value(kind, text)


def _threatfox(where: str, row: Row, basis: Provenance) -> Iterator[Item]:
    number = _present(row, "confidence_level")
    family = _present(row, "malware_printable") or _present(row, "fk_malware")
    provenance = _provenance(row, basis, _present(row, "ioc_id"), family, "first_seen_utc", "last_seen_utc")
    sure = int(number) if number.isascii() and number.isdigit() and len(number) <= 3 else None
    provenance = msgspec.structs.replace(provenance, confidence=min(sure, 100) if sure is not None else None)
    kind, text = row.get("ioc_type", "").lower(), row.get("ioc_value", "")
    if kind == "ip:port":
        yield from _with_port(where, provenance, text)
    elif kind in _THREATFOX:
        yield from told(where, provenance, lambda: _THREATFOX[kind](text))
    else:
        yield from kept(where, provenance, kind or "unknown", text, f"its type is {kind or 'not said'}")


def _with_port(where: str, provenance: Provenance, text: str) -> Iterator[Item]:
    port = text.rpartition(":")[2]
    noted = msgspec.structs.replace(provenance, note=text_of(f"port {port} {provenance.note}"))
    yield from told(where, noted, lambda: values.with_port(text)[:2])


_THREATFOX: Final[dict[str, Callable[[str], tuple[Kind, str]]]] = {
    "url": lambda text: (Kind.URL, values.url(text)),
    "domain": lambda text: (Kind.DOMAIN, values.domain(text)),
    "md5_hash": partial(_hash, Kind.MD5),
    "sha1_hash": partial(_hash, Kind.SHA1),
    "sha256_hash": partial(_hash, Kind.SHA256),
}
_SERVICES: Final = {URLHAUS: _urlhaus, THREATFOX: _threatfox, BAZAAR: _bazaar, FEODO: _feodo}
