"""`korora policy prove` and `korora policy audit`: what the rules promise, shown by machine.

Limit: about rules, not about a host; no daemon is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from korora import named_file
from korora.cli.options import AsJson
from korora.cli.render import mark, say, say_json, table
from korora.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from korora.policy.machine.language.rule import Rule
    from korora.policy.machine.running.state import Facts
    from korora.policy.proof.audit import Deletion
    from korora.policy.proof.counterexample import Counterexample
    from korora.policy.proof.obligations import Result

Rules = Annotated[
    Path | None,
    typer.Option("--rules", metavar="FILE", help="Changes to the rules in force (TOML); default: none."),
]


def prove(
    rules: Rules = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show a concrete case against what is not proved.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Prove that every rule keeps every secure state secure, for any number of subjects and objects.

    Exit code 0 if everything is proved, 3 otherwise.
    """
    from korora.policy.proof.obligations import prove as prove_all

    given = _rules(rules)
    results = list(prove_all(given))
    cases = _cases(given, results) if explain else []
    if as_json:
        say_json(
            {"results": results, "proved": _all_proved(results), "counterexamples": list(map(_told, cases))}
        )
    else:
        _show_results(results)
        for case in cases:
            _show_case(case)
    if not _all_proved(results):
        raise typer.Exit(ExitCode.REFUSED)


def audit(rules: Rules = None, as_json: AsJson = False) -> None:
    """Delete every clause of every rule in turn: each deletion must lose the property that the clause serves.

    Exit code 0 if it does, or if the clause is explained as redundant; 3 otherwise.
    """
    from korora.policy.proof.audit import audit as audit_all

    deletions = list(audit_all(_rules(rules)))
    sound = all(deletion.sound for deletion in deletions)
    if as_json:
        say_json({"deletions": [_deletion(one) for one in deletions], "sound": sound})
    else:
        _show_deletions(deletions)
    if not sound:
        raise typer.Exit(ExitCode.REFUSED)


def _rules(file: Path | None) -> tuple[Rule, ...]:
    from korora.policy.machine.language.rule_file import MAX_CHARACTERS, changed
    from korora.policy.machine.omega.rules import RULES

    if file is None:
        return RULES
    try:
        text = named_file.beginning(file, MAX_CHARACTERS * 4).decode()
    except OSError as error:
        raise UsageError(
            f"{file}: {error.strerror}", kind="bad-rules", remedy="name a file of rules that can be read"
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{file}: it is not UTF-8 text", kind="bad-rules", remedy="write it as UTF-8"
        ) from error
    return changed(RULES, text)


def _all_proved(results: Sequence[Result]) -> bool:
    return all(result.proved for result in results)


# -- what is proved -----------------------------------------------------------------------------------------


def _show_results(results: Sequence[Result]) -> None:
    """One line for each rule: every property, and how long it took. What is not proved, by name."""
    by_rule: dict[str, list[Result]] = {}
    for result in results:
        by_rule.setdefault(result.rule, []).append(result)
    rows = []
    for rule, its in by_rule.items():
        proved = sum(result.proved for result in its)
        seconds = sum(result.seconds for result in its)
        rows.append((mark(proved == len(its)), rule, f"{proved} of {len(its)}", f"{seconds:.2f}"))
    table(["", "RULE", "PROVED", "SECONDS"], rows)
    for result in results:
        if not result.proved:
            why = "the prover cannot tell" if result.unknown else "not so"
            say(f"✗ {result.rule}: {result.property}: {why}")
    proved, seconds = sum(result.proved for result in results), sum(result.seconds for result in results)
    say(f"\n{proved} of {len(results)} obligations proved, {seconds:.1f} s of proving")


# -- what is not --------------------------------------------------------------------------------------------


def _cases(rules: Sequence[Rule], results: Sequence[Result]) -> list[Counterexample]:
    """One for each property that a rule does not keep."""
    from korora.policy.machine.omega.properties import CONSTRAINTS, INVARIANTS
    from korora.policy.proof.counterexample import find

    rule = {one.name: one for one in rules}
    wanted = {one.name: one for one in (*INVARIANTS, *CONSTRAINTS)}
    lost = [(rule[r.rule], wanted[r.property]) for r in results if not r.proved and r.property in wanted]
    return [case for case in (find(*pair) for pair in lost) if case is not None]


def _show_case(case: Counterexample) -> None:
    say(f"\n{case.rule.name} loses {case.broken.name} ({case.broken.source}):")
    say(f"  {case.broken.text}")
    say(f"  request  {case.rule.request}({', '.join(f'{n}={_word(v)}' for n, v in case.arguments.items())})")
    say("  in the secure state")
    for line in _lines(case.before):
        say(f"    {line}")
    say("  the answer is yes, and makes it")
    for sign, facts in (("-", case.before - case.after), ("+", case.after - case.before)):
        for line in _lines(facts):
            say(f"    {sign} {line}")
    replayed = "replayed in the machine that runs: it said yes" if case.replayed else "not replayed"
    say(f"  {replayed}")


def _told(case: Counterexample) -> dict[str, object]:
    return {
        "rule": case.rule.name,
        "property": case.broken.name,
        "request": case.rule.request,
        "arguments": {name: _word(value) for name, value in case.arguments.items()},
        "before": _lines(case.before),
        "removed": _lines(case.before - case.after),
        "added": _lines(case.after - case.before),
        "replayed": case.replayed,
    }


def _lines(facts: Facts) -> list[str]:
    from korora.policy.machine.language.vocabulary import FUNCTIONS

    def line(name: str, row: tuple[object, ...]) -> str:
        if name in FUNCTIONS:
            return f"{name}({row[0]}) = {_word(row[1])}"
        return f"{name}({', '.join(map(str, row))})"

    return sorted(line(name, row) for name, row in facts)


def _word(value: object) -> str:
    from korora.policy.machine.running.classes import AccessClass

    if isinstance(value, AccessClass):
        return f"{value.level.name}{value.categories:+b}" if value.categories else value.level.name
    return str(value)


# -- the audit ----------------------------------------------------------------------------------------------


def _show_deletions(deletions: Sequence[Deletion]) -> None:
    rows = [
        (mark(one.sound), one.rule, one.clause, one.broken or f"none: {one.explanation or 'unexplained'}")
        for one in deletions
    ]
    table(["", "RULE", "WITHOUT", "LOSES"], rows)
    sound = sum(one.sound for one in deletions)
    say(f"\n{sound} of {len(deletions)} clauses are needed for what they serve, or explained")


def _deletion(one: Deletion) -> dict[str, object]:
    return {
        "rule": one.rule,
        "clause": one.clause,
        "lost": one.broken or None,
        "explanation": one.explanation or None,
        "sound": one.sound,
    }
