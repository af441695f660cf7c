"""Decide: every request gets exactly one answer, and the state changes with a *yes* alone (P2).

*error*: the request is malformed, or two rules claim it (which the proof excludes). *question*: no rule
covers it; a person answers. *no*: a rule covers it, and something that it asks for does not hold.
Default is deny: only *yes* lets anything happen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from korora.policy.machine.language.formula import TRUE
from korora.policy.machine.language.rule import Assignment, Change, Rule
from korora.policy.machine.language.vocabulary import WRITTEN_OUT, Sort
from korora.policy.machine.omega.reasons import protected_by
from korora.policy.machine.running.classes import AccessClass, Level
from korora.policy.machine.running.reading import Environment, Reader, Test
from korora.policy.machine.running.state import Row, State, Table

MAX_NAME: Final = 256


class Answer(StrEnum):
    """I, the answers of the paper's section 4.1, item 10."""

    YES = "yes"
    NO = "no"
    ERROR = "error"
    QUESTION = "question"


@dataclass(frozen=True, slots=True)
class Decision:
    """An answer and its reason: the rule; for a *no* the clause that does not hold, and what it serves."""

    answer: Answer
    request: str
    arguments: Mapping[str, Any]
    rule: str = ""
    clause: str = ""
    problem: str = ""

    @property
    def protects(self) -> str:
        """The property that a *no* keeps."""
        return protected_by(self.rule, self.clause) if self.clause else ""

    @property
    def allowed(self) -> bool:
        return self.answer is Answer.YES


@dataclass(frozen=True, slots=True)
class _Ready:
    """A rule, read for one state."""

    rule: Rule
    fits: _Fits
    reader: Reader
    covers: Callable[[list[Any]], bool]
    clauses: tuple[tuple[str, Test], ...]
    apply: Callable[[Environment], None]


class Machine:
    """Rules over one state. Not for several threads at once."""

    def __init__(self, rules: Sequence[Rule], state: State) -> None:
        """ValueError if rules of one request differ in their parameters."""
        self.state = state
        self._rules: dict[str, list[Rule]] = {}
        self._read: dict[str, list[_Ready]] = {}  # once asked for: a migration needs half of the rules
        for rule in rules:
            its = self._rules.setdefault(rule.request, [])
            if its and dict(its[0].parameters) != dict(rule.parameters):
                raise ValueError(f"rules {its[0].name} and {rule.name} take different parameters")
            its.append(replace(rule, parameters=its[0].parameters) if its else rule)

    def decide(self, request: str, arguments: Mapping[str, Any]) -> Decision:
        """The one answer. After *yes* the state is the next one; after anything else it is as it was."""
        if request not in self._rules:
            return Decision(Answer.QUESTION, request, arguments)
        if (claims := self._read.get(request)) is None:
            claims = self._read[request] = [_read(rule, self.state) for rule in self._rules[request]]
        if problem := _malformed(claims[0].rule.parameters, claims[0].fits, arguments):
            return Decision(Answer.ERROR, request, arguments, problem=problem)
        given = [arguments[name] for name, _ in claims[0].fits]
        claiming = [ready for ready in claims if ready.covers(given)]
        if len(claiming) != 1:
            return _unclear(request, arguments, [ready.rule.name for ready in claiming])
        (ready,) = claiming
        environment = ready.reader.environment(given)
        for label, holds in ready.clauses:
            if not holds(environment):
                return Decision(Answer.NO, request, arguments, ready.rule.name, label)
        ready.apply(environment)
        return Decision(Answer.YES, request, arguments, ready.rule.name)


def _unclear(request: str, arguments: Mapping[str, Any], names: list[str]) -> Decision:
    if not names:
        return Decision(Answer.QUESTION, request, arguments)
    return Decision(Answer.ERROR, request, arguments, problem=f"rules {' and '.join(names)} both claim it")


def _read(rule: Rule, state: State) -> _Ready:
    reader = Reader(state, rule.parameters)
    clauses = tuple((clause.label, reader.test(clause.condition)) for clause in rule.guard)
    fits = tuple((name, _FIT[sort]) for name, sort in rule.parameters.items())
    return _Ready(rule, fits, reader, _covers(rule, state), clauses, _effects(rule, reader, state))


def _covers(rule: Rule, state: State) -> Callable[[list[Any]], bool]:
    """A reading of its own: only the rule that covers a request needs places for all of its guard."""
    if rule.domain == TRUE:
        return lambda _: True
    reader = Reader(state, rule.parameters)
    test = reader.test(rule.domain)
    return lambda given: test(reader.environment(given))


def _effects(rule: Rule, reader: Reader, state: State) -> Callable[[Environment], None]:
    """What is taken away goes first, then what is added, then values; all as the terms were before."""
    changes = [effect for effect in rule.effects if isinstance(effect, Change)]
    takes = [_take(change, reader, state) for change in changes if change.sign == "-"]
    adds = [_add(change, reader, state) for change in changes if change.sign == "+"]
    sets = [_set(effect, reader, state) for effect in rule.effects if isinstance(effect, Assignment)]

    prepares = (*takes, *adds, *sets)

    def apply(environment: Environment) -> None:
        for act, given in [prepare(environment) for prepare in prepares]:
            act(*given)

    return apply


_Later = tuple[Callable[..., None], tuple[Any, ...]]
_Prepare = Callable[[Environment], _Later]


def _take(change: Change, reader: Reader, state: State) -> _Prepare:
    table = state.relations[change.relation]
    fixed = tuple(position for position, term in enumerate(change.of) if term is not None)
    key = reader.row(tuple(term for term in change.of if term is not None))
    if len(fixed) == len(change.of):
        discard = table.discard
        return lambda environment: (discard, (key(environment),))
    find = table.index(fixed)
    return lambda environment: (_discard_all, (table, list(find(key(environment)))))


def _add(change: Change, reader: Reader, state: State) -> _Prepare:
    said = tuple(term for term in change.of if term is not None)
    add, row = state.relations[change.relation].add, reader.row(said)
    return lambda environment: (add, (row(environment),))


def _set(effect: Assignment, reader: Reader, state: State) -> _Prepare:
    put = state.functions[effect.function].set
    argument, value = reader.value(effect.argument), reader.value(effect.value)
    return lambda environment: (put, (argument(environment), value(environment)))


def _discard_all(table: Table, rows: list[Row]) -> None:
    for row in rows:
        table.discard(row)


def _malformed(parameters: Mapping[str, Sort], fits: _Fits, arguments: Mapping[str, Any]) -> str:
    if parameters.keys() != arguments.keys():
        given = ", ".join(sorted(map(str, arguments)))
        return f"it needs {', '.join(parameters)}, and was given {given or 'nothing'}"
    for name, fit in fits:
        if not fit(arguments[name]):
            return f"{name} is no {parameters[name]}"
    return ""


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME


def _is_one_of(words: tuple[str, ...]) -> Callable[[Any], bool]:
    known = frozenset(words)
    return lambda value: isinstance(value, str) and value in known


def _is_class(value: Any) -> bool:
    return isinstance(value, AccessClass) and isinstance(value.level, Level) and _counts(value.categories)


def _counts(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


_Fits = tuple[tuple[str, Callable[[Any], bool]], ...]
_FIT: Final[Mapping[Sort, Callable[[Any], bool]]] = MappingProxyType(
    dict.fromkeys((Sort.SUBJECT, Sort.OBJECT, Sort.MIGRATION, Sort.VALUE), _is_name)
    | {sort: _is_one_of(words) for sort, words in WRITTEN_OUT.items()}
    | {Sort.CLASS: _is_class, Sort.ENTRY: _counts}
)
