"""Rules as people write them: read strictly, refused whole, written back the same."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from korora.errors import UsageError
from korora.policy.machine.language.formula import TRUE
from korora.policy.machine.language.notation import text_of
from korora.policy.machine.language.rule import Rule, rule
from korora.policy.machine.language.rule_file import MAX_CHARACTERS, changed, effect_text
from korora.policy.machine.language.vocabulary import Sort
from korora.policy.machine.omega.rules import RULES

NO_HANG_S = 60.0
"""What grows with the square of these lengths takes minutes; what the machine does beside it, seconds."""

GET_WRITE = """
[[rule]]
name = "get-write"
request = "get"
parameters = { u = "subject", o = "object", x = "access" }
domain = "x = w"
guard = { live = "live(o)", discretionary = "matrix(u, o, x)" }
effects = ["+access(u, o, x)"]
"""
TIDY = """
[[rule]]
name = "tidy"
parameters = { u = "subject", n = "entry" }
guard = { authenticated = "authenticated(u)" }
effects = ["-log(n, _, _, _)", "-recorded(n, _)"]
"""


def named(rules: tuple[Rule, ...], name: str) -> Rule:
    (found,) = [one for one in rules if one.name == name]
    return found


def test_a_clause_is_taken_away_and_all_else_stays() -> None:
    rules = changed(RULES, 'without = ["give.owner"]')
    assert [clause.label for clause in named(rules, "give").guard] == []
    assert [one for one in rules if one.name != "give"] == [one for one in RULES if one.name != "give"]


def test_a_rule_of_a_name_in_force_takes_its_place() -> None:
    rules = changed(RULES, GET_WRITE)
    assert [one.name for one in rules] == [one.name for one in RULES]
    made = named(rules, "get-write")
    assert (made.request, [clause.label for clause in made.guard]) == ("get", ["live", "discretionary"])


def test_a_rule_of_a_new_name_comes_last_and_is_its_own_request() -> None:
    rules = changed(RULES, TIDY)
    assert rules[:-1] == RULES
    assert (rules[-1].name, rules[-1].request, rules[-1].domain) == ("tidy", "tidy", TRUE)


def test_every_rule_in_force_is_read_back_from_its_text() -> None:
    for one in RULES:
        again = rule(
            one.name,
            one.parameters,
            {clause.label: text_of(clause.condition) for clause in one.guard},
            [effect_text(effect) for effect in one.effects],
            request=one.request,
            domain="" if one.domain == TRUE else text_of(one.domain),
        )
        assert again == one


def test_a_rule_without_a_clause_it_does_not_have_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        named(RULES, "give").without("live")


def written(**changes: str) -> str:
    lines = {
        "name": '"mine"',
        "parameters": '{ u = "subject", o = "object", x = "access", v = "value" }',
        "guard": '{ may = "matrix(u, o, x)" }',
        "effects": '["+access(u, o, x)"]',
    } | changes
    return "[[rule]]\n" + "\n".join(f"{name} = {value}" for name, value in lines.items())


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "changes nothing"),
        ("rule = []", "changes nothing"),
        ("= 1", "Invalid"),
        ("without = 3", "array"),
        ("without = [3]", "str"),
        ("without = ['give.owner']\nrules = 3", "unknown field `rules`"),
        ("without = ['gives.owner']", "no rule 'gives'"),
        ("without = ['give']", "no clause ''; its clauses are owner"),
        ("without = ['give.owned']", "no clause 'owned'; its clauses are owner"),
        ("without = ['give.owner', 'give.owner']", "no clause 'owner'"),
        ("[[rule]]\nname = 'mine'", "missing required field"),
        (written(meanings='"none"'), "unknown field `meanings`"),
        (written(name='"Mine"'), "no name"),
        (written(name='""'), "no name"),
        (written(name=f'"{"m" * 65}"'), "no name"),
        (written(request='"a b"'), "no name"),
        (written(guard='{ May = "live(o)" }'), "'May' is no name"),
        (written(guard='{ may = "" }'), "ends too early"),
        (written(guard='{ may = "alive(o)" }'), "no function and no relation"),
        (written(guard='{ may = "live(u)" }'), "used as object"),
        (written(guard='{ may = "live(k)" }'), "no variable here"),
        (written(guard='{ may = "live\'(o)" }'), "nothing of the next state"),
        (written(domain='"x ="'), "ends too early"),
        (written(parameters='{ u = "user" }'), "user"),
        (written(effects="[]", parameters='{ u = "subject", u = "subject" }'), "Duplicate"),
        (written(effects='"+access(u, o, x)"'), "array"),
        (written(effects='["access(u, o, x)"]'), "no effect"),
        (written(effects='["+access(u, o, x), +live(o)"]'), "access is of 3, not of"),
        (written(effects='["+acces(u, o, x)"]'), "no relation of the vocabulary"),
        (written(effects='["+holds(o)"]'), "no relation of the vocabulary"),
        (written(effects='["+access(u, o)"]'), "access is of 3, not of 2"),
        (written(effects='["+access(u, o, _)"]'), "what is added must be said"),
        (written(effects='["+access(o, u, x)"]'), "o is object, not subject"),
        (written(effects='["+access(u, o, submit)"]'), "submit is procedure, not access"),
        (written(effects='["live(o) := v"]'), "no function of the vocabulary"),
        (written(effects='["holds(u) := v"]'), "sorts differ"),
        (written(effects='["holds(o) := o"]'), "sorts differ"),
        (written(effects='["holds(o) := _"]'), "no variable here"),
        (written(effects='["holds(_) := v"]'), "no variable here"),
        (written(effects='["holds(o) ="]'), "no effect"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_changed(text: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem) as refused:
        changed(RULES, text)
    assert refused.value.kind == "bad-rules"


def test_one_wrong_rule_refuses_the_whole_file() -> None:
    with pytest.raises(UsageError, match="rule 'mine'"):
        changed(RULES, TIDY + written(effects='["+nothing(o)"]'))


_WORDS = [
    "[[rule]]",
    "[rule]",
    "name",
    "without",
    "parameters",
    "guard",
    "effects",
    "=",
    ".",
    "[",
    "]",
    "{",
    "}",
]
_WORDS += [
    '"',
    "'",
    '"mine"',
    '"give.owner"',
    '"+access(u, o, x)"',
    'u = "subject"',
    "1",
    "2020-01-01",
    "\n",
    "#",
    ",",
]


@settings(max_examples=300, deadline=None)
@given(
    st.text(max_size=200)
    | st.lists(st.sampled_from(_WORDS), max_size=40).map(" ".join)
    | st.binary(max_size=200).map(lambda some: some.decode("latin-1"))
)
def test_noise_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        changed(RULES, text)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(GET_WRITE)), st.integers(0, 12), st.text(max_size=12))
def test_a_file_that_is_damaged_anywhere_is_read_or_refused(at: int, gone: int, instead: str) -> None:
    try:
        changed(RULES, GET_WRITE[:at] + instead + GET_WRITE[at + gone :])
    except UsageError as refused:
        assert refused.kind == "bad-rules"


@pytest.mark.parametrize("text", ["a = " + "[" * 100_000, "a = " + "{a=" * 50_000, "[" * 100_000])
def test_a_file_that_nests_without_end_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        changed(RULES, text)


def test_a_file_has_a_greatest_length() -> None:
    assert changed(RULES, TIDY + "#" * (MAX_CHARACTERS - len(TIDY)))
    with pytest.raises(UsageError, match="at most"):
        changed(RULES, TIDY + "#" * (MAX_CHARACTERS - len(TIDY) + 1))


def test_sorts_are_written_as_the_vocabulary_names_them() -> None:
    for sort in Sort:
        made = changed(RULES, TIDY.replace('n = "entry"', f'n = "entry", z = "{sort}"'))[-1]
        assert made.parameters["z"] is sort


@pytest.mark.parametrize(
    "domain", ["matrix(u, o, x)", "holds(o) = v", "some k: live(k)", "not access'(u, o, x)"]
)
def test_a_domain_looks_at_the_request_alone(domain: str) -> None:
    with pytest.raises(UsageError, match="a domain looks at the request alone"):
        changed(RULES, written(domain=f'"{domain}"'))
    for allowed in ("x = w", "not (x = r or x = w)", "true()", "u != u"):
        changed(RULES, written(domain=f'"{allowed}"'))


@pytest.mark.parametrize("effect", ["holds(o) := holds'(o)", "object_class(o) := object_class'(o)"])
def test_an_effect_knows_nothing_of_the_next_state_either(effect: str) -> None:
    with pytest.raises(UsageError, match="nothing of the next state"):
        changed(RULES, written(effects=f'["{effect}"]'))


@pytest.mark.parametrize("parameters", ["{ o = 'object' }", "{ u = 'object' }", "{ }"])
def test_a_rule_says_who_asks(parameters: str) -> None:
    with pytest.raises(UsageError, match="u, the subject that asks"):
        changed(RULES, written(parameters=parameters, guard="{ }", effects="[]"))


@pytest.mark.parametrize("name", ["_", "r", "submit", "and", "some", "'a b'", "''", '"o\'"', "1"])
def test_a_parameter_has_a_name_that_stands_for_nothing_else(name: str) -> None:
    with pytest.raises(UsageError, match="no name for a variable"):
        changed(
            RULES, written(parameters=f"{{ u = 'subject', {name} = 'object' }}", guard="{ }", effects="[]")
        )


def test_rules_of_one_request_take_the_same_parameters() -> None:
    for parameters in ("{ u = 'subject' }", "{ u = 'subject', o = 'object', x = 'procedure' }"):
        with pytest.raises(UsageError, match="rules get-read and mine take different parameters"):
            changed(RULES, written(request="'get'", parameters=parameters, guard="{ }", effects="[]"))


@pytest.mark.parametrize(
    "text",
    [
        "a." * 130_000 + "a = 1",
        "[" + "a." * 130_000 + "a]",
        "'a'  .  " * 30_000 + "a = 1",
        "".join(f"{n}.{'a.' * 48}a = 1\n" for n in range(2400)),
        written(effects='["""holds(o) :=' + " " * 200_000 + 'v\nv"""]'),
        written(effects='["""holds(o) := holds(o' + " " * 200_000 + ')\n"""]'),
        written(effects='["' + "+a(" * 60_000 + '"]'),
        written(effects='["' + "a(a)" * 60_000 + '"]'),
        written(guard='{ may = "' + " " * 200_000 + '" }'),
        written(guard="{ " + ", ".join(f'a{n} = "{" " * 3900}"' for n in range(60)) + " }"),
        "[[rule]]\n" * 25_000,
    ],
)
def test_no_file_takes_long(text: str) -> None:
    assert len(text) <= MAX_CHARACTERS
    began = time.thread_time()
    with pytest.raises(UsageError):
        changed(RULES, text)
    assert time.thread_time() - began < NO_HANG_S
