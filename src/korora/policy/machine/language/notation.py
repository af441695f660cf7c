"""The text of formulas: read strictly, written back the same.

    all s, o: access(s, o, r) -> object_class(o) >= subject_class(s)
    some p: parent(p, o) and (access(u, p, w) or access(u, p, a))
    not cdi(o), x = r, holds'(o) != holds(o)

`'` means the next state, `>=` the dominance of classes; `not` binds tightest, then `and`, `or`, `->`; a
quantifier reaches as far as it can. Sorts of quantified variables follow from their use.
Promise: ValueError names the first thing that is wrong and where; no text makes a formula of wrong sorts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from korora.policy.machine.language.formula import (
    All,
    And,
    Applied,
    Constant,
    Dominates,
    Equal,
    Formula,
    Holds,
    Not,
    Or,
    Some,
    Term,
    Variable,
)
from korora.policy.machine.language.vocabulary import CONSTANTS, FUNCTIONS, RELATIONS, Sort

MAX_CHARACTERS: Final = 4000
MAX_DEPTH: Final = 40
_WORDS: Final = re.compile(r"\s*(->|>=|!=|[A-Za-z_][A-Za-z_0-9]*'?|[(),:=]|\S)")
_KEYWORDS: Final = frozenset({"all", "some", "and", "or", "not"})


def formula(text: str, variables: Mapping[str, Sort] = {}) -> Formula:
    """Read a formula whose open variables are these. ValueError if it is none."""
    reader = _Reader(_words(text), text)
    scope = {name: _Unknown(name, sort) for name, sort in variables.items()}
    found = reader.formula(scope)
    reader.end()
    return found()


def term(text: str, variables: Mapping[str, Sort]) -> Term:
    """Read a term. ValueError if it is none."""
    reader = _Reader(_words(text), text)
    found = reader.term({name: _Unknown(name, sort) for name, sort in variables.items()})
    reader.end()
    return found.made()


def variable(name: str) -> str:
    """A name that a variable may have. ValueError if it stands for something else, or for nothing."""
    if not name.isidentifier() or name in _KEYWORDS or name in CONSTANTS:
        raise ValueError(f"{name[:64]!r} is no name for a variable")
    return name


def _words(text: str) -> list[str]:
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"a formula has at most {MAX_CHARACTERS} characters, this one {len(text)}")
    return _WORDS.findall(text.rstrip())  # spaces that no word follows would be looked at again from each


def text_of(formula: Formula | Term) -> str:  # noqa: PLR0911  one for each kind
    """The text that `formula` reads as the same value."""
    match formula:
        case Variable(name) | Constant(name):
            return name
        case Applied(function, argument, _, after):
            return f"{function}{_prime(after)}({text_of(argument)})"
        case Holds(relation, of, after):
            return f"{relation}{_prime(after)}({', '.join(map(text_of, of))})"
        case Equal(left, right):
            return f"{text_of(left)} = {text_of(right)}"
        case Dominates(left, right):
            return f"{text_of(left)} >= {text_of(right)}"
        case Not(Equal(left, right)):
            return f"{text_of(left)} != {text_of(right)}"
        case Not(inner):
            return f"not {_bracketed(inner, And, Or, Some, All)}"
        case And(parts):
            return " and ".join(_bracketed(part, And, Or, Some, All) for part in parts) or "true()"
        case Or((Not(premise), conclusion)):
            return f"{_bracketed(premise, Or, Some, All)} -> {text_of(conclusion)}"
        case Or(parts):
            return " or ".join(_bracketed(part, Or, Some, All) for part in parts) or "false()"
        case Some(variables, inner):
            return f"some {', '.join(v.name for v in variables)}: {text_of(inner)}"
        case All(variables, inner):
            return f"all {', '.join(v.name for v in variables)}: {text_of(inner)}"


def _prime(after: bool) -> str:
    return "'" if after else ""


def _bracketed(formula: Formula, *weaker: type) -> str:
    text = text_of(formula)
    plain = not isinstance(formula, weaker) or text in {"true()", "false()"}
    return text if plain else f"({text})"


# -- reading ----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Unknown:
    """A variable whose sort shows itself as the text is read."""

    name: str
    sort: Sort | None = None

    def made(self) -> Variable:
        if self.sort is None:
            raise ValueError(f"the sort of {self.name} does not follow from its use")
        return Variable(self.name, self.sort)

    def of(self, sort: Sort) -> None:
        if self.sort is None:
            self.sort = sort
        elif self.sort is not sort:
            raise ValueError(f"{self.name} is used as {sort}, and is {self.sort}")


@dataclass(slots=True)
class _Known:
    """A constant, or what a function gives."""

    text: str
    sort: Sort
    argument: _Unknown | _Known | None = None
    after: bool = False

    def made(self) -> Term:
        if self.argument is None:
            return Constant(self.text, self.sort)
        return Applied(self.text, self.argument.made(), self.sort, self.after)

    def of(self, sort: Sort) -> None:
        if self.sort is not sort:
            raise ValueError(f"{self.text} is {self.sort}, not {sort}")


_Scope = Mapping[str, _Unknown]
_Word = _Unknown | _Known
_Later = Callable[[], Formula]
_Read = TypeVar("_Read")


@dataclass(slots=True)
class _Reader:
    """Recursive descent. A formula is made only when all of it is read, and all sorts are known."""

    words: list[str]
    text: str
    at: int = 0
    depth: int = 0

    def formula(self, scope: _Scope) -> _Later:
        return self._nested(self._quantified if self._next() in {"all", "some"} else self._implication, scope)

    def end(self) -> None:
        if self._next():
            raise ValueError(f"{self._next()!r} does not belong there: {self.text}")

    def term(self, scope: _Scope) -> _Word:
        name = self._take()
        if self._next() == "(":
            return self._applied(name, scope)
        if name in scope:
            return scope[name]
        if name in CONSTANTS:
            return _Known(name, CONSTANTS[name])
        raise ValueError(f"{name!r} is no variable here and no word of the vocabulary")

    def _quantified(self, scope: _Scope) -> _Later:
        kind, names = self._take(), [variable(self._take())]
        while self._next() == ",":
            self._take()
            names.append(variable(self._take()))
        self._expect(":")
        bound = {name: _Unknown(name) for name in names}
        if len(bound) != len(names) or bound.keys() & scope.keys():
            raise ValueError(f"{', '.join(names)}: a name stands for one thing")
        inner = self.formula({**scope, **bound})
        quantifier = All if kind == "all" else Some
        return lambda: quantifier(tuple(unknown.made() for unknown in bound.values()), inner())

    def _implication(self, scope: _Scope) -> _Later:
        left = self._joined(scope)
        if self._next() != "->":
            return left
        self._take()
        right = self.formula(scope)
        return lambda: Or((Not(left()), right()))

    def _joined(self, scope: _Scope, word: str = "or") -> _Later:
        parts = [self._part(scope, word)]
        while self._next() == word:
            self._take()
            parts.append(self._part(scope, word))
        if len(parts) == 1:
            return parts[0]
        kind = Or if word == "or" else And
        return lambda: kind(tuple(part() for part in parts))

    def _part(self, scope: _Scope, word: str) -> _Later:
        return self._joined(scope, "and") if word == "or" else self._unary(scope)

    def _unary(self, scope: _Scope) -> _Later:
        if self._next() in {"all", "some"}:
            return self.formula(scope)
        if self._next() == "not":
            self._take()
            inner = self._nested(self._unary, scope)
            return lambda: Not(inner())
        if self._next() == "(":
            self._take()
            inner = self.formula(scope)
            self._expect(")")
            return inner
        return self._atom(scope)

    def _nested(self, read: Callable[[_Scope], _Read], scope: _Scope) -> _Read:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ValueError(f"a formula nests at most {MAX_DEPTH} deep")
        found = read(scope)
        self.depth -= 1
        return found

    def _atom(self, scope: _Scope) -> _Later:
        word = self._next()
        if word in {"true", "false"}:
            self.at += 1
            self._expect("(")
            self._expect(")")
            return lambda: And(()) if word == "true" else Or(())
        if word.rstrip("'") in RELATIONS:
            return self._holds(scope)
        return self._compared(scope)

    def _holds(self, scope: _Scope) -> _Later:
        name, after = _split(self._take())
        given = self._arguments(scope)
        sorts = RELATIONS[name].sorts
        if len(given) != len(sorts):
            raise ValueError(f"{name} is of {len(sorts)}, not of {len(given)}")
        for word, sort in zip(given, sorts, strict=True):
            word.of(sort)
        return lambda: Holds(name, tuple(word.made() for word in given), after)

    def _compared(self, scope: _Scope) -> _Later:
        left, sign, right = self.term(scope), self._take(), self.term(scope)
        if sign == ">=":
            left.of(Sort.CLASS)
            right.of(Sort.CLASS)
            return lambda: Dominates(left.made(), right.made())
        if sign not in {"=", "!="}:
            raise ValueError(f"{sign!r} compares nothing: {self.text}")
        _alike(left, right)
        return lambda: (
            Equal(left.made(), right.made()) if sign == "=" else Not(Equal(left.made(), right.made()))
        )

    def _applied(self, word: str, scope: _Scope) -> _Known:
        name, after = _split(word)
        if name not in FUNCTIONS:
            raise ValueError(f"{name!r} is no function and no relation of the vocabulary")
        given = self._nested(self._arguments, scope)
        if len(given) != 1:
            raise ValueError(f"{name} is of one thing, not of {len(given)}")
        given[0].of(FUNCTIONS[name].sorts[0])
        return _Known(name, FUNCTIONS[name].result, given[0], after)

    def _arguments(self, scope: _Scope) -> list[_Word]:
        self._expect("(")
        given = [self.term(scope)]
        while self._next() == ",":
            self._take()
            given.append(self.term(scope))
        self._expect(")")
        return given

    def _next(self) -> str:
        return self.words[self.at] if self.at < len(self.words) else ""

    def _take(self) -> str:
        if not self._next():
            raise ValueError(f"it ends too early: {self.text}")
        self.at += 1
        return self.words[self.at - 1]

    def _expect(self, word: str) -> None:
        if (found := self._take()) != word:
            raise ValueError(f"{word!r} is missing before {found!r}: {self.text}")


def _alike(left: _Word, right: _Word) -> None:
    sort = left.sort or right.sort
    if sort is None:
        raise ValueError("what is compared has no sort yet: use it before")
    left.of(sort)
    right.of(sort)


def _split(word: str) -> tuple[str, bool]:
    return word.rstrip("'"), word.endswith("'")
