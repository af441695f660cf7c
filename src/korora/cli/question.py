"""`korora question`: what the hosts' policies leave to a person, and his signed answer (P2, S2)."""

from __future__ import annotations

import secrets
import time
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from korora.cli.invocation import Invocation
from korora.cli.options import AsJson, group
from korora.cli.render import error_object, error_text, fields, say, say_json, table, warn
from korora.errors import ExitCode, KororaError, UsageError

if TYPE_CHECKING:
    from korora.client.views import QuestionView
    from korora.model.site import SiteHost

app = group("Questions that no rule decides: list, show, answer.")
Id = Annotated[str, typer.Argument(metavar="ID", help="The question: korora question list.")]
DAY_S = 24 * 3600
Validity = Annotated[
    int, typer.Option("--valid", help="Seconds for which it is good.", min=60, max=7 * DAY_S)
]


class YesOrNo(StrEnum):
    YES = "yes"
    NO = "no"


@app.command("list")
def list_questions(context: typer.Context, as_json: AsJson = False) -> None:
    """What waits for a person on the hosts in reach, and what was answered and is not used yet."""
    asked = list(_asked(Invocation.of(context)))
    if as_json:
        say_json([{"host": host.name, "question": question} for host, question in asked])
        return
    header = ("ID", "HOST", "STAGE", "ASKED", "TIMES", "MATTER", "WHY")
    table(header, [_row(host.name, question) for host, question in asked])


@app.command()
def show(context: typer.Context, question: Id, as_json: AsJson = False) -> None:
    """One question, on each host that has it."""
    found = _found(Invocation.of(context), question)
    if as_json:
        say_json([{"host": host.name, "question": one} for host, one in found])
        return
    for host, one in found:
        fields(
            [
                ("question", one.id),
                ("host", host.name),
                ("matter", one.matter),
                ("why", f"{one.reason} ({one.why})"),
                ("asked", f"{one.times} times, last at {_when(one.asked_at)}"),
                ("stage", one.stage),
                (
                    "answer",
                    one.answer and f"{one.answer} by {one.answered_by}: {one.because or 'without a reason'}",
                ),
                ("good until", _when(one.until) if one.until else None),
            ]
        )


@app.command()
def answer(
    context: typer.Context,
    question: Id,
    said: Annotated[YesOrNo, typer.Argument(metavar="yes|no")],
    reason: Annotated[str, typer.Option("--reason", help="Why; it is kept with the answer.")] = "",
    policy: Annotated[
        Path | None,
        typer.Option("--policy", metavar="FILE", help="Answer by this Cedar policy, from now on."),
    ] = None,
    valid_s: Validity = DAY_S,
    as_json: AsJson = False,
) -> None:
    """Answer, signed by the operator of the configuration. It decides the next such request, once.

    With --policy it becomes a rule: each host puts the policy in force after it has seen that it is sound,
    decides this very request, and leaves the site's examples as they are expected.

    The answer goes to both hosts that the matter names, so that neither has to ask again. Exit code 3 when a
    host does not take it: who answers must be allowed to approve, and be another than who asked.
    """
    invocation = Invocation.of(context)
    (_, about), *_ = _found(invocation, question)
    envelope = _signed(invocation, about, said, reason, valid_s, _policy(policy))
    taken, failures = [], []
    for host in invocation.asked():
        if host.name not in {about.source, about.destination}:
            continue
        try:
            with invocation.daemon(host) as daemon:
                taken.append((host, daemon.answer(envelope)))
        except KororaError as error:
            failures.append((host, error))
    if as_json:
        say_json(
            {
                "question": question,
                "answer": said.value,
                "taken_by": [host.name for host, _ in taken],
                "failures": [{"host": host.name} | error_object(failure) for host, failure in failures],
            }
        )
    for host, one in taken if not as_json else []:
        say(f"✓ {host.name}: {said} to {one.matter}")
    for host, failure in failures:
        warn(f"{host.name}: {error_text(failure)}")
    if failures:
        raise typer.Exit(failures[0][1].exit_code)
    if not taken:
        raise typer.Exit(ExitCode.TOOL)


def _signed(
    invocation: Invocation, about: QuestionView, said: YesOrNo, reason: str, valid_s: int, policy: str
) -> str:
    from korora.cli.migration.request import operator_key, operator_of
    from korora.model.plan import Mode
    from korora.protocol import answer

    operator, now = operator_of(invocation.site), int(time.time())
    statement = answer.Answer(
        by=operator.name,
        answer=said.value,
        reason=reason,
        operator=about.operator,
        procedure=about.procedure,
        vm=about.vm,
        source=about.source,
        destination=about.destination,
        mode=Mode(about.mode),
        policy=policy,
        nonce=secrets.token_hex(32),
        issued_at=now,
        not_after=now + valid_s,
    )
    return answer.signed(statement, operator_key(operator.key)).decode()


def _policy(file: Path | None) -> str:
    from korora.cli.site import read_text

    return "" if file is None else read_text(file, "the policy")


def _asked(invocation: Invocation) -> list[tuple[SiteHost, QuestionView]]:
    found = []
    for host in invocation.asked():
        try:
            with invocation.daemon(host) as daemon:
                found += [(host, question) for question in daemon.questions()]
        except KororaError as error:
            warn(error_text(error))
    return found


def _found(invocation: Invocation, question: str) -> list[tuple[SiteHost, QuestionView]]:
    found = [(host, one) for host, one in _asked(invocation) if one.id == question]
    if not found:
        raise UsageError(
            f"no host in reach has a question {question!r}",
            kind="unknown-question",
            remedy="see: korora question list",
        )
    return found


def _row(host: str, question: QuestionView) -> tuple[object, ...]:
    asked = (_when(question.asked_at), question.times)
    return (question.id, host, _stage(question), *asked, question.matter, question.why)


def _stage(question: QuestionView) -> str:
    return f"{question.answer} by {question.answered_by}" if question.answer else question.stage


def _when(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
