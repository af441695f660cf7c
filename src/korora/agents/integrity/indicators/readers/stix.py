"""STIX 2.1 bundles (2.0 too, where they do not differ): the indicators, with who made them and what they
indicate.

A pattern that compares for equality, alternatives by OR, becomes an indicator for each alternative. A
pattern that says more, in another language, or of another property is kept and named as not matched.
"""

from __future__ import annotations

from collections.abc import Iterator
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
from korora.agents.integrity.indicators.readers.stix_pattern import (
    VALIDATED_MAX,
    Comparison,
    equalities,
    problem,
)
from korora.agents.integrity.indicators.readers.times import moment
from korora.model.indicator import Finding, Kind, Provenance, Severity, Verdict

_HASHES: Final = {
    "MD5": Kind.MD5, "SHA-1": Kind.SHA1, "SHA1": Kind.SHA1, "SHA-256": Kind.SHA256, "SHA256": Kind.SHA256,
    "SHA-512": Kind.SHA512, "SHA512": Kind.SHA512,
}  # fmt: skip
_FAMILIES: Final = frozenset({"malware", "tool", "campaign", "intrusion-set", "threat-actor"})
_BENIGN: Final = "benign"


class _Bundle(msgspec.Struct):
    type: str = ""
    objects: list[msgspec.Raw] = []


class _Names:
    """What indicators refer to: identities by id, and families by the indicators that indicate them."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.indicated: dict[str, list[str]] = {}

    def learn(self, thing: dict[str, Any]) -> None:
        kind, own = thing.get("type"), thing.get("id")
        if isinstance(own, str) and (kind == "identity" or kind in _FAMILIES):
            self.names[own] = text_of(thing.get("name"))
        elif kind == "relationship" and thing.get("relationship_type") == "indicates":
            source, target = thing.get("source_ref"), thing.get("target_ref")
            if isinstance(source, str) and isinstance(target, str):
                self.indicated.setdefault(source, []).append(target)

    def family(self, indicator: str) -> str:
        named = {self.names.get(target, "") for target in self.indicated.get(indicator, [])}
        return ", ".join(sorted(named - {""}))


def read(file: BinaryIO, basis: Provenance) -> Iterator[Item]:
    """Twice through the objects: what indicators refer to may stand behind them."""
    try:
        bundle = msgspec.json.decode(whole(file), type=_Bundle)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise UnreadableError(f"it is no STIX bundle: {error}") from error
    if bundle.type != "bundle":
        raise UnreadableError(f"it is no STIX bundle: its type is {bundle.type[:80]!r}")
    names = _Names()
    for raw in bundle.objects:
        thing = _object(raw)
        if thing is not None:
            names.learn(thing)
    for index, raw in enumerate(bundle.objects):
        where, thing = f"/objects/{index}", _object(raw)
        if thing is None:
            yield Finding(Severity.BROKEN, where, "it is no object of STIX")
        elif thing.get("type") == "indicator":
            yield from _indicator(where, thing, names, basis)


def _object(raw: msgspec.Raw) -> dict[str, Any] | None:
    try:
        thing = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    return thing if isinstance(thing, dict) and isinstance(thing.get("type"), str) else None


def _indicator(where: str, thing: dict[str, Any], names: _Names, basis: Provenance) -> Iterator[Item]:
    pattern, language = thing.get("pattern"), thing.get("pattern_type", "stix")
    if not isinstance(pattern, str) or not isinstance(language, str):
        yield Finding(Severity.BROKEN, where, "the indicator has no pattern")
        return
    provenance = _provenance(thing, names, basis)
    if language != "stix":
        yield from kept(
            where, provenance, "pattern", f"{language}: {pattern}", f"its language is {language[:40]!r}"
        )
        return
    compared = equalities(pattern)
    if compared is None:
        yield from _more(where, pattern, provenance)
        return
    for comparison in compared:
        yield from _compared(where, comparison, provenance)


def _more(where: str, pattern: str, provenance: Provenance) -> Iterator[Item]:
    wrong = problem(pattern) if len(pattern) <= VALIDATED_MAX else None
    if wrong is not None:
        yield Finding(Severity.BROKEN, where, f"its pattern is none: {wrong[:300]}")
        return
    why = "the pattern says more than equality and OR"
    if len(pattern) > VALIDATED_MAX:
        why = f"the pattern is longer than {VALIDATED_MAX} characters and not plainly equality and OR"
    yield from kept(where, provenance, "pattern", pattern, why)


def _compared(where: str, comparison: Comparison, provenance: Provenance) -> Iterator[Item]:
    path, text = comparison
    kind, _, rest = path.partition(":")
    algorithm = rest.removeprefix("hashes.").strip("'").upper()
    if kind in ("file", "artifact") and rest.startswith("hashes.") and algorithm in _HASHES:
        wanted = _HASHES[algorithm]
        yield from told(where, provenance, lambda: (wanted, values.hash_value(wanted, text)))
    elif path in ("ipv4-addr:value", "ipv6-addr:value"):
        yield from told(where, provenance, lambda: values.address(text))
    elif path == "domain-name:value":
        yield from told(where, provenance, lambda: (Kind.DOMAIN, values.domain(text)))
    elif path == "url:value":
        yield from told(where, provenance, lambda: (Kind.URL, values.url(text)))
    elif path in ("network-traffic:dst_ref.value", "network-traffic:src_ref.value"):
        yield from told(where, provenance, lambda: values.host(text))
    else:
        yield from kept(where, provenance, path, text, f"{path} is no property that is looked for")


def _provenance(thing: dict[str, Any], names: _Names, basis: Provenance) -> Provenance:
    own = text_of(thing.get("id"))
    types = thing.get("indicator_types", thing.get("labels", []))
    benign = isinstance(types, list) and _BENIGN in types
    sure = thing.get("confidence")
    known = isinstance(sure, int) and not isinstance(sure, bool) and 0 <= sure <= 100
    return msgspec.structs.replace(
        basis,
        reference=own,
        verdict=Verdict.BENIGN if benign else basis.verdict,
        revoked=thing.get("revoked") is True,
        confidence=sure if known else None,
        family=text_of(names.family(own)),
        author=names.names.get(text_of(thing.get("created_by_ref")), text_of(thing.get("created_by_ref"))),
        note=text_of(thing.get("name")),
        first_seen=moment(thing.get("created")),
        valid_from=moment(thing.get("valid_from")),
        expires=moment(thing.get("valid_until")),
        changed_at=moment(thing.get("modified")) or basis.changed_at,
    )
