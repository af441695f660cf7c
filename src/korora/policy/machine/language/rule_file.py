"""Rules in a text that people read and write: TOML, with the notation of `notation` inside.

    without = ["give.owner"]            # the rules in force, less these clauses

    [[rule]]                            # and with this one, in place of one of that name if there is one
    name = "get-write"
    request = "get"                     # the name, unless it is said
    parameters = { u = "subject", o = "object", x = "access" }
    domain = "x = w"                    # every request of that name, unless it is said
    guard = { live = "live(o)", discretionary = "matrix(u, o, x)" }
    effects = ["+access(u, o, x)"]

Promise: a text with anything unknown, misspelt or ill-sorted in it is refused whole, and the error names it.
Limit: what it says is well formed; whether it is secure, the proof says.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from korora.errors import UsageError
from korora.policy.machine.language.notation import text_of
from korora.policy.machine.language.rule import ANY, Change, Effect, Rule, rule
from korora.policy.machine.language.vocabulary import Sort

MAX_CHARACTERS: Final = 256 * 1024
MAX_DOTS: Final = 50
"""On a line. No key here has any; reading one of many parts takes long."""


class _Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    parameters: dict[str, Sort]
    guard: dict[str, str]
    effects: tuple[str, ...]
    request: str = ""
    domain: str = ""
    meaning: str = ""


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    rule: tuple[_Rule, ...] = ()
    without: tuple[str, ...] = ()


def changed(rules: Sequence[Rule], text: str) -> tuple[Rule, ...]:
    """The rules with the changes of a text. UsageError(kind="bad-rules") names what is wrong first."""
    if len(text) > MAX_CHARACTERS:
        raise _bad(f"a file of rules has at most {MAX_CHARACTERS} characters")
    try:
        file = msgspec.convert(tomllib.loads(_few_dots(text)), _File)
        if not file.rule and not file.without:
            raise ValueError("it changes nothing: write [[rule]] or without")
        by_name = {one.name: one for one in rules}
        for deleted in file.without:
            name, _, label = deleted.partition(".")
            by_name[name] = _without(by_name.get(name), name, label)
        for one in file.rule:
            made = rule(
                one.name,
                one.parameters,
                one.guard,
                one.effects,
                request=one.request,
                domain=one.domain,
                meaning=one.meaning,
            )
            by_name[made.name] = made
        _one_way_to_ask(by_name.values())
    except (ValueError, RecursionError) as error:
        raise _bad(str(error)) from error
    return tuple(by_name.values())


def _few_dots(text: str) -> str:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.count(".") > MAX_DOTS:
            raise ValueError(f"line {number} has more than {MAX_DOTS} dots, and no key is of several parts")
    return text


def _one_way_to_ask(rules: Iterable[Rule]) -> None:
    first: dict[str, Rule] = {}
    for one in rules:
        other = first.setdefault(one.request, one)
        if other.parameters != one.parameters:
            raise ValueError(f"rules {other.name} and {one.name} take different parameters")


def _without(one: Rule | None, name: str, label: str) -> Rule:
    if one is None:
        raise ValueError(f"there is no rule {name!r}")
    try:
        return one.without(label)
    except KeyError as error:
        labels = ", ".join(clause.label for clause in one.guard)
        raise ValueError(f"rule {name!r} has no clause {label!r}; its clauses are {labels}") from error


def effect_text(effect: Effect) -> str:
    """As `effects` writes it."""
    if isinstance(effect, Change):
        words = ", ".join(ANY if term is None else text_of(term) for term in effect.of)
        return f"{effect.sign}{effect.relation}({words})"
    return f"{effect.function}({text_of(effect.argument)}) := {text_of(effect.value)}"


def _bad(problem: str) -> UsageError:
    return UsageError(
        f"the rules cannot be read: {problem}",
        kind="bad-rules",
        remedy="docs/POLICY.md shows how rules are written; the rules in force stay as they are",
    )
