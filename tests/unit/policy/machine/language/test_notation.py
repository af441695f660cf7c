"""The text of formulas: read strictly, written back the same; no text does harm."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.policy_formulas import PARAMETERS, formulas
from korora.policy.machine.language.formula import (
    FALSE,
    TRUE,
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
    Variable,
)
from korora.policy.machine.language.notation import MAX_CHARACTERS, MAX_DEPTH, formula, term, text_of
from korora.policy.machine.language.vocabulary import CONSTANTS, FUNCTIONS, RELATIONS, Sort
from korora.policy.machine.omega.properties import CONSTRAINTS, INVARIANTS
from korora.policy.machine.omega.rules import RULES

NO_HANG_S = 60.0
"""What grows with the square of these lengths takes minutes; what the machine does beside it, seconds."""

U, S = Variable("u", Sort.SUBJECT), Variable("s", Sort.SUBJECT)
ITEM, K = Variable("o", Sort.OBJECT), Variable("k", Sort.OBJECT)
X = Variable("x", Sort.ACCESS)
OPEN = {"u": Sort.SUBJECT, "s": Sort.SUBJECT, "o": Sort.OBJECT, "k": Sort.OBJECT, "x": Sort.ACCESS}
LIVE, CDI, UDI = (Holds(name, (ITEM,)) for name in ("live", "cdi", "udi"))


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("live(o)", LIVE),
        ("live'(o)", Holds("live", (ITEM,), True)),
        ("true()", TRUE),
        ("false()", FALSE),
        ("u = s", Equal(U, S)),
        ("u != s", Not(Equal(U, S))),
        ("x = r", Equal(X, Constant("r", Sort.ACCESS))),
        ("r = x", Equal(Constant("r", Sort.ACCESS), X)),
        (
            "object_class(o) >= subject_class(u)",
            Dominates(Applied("object_class", ITEM, Sort.CLASS), Applied("subject_class", U, Sort.CLASS)),
        ),
        (
            "holds'(o) = holds(o)",
            Equal(Applied("holds", ITEM, Sort.VALUE, True), Applied("holds", ITEM, Sort.VALUE)),
        ),
        ("not live(o) and cdi(o)", And((Not(LIVE), CDI))),
        ("not (live(o) and cdi(o))", Not(And((LIVE, CDI)))),
        ("live(o) and cdi(o) or udi(o)", Or((And((LIVE, CDI)), UDI))),
        ("live(o) and (cdi(o) or udi(o))", And((LIVE, Or((CDI, UDI))))),
        ("live(o) -> cdi(o) or udi(o)", Or((Not(LIVE), Or((CDI, UDI))))),
        ("live(o) -> cdi(o) -> udi(o)", Or((Not(LIVE), Or((Not(CDI), UDI))))),
        ("not live(o) or cdi(o)", Or((Not(LIVE), CDI))),
        ("some s: authenticated(s)", Some((S,), Holds("authenticated", (S,)))),
        (
            "live(o) and some k: parent(o, k) and cdi(o)",
            And((LIVE, Some((K,), And((Holds("parent", (ITEM, K)), CDI))))),
        ),
    ],
)
def test_a_text_means_one_formula(text: str, meant: Formula) -> None:
    bound = {"some s": "s", "some k": "k"}
    scope = {
        name: sort for name, sort in OPEN.items() if not any(name == bound[q] for q in bound if q in text)
    }
    assert formula(text, scope) == meant


def test_an_implication_and_its_disjunction_are_one_value_and_the_first_is_written() -> None:
    assert formula("not live(o) or cdi(o)", OPEN) == formula("live(o) -> cdi(o)", OPEN)
    assert text_of(formula("not live(o) or cdi(o)", OPEN)) == "live(o) -> cdi(o)"


def test_spaces_and_line_breaks_mean_nothing() -> None:
    assert formula("\n live ( o )\tand\n\ncdi(o) ", OPEN) == And((LIVE, CDI))


def test_the_sort_of_a_quantified_variable_follows_from_any_use_of_it() -> None:
    read = formula("all p, q: access(p, q, r) -> matrix(p, q, r)")
    assert isinstance(read, All)
    assert read.variables == (Variable("p", Sort.SUBJECT), Variable("q", Sort.OBJECT))


@settings(max_examples=300)
@given(formulas(steps=True))
def test_what_is_written_reads_as_the_same_formula(drawn: Formula) -> None:
    assert formula(text_of(drawn), PARAMETERS) == drawn


def test_every_rule_and_every_property_is_written_and_read_back() -> None:
    for rule in RULES:
        for condition in (rule.domain, *(clause.condition for clause in rule.guard)):
            assert formula(text_of(condition), rule.parameters) == condition
    for one in INVARIANTS:
        assert formula(one.text) == one.formula
    for one in CONSTRAINTS:
        assert formula(one.text, {"u": Sort.SUBJECT}) == one.formula


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "ends too early"),
        ("live(o", "ends too early"),
        ("live(o) and", "ends too early"),
        ("live(o))", "does not belong there"),
        ("live(o) live(o)", "does not belong there"),
        ("live o", "missing"),
        ("live()", "no variable here"),
        ("live(p)", "no variable here"),
        ("live(u)", "u is used as object, and is subject"),
        ("live(r)", "r is access, not object"),
        ("live(o, k)", "live is of 1, not of 2"),
        ("access(u, o)", "access is of 3, not of 2"),
        ("alive(o)", "no function and no relation"),
        ("holds(o)", "ends too early"),
        ("holds(o, k) = holds(o)", "of one thing"),
        ("holds(u) = holds(o)", "used as object"),
        ("live(o) = live(k)", "does not belong there"),
        ("live(holds(o))", "holds is value, not object"),
        ("u = o", "used as"),
        ("x = submit", "submit is procedure, not access"),
        ("x >= r", "used as class"),
        ("u > s", "compares nothing"),
        ("u == s", "no variable here"),
        ("u", "ends too early"),
        ("some p: true()", "sort of p does not follow"),
        ("some p, q: p = q", "no sort yet"),
        ("some p, p: live(p)", "stands for one thing"),
        ("some o: live(o)", "stands for one thing"),
        ("some p: some p: live(p)", "stands for one thing"),
        ("some r: live(r)", "no name for a variable"),
        ("some not: live(not)", "no name for a variable"),
        ("some p': live(p')", "no name for a variable"),
        ("some p live(p)", "missing"),
        ("some : live(o)", "no name for a variable"),
        ("some p: live(p) and authenticated(p)", "used as subject, and is object"),
        ("(some p: live(p)) and cdi(p)", "no variable here"),
        ("true", "ends too early"),
        ("true(o)", "missing"),
        ("and live(o)", "no variable here"),
        ("live''(o)", "missing"),
        ("Live(o)", "no function and no relation"),
        ("live(o) & cdi(o)", "does not belong there"),
        ("live(o) -> ", "ends too early"),
        ("-> live(o)", "no variable here"),
    ],
)
def test_what_is_wrong_is_named(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        formula(text, OPEN)


def test_a_formula_has_a_greatest_length_and_a_greatest_depth() -> None:
    long = " and ".join(["live(o)"] * 333)
    assert len(long) <= MAX_CHARACTERS
    formula(long, OPEN)
    with pytest.raises(ValueError, match="at most 4000 characters"):
        formula(long + " and live(o)", OPEN)
    for left, right in (("(", ")"), ("not ", ""), ("live(o) -> ", "")):
        formula(left * (MAX_DEPTH - 1) + "live(o)" + right * (MAX_DEPTH - 1), OPEN)
        with pytest.raises(ValueError, match="nests at most"):
            formula(left * MAX_DEPTH + "live(o)" + right * MAX_DEPTH, OPEN)


_WORDS = [*RELATIONS, *FUNCTIONS, *CONSTANTS, *PARAMETERS, "all", "some", "and", "or", "not", "true", "false"]
_SIGNS = ["(", ")", ",", ":", "=", "!=", ">=", "->", "'", "_", "0", "é", "\x00", "\ud800", " ", "\n"]


@settings(max_examples=300)
@given(
    st.text(max_size=200)
    | st.lists(st.sampled_from(_WORDS + _SIGNS * 3), max_size=60).map(" ".join)
    | st.lists(st.sampled_from(_WORDS + _SIGNS * 3), max_size=60).map("".join)
    | st.binary(max_size=200).map(lambda some: some.decode("latin-1"))
)
def test_noise_is_a_formula_or_a_value_error(text: str) -> None:
    for read in (lambda: formula(text, PARAMETERS), lambda: term(text, PARAMETERS)):
        try:
            found = read()
        except ValueError:
            continue
        text_of(found)


def test_a_term_is_read_alone() -> None:
    assert term("o", OPEN) == ITEM
    assert term(" holds( o ) ", OPEN) == Applied("holds", ITEM, Sort.VALUE)
    for wrong in ("", "o o", "live(o)", "o = o", "holds(", "all"):
        with pytest.raises(ValueError):
            term(wrong, OPEN)


def test_terms_nest_no_deeper_than_formulas_do() -> None:
    for text in ("holds(" * 500 + "o" + ")" * 500 + " = holds(o)", "live(" + "holds(" * 600, "holds(" * 300):
        with pytest.raises(ValueError, match="nests at most"):
            formula(text, OPEN)
    with pytest.raises(ValueError, match="nests at most"):
        term("holds(" * 500, OPEN)


def test_no_text_takes_long() -> None:
    began = time.thread_time()
    for text in (" " * MAX_CHARACTERS, "live(o)" + " " * 3000, "(" + " " * 3000, "u" * MAX_CHARACTERS):
        with suppress(ValueError):
            formula(text, OPEN)
    for text in (" " * 200_000, "o" + " " * 200_000, "holds(" * 200_000, "o" * 200_000):
        with suppress(ValueError):
            term(text, OPEN)
    assert time.thread_time() - began < NO_HANG_S
