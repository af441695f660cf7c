"""OpenIOC's XML, 1.1 and 1.0: what is a sign by itself.

A document is a tree of AND and OR over terms. A term that stands under OR alone, and says that a hash, an
address, a domain or a URL *is* a value, is an indicator. What needs another term beside it (AND), is
negated, or says less than equality (`contains`, `matches`, …) is kept whole, and not looked for: half of a
condition is not the condition.

Source: the OpenIOC 1.1 schema and its terms, as Mandiant published them (Apache-2.0).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, BinaryIO, Final
from xml.etree.ElementTree import Element, ParseError, TreeBuilder

import msgspec
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser

from korora.agents.integrity.indicators import values
from korora.agents.integrity.indicators.readers.reading import (
    Item,
    UnreadableError,
    kept,
    text_of,
    told,
)
from korora.agents.integrity.indicators.readers.times import moment
from korora.model.indicator import Finding, Kind, Provenance, Severity

XML_MAX: Final = 32 << 20
DEPTH_MAX: Final = 64
ELEMENTS_MAX: Final = 500_000
_ROOTS: Final = {"OpenIOC": "criteria", "ioc": "definition"}
_HASHES: Final = {
    "md5sum": Kind.MD5,
    "sha1sum": Kind.SHA1,
    "sha256sum": Kind.SHA256,
    "sha512sum": Kind.SHA512,
}
_DOMAINS: Final = {"network/dns", "dnsentryitem/host", "dnsentryitem/recordname", "urlhistoryitem/hostname"}
_URLS: Final = {"network/uri", "urlhistoryitem/url", "filedownloadhistoryitem/sourceurl"}
_ADDRESSES: Final = ("remoteip", "network/ip", "recorddata/ipv4address", "recorddata/ipv6address")
_Read = Callable[[str], tuple[Kind, str]]


def read(file: BinaryIO, basis: Provenance) -> Iterator[Item]:
    root = _parsed(file)
    criteria = _ROOTS.get(_name(root))
    if criteria is None:
        raise UnreadableError("it is XML, and no OpenIOC: export it as STIX 2.1")
    provenance = _provenance(root, basis)
    found = False
    for holder in _named(root, criteria):
        for number, group in enumerate(_children(holder)):
            found = True
            yield from _told(group, f"/{criteria}/{number}", provenance)
    if not found:
        raise UnreadableError(f"it has no {criteria}")


class _Bounded(TreeBuilder):
    """A document that is deep or long without end is given up."""

    def __init__(self) -> None:
        super().__init__()
        self._depth = self._count = 0

    def start(self, tag: Any, attrs: Any, /) -> Any:
        self._depth, self._count = self._depth + 1, self._count + 1
        if self._depth > DEPTH_MAX or self._count > ELEMENTS_MAX:
            raise UnreadableError("it is nested too deeply, or has too many elements")
        return super().start(tag, attrs)

    def end(self, tag: Any, /) -> Any:
        self._depth -= 1
        return super().end(tag)


def _parsed(file: BinaryIO) -> Element:
    data = file.read(XML_MAX + 1)
    if len(data) > XML_MAX:
        raise UnreadableError(f"it is longer than {XML_MAX >> 20} MiB, which is too much to read at once")
    parser = DefusedXMLParser(target=_Bounded(), forbid_dtd=True)
    try:
        parser.feed(data)
        root: Element = parser.close()
    except DefusedXmlException as error:
        raise UnreadableError("it has a document type, which is not read") from error
    except (ParseError, ValueError, LookupError, AssertionError) as error:
        raise UnreadableError(f"it is no XML: {error}") from error
    return root


def _told(thing: Element, where: str, provenance: Provenance) -> Iterator[Item]:
    match _name(thing), thing.get("operator", "").upper(), len(_children(thing)):
        case "IndicatorItem", _, _:
            yield from _item(thing, where, provenance)
        case "Indicator", "OR" | "AND", 0:
            return
        case ("Indicator", "OR", _) | ("Indicator", "AND", 1):
            for number, child in enumerate(_children(thing)):
                yield from _told(child, f"{where}/{number}", provenance)
        case "Indicator", "AND", count:
            own = msgspec.structs.replace(provenance, reference=text_of(thing.get("id")))
            yield from kept(where, own, "openioc", _words(thing), f"{count} terms must hold together")
        case name, operator, _:
            yield Finding(
                Severity.BROKEN, where, f"{name[:40]} {operator[:40]}".strip() + " is not understood"
            )


def _item(item: Element, where: str, provenance: Provenance) -> Iterator[Item]:
    context, content = next(_named(item, "Context"), None), next(_named(item, "Content"), None)
    search, text = (context.get("search", "") if context is not None else ""), _text(content)
    if not search or not text:
        yield Finding(Severity.BROKEN, where, "a term lacks what it is about, or its value")
        return
    own = msgspec.structs.replace(provenance, reference=text_of(item.get("id")))
    take = _reader(search, text)
    if item.get("negate", "false").lower() not in {"false", "0"}:
        yield from kept(where, own, "openioc", _words(item), "it says what must not be")
    elif item.get("condition", "").lower() != "is":
        yield from kept(where, own, "openioc", _words(item), "it says less than equality")
    elif take is None:
        yield from kept(where, own, "openioc", _words(item), f"{search[:80]} is no term that is looked for")
    else:
        yield from told(where, own, partial(take, text))


def _reader(search: str, text: str) -> _Read | None:
    term = search.strip().lower()
    hashed = next((kind for name, kind in _HASHES.items() if term.endswith(name)), None)
    if hashed is not None:
        return lambda text: (hashed, values.hash_value(hashed, text))
    if term in _DOMAINS:
        return lambda text: (Kind.DOMAIN, values.domain(text))
    if term in _URLS and "://" in text:  # others name a path on whatever host
        return lambda text: (Kind.URL, values.url(text))
    return values.address if term.endswith(_ADDRESSES) else None


def _words(thing: Element) -> str:
    """A condition in one line."""
    if _name(thing) != "IndicatorItem":
        inner = f" {thing.get('operator', '').upper()} ".join(map(_words, _children(thing)))
        return f"({inner})"
    context = next(_named(thing, "Context"), None)
    search = context.get("search", "") if context is not None else ""
    negated = "not " if thing.get("negate", "false").lower() not in {"false", "0"} else ""
    return f"{negated}{search} {thing.get('condition', '')} {_text(next(_named(thing, 'Content'), None))}"


def _provenance(root: Element, basis: Provenance) -> Provenance:
    """What is said of the document: in 1.1 in its metadata, in 1.0 at its top."""
    about = next(_named(root, "metadata"), root)
    said = {name: _text(next(_named(about, name), None)) for name in ("short_description", "authored_by")}
    changed = moment(root.get("last-modified"))
    return msgspec.structs.replace(
        basis,
        author=text_of(said["authored_by"]),
        note=text_of(said["short_description"]),
        changed_at=changed or basis.changed_at,
    )


def _children(thing: Element) -> list[Element]:
    """Without the elements that say something about it, as 1.1's parameters."""
    return [one for one in thing if _name(one) in {"Indicator", "IndicatorItem"}]


def _named(thing: Element, name: str) -> Iterator[Element]:
    return (one for one in thing if _name(one) == name)


def _name(thing: Element) -> str:
    return str(thing.tag).rpartition("}")[2]


def _text(thing: Element | None) -> str:
    return (thing.text or "").strip() if thing is not None else ""
