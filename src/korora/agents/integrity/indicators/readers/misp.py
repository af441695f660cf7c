"""MISP's JSON: events with their attributes and objects, lists of events, and answers of its search.

What is not `to_ids` is background: kept, and not looked for. What is deleted is revoked. Of a composite
such as `filename|md5` the part that is looked for is taken, and the whole stands in its note.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, BinaryIO, Final

import msgspec

from korora.agents.integrity.indicators import values
from korora.agents.integrity.indicators.readers.reading import (
    Item,
    UnreadableError,
    kept,
    text_of,
    told,
    whole,
)
from korora.agents.integrity.indicators.readers.times import moment
from korora.model.indicator import Finding, Kind, Provenance, Severity, Verdict

_DEPTH: Final = 6
_CONFIDENCES: Final = {
    "completely-confident": 100, "usually-confident": 75, "fairly-confident": 50, "rarely-confident": 25,
    "unconfident": 0, "high": 85, "moderate": 50, "low": 15,
}  # fmt: skip
_CONFIDENCE_TAGS: Final = ("misp:confidence-level=", "estimative-language:confidence-in-analytic-judgment=")
_GALAXY: Final = "misp-galaxy:"


def _hash(kind: Kind, text: str) -> tuple[Kind, str]:
    return kind, values.hash_value(kind, text)


_Read = Callable[[str], tuple[Kind, str]]
_DOMAIN: Final[_Read] = lambda text: (Kind.DOMAIN, values.domain(text))  # noqa: E731
_PLAIN: Final[dict[str, _Read]] = {
    **{kind.value: partial(_hash, kind) for kind in (Kind.MD5, Kind.SHA1, Kind.SHA256, Kind.SHA512)},
    **dict.fromkeys(("ip-src", "ip-dst", "ip"), values.address),
    **dict.fromkeys(("domain", "hostname"), _DOMAIN),
    **dict.fromkeys(("url", "uri", "link"), lambda text: (Kind.URL, values.url(text))),
}


def read(file: BinaryIO, basis: Provenance) -> Iterator[Item]:
    try:
        document = msgspec.json.decode(whole(file))
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise UnreadableError(f"it is no JSON: {error}") from error
    found = False
    for where, thing in _holders(document, "", 0):
        found = True
        yield from _holder(where, thing, basis)
    if not found:
        raise UnreadableError("it is no export of MISP: it has neither an Event nor an Attribute")


def _holders(thing: Any, where: str, depth: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Whatever has attributes or objects of its own at the top: an event, or an answer."""
    if depth > _DEPTH:
        return
    if isinstance(thing, list):
        for index, one in enumerate(thing):
            yield from _holders(one, f"{where}/{index}", depth + 1)
    elif isinstance(thing, dict):
        if "Attribute" in thing or "Object" in thing:
            yield where, thing
        for name in ("response", "Event"):
            if name in thing:
                yield from _holders(thing[name], f"{where}/{name}", depth + 1)


def _holder(where: str, event: dict[str, Any], basis: Provenance) -> Iterator[Item]:
    tags = _tags(event)
    told_by = event.get("Orgc")
    author = text_of(told_by.get("name")) if isinstance(told_by, dict) else ""
    basis = msgspec.structs.replace(basis, author=author, note=text_of(event.get("info")))
    yield from _attributes(f"{where}/Attribute", event.get("Attribute", []), tags, basis, gone=False)
    things = event.get("Object", [])
    if not isinstance(things, list):
        yield Finding(Severity.BROKEN, f"{where}/Object", "it is no list")
        return
    for index, thing in enumerate(things):
        place = f"{where}/Object/{index}"
        if not isinstance(thing, dict):
            yield Finding(Severity.BROKEN, place, "it is no object of MISP")
            continue
        gone = thing.get("deleted") is True
        yield from _attributes(f"{place}/Attribute", thing.get("Attribute", []), tags, basis, gone=gone)


def _attributes(
    where: str, attributes: Any, tags: list[str], basis: Provenance, *, gone: bool
) -> Iterator[Item]:
    if not isinstance(attributes, list):
        yield Finding(Severity.BROKEN, where, "it is no list")
        return
    for index, attribute in enumerate(attributes):
        place = f"{where}/{index}"
        if not isinstance(attribute, dict):
            yield Finding(Severity.BROKEN, place, "it is no attribute")
            continue
        kind, text = attribute.get("type"), attribute.get("value")
        if not isinstance(kind, str) or not isinstance(text, str):
            yield Finding(Severity.BROKEN, place, "the attribute lacks a type or a value")
            continue
        yield from _attribute(place, kind, text, _provenance(attribute, tags, basis, gone=gone))


def _attribute(where: str, kind: str, text: str, provenance: Provenance) -> Iterator[Item]:
    names, parts = kind.split("|"), text.split("|")
    if len(names) > 1 and len(names) != len(parts):
        yield Finding(Severity.BROKEN, where, f"a {kind[:40]} has {len(names)} parts, not {len(parts)}")
        return
    if len(names) > 1:
        note = text_of(f"{text} {provenance.note}")
        provenance = msgspec.structs.replace(provenance, note=note)
    looked_for = [(name, part) for name, part in zip(names, parts, strict=False) if name in _PLAIN]
    for name, part in looked_for:
        yield from told(where, provenance, partial(_PLAIN[name], part))
    if not looked_for and provenance.verdict is not Verdict.CONTEXT:
        yield from kept(where, provenance, kind[:80], text, f"{kind[:80]} is no type that is looked for")


def _provenance(attribute: dict[str, Any], tags: list[str], basis: Provenance, *, gone: bool) -> Provenance:
    own = [*_tags(attribute), *tags]
    wanted = attribute.get("to_ids") in (True, 1, "1")
    return msgspec.structs.replace(
        basis,
        reference=text_of(attribute.get("uuid")) or text_of(str(attribute.get("id") or "")),
        verdict=basis.verdict if wanted else Verdict.CONTEXT,
        revoked=gone or attribute.get("deleted") in (True, 1, "1"),
        confidence=next(filter(lambda value: value is not None, map(_confidence, own)), None),
        family=text_of(next(filter(None, map(_family, own)), "")),
        note=text_of(attribute.get("comment")) or basis.note,
        first_seen=moment(attribute.get("first_seen")),
        last_seen=moment(attribute.get("last_seen")),
        changed_at=moment(attribute.get("timestamp")) or basis.changed_at,
    )


def _tags(holder: dict[str, Any]) -> list[str]:
    tags = holder.get("Tag", [])
    found = [tag.get("name") for tag in tags if isinstance(tag, dict)] if isinstance(tags, list) else []
    return [name for name in found if isinstance(name, str)]


def _confidence(tag: str) -> int | None:
    for prefix in _CONFIDENCE_TAGS:
        if tag.startswith(prefix):
            return _CONFIDENCES.get(tag.removeprefix(prefix).strip('"'))
    return None


def _family(tag: str) -> str:
    """`misp-galaxy:malpedia="Emotet"`."""
    return tag.partition("=")[2].strip('"') if tag.startswith(_GALAXY) else ""
