"""`korora policy check` and `korora policy test`: a site's authorization, before it is in force."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from korora import named_file
from korora.cli.invocation import Invocation
from korora.cli.options import AsJson
from korora.cli.render import mark, say, say_json, table
from korora.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from korora.model.authorization import Answer
    from korora.policy.examples import Example, Tried

Folder = Annotated[
    Path | None,
    typer.Option(
        "--dir", metavar="DIR", help="Where authorization.toml lies; default: see the configuration."
    ),
]
NAME = "authorization.toml"
EXAMPLES = "examples.toml"


def check(context: typer.Context, directory: Folder = None, as_json: AsJson = False) -> None:
    """Look at authorization.toml and policies/*.cedar beside it, and tell everything that is wrong.

    Exit code 0 when they can be used, 2 otherwise; the daemons keep what was in force before.
    """
    from korora.wiring.authorization import problems

    path = _file(context, directory)
    found = problems(path)
    if as_json:
        say_json({"file": path, "usable": not found, "problems": found})
    else:
        for problem in found:
            say(f"✗ {problem}")
        say(f"{mark(not found)} {path} and the policies beside it {'cannot' if found else 'can'} be used")
    if found:
        raise typer.Exit(ExitCode.USAGE)


def try_out(
    context: typer.Context,
    examples: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="The examples; default: examples.toml in that folder."),
    ] = None,
    directory: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Ask the policies about examples, and compare their answers with what is expected.

    Exit code 0 when all are as expected, 3 otherwise; 2 when a file cannot be used.
    """
    path = _file(context, directory)
    results = tried_out(path, examples or path.with_name(EXAMPLES))
    as_expected = all(one.as_expected for one in results)
    if as_json:
        say_json({"as_expected": as_expected, "examples": [_told(one) for one in results]})
    else:
        _show(results)
    if not as_expected:
        raise typer.Exit(ExitCode.REFUSED)


def tried_out(path: Path, examples: Path) -> list[Tried]:
    """What the policies beside `path` answer to these examples. UsageError when a file cannot be used."""
    from korora.wiring.authorization import authorizer

    policies = authorizer(path)
    return [
        _tried(example, policies.decide(example.request(), example.moment(time.time()), example.peer_state))
        for example in _examples(examples)
    ]


def _tried(example: Example, answer: Answer) -> Tried:
    from korora.policy.examples import tried

    return tried(example, answer)


def _file(context: typer.Context, directory: Path | None) -> Path:
    if directory is not None:
        return directory / NAME
    site = Invocation.of(context).site
    if site.authorization is None:
        raise UsageError(
            "the configuration names no authorization file",
            kind="no-authorization",
            remedy="name the folder: --dir DIR",
        )
    return site.authorization


def _examples(file: Path) -> tuple[Example, ...]:
    from korora.policy.examples import MAX_CHARACTERS, parse

    try:
        return parse(named_file.beginning(file, MAX_CHARACTERS * 4).decode())
    except OSError as error:
        raise UsageError(
            f"{file}: {error.strerror}",
            kind="bad-examples",
            remedy="name a file of examples that can be read",
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{file}: it is not UTF-8 text", kind="bad-examples", remedy="write it as UTF-8"
        ) from error


def _show(results: list[Tried]) -> None:
    rows = [
        (mark(one.as_expected), one.example.text, one.example.expect, one.answer, one.because)
        for one in results
    ]
    table(["", "EXAMPLE", "EXPECTED", "ANSWER", "BECAUSE"], rows)
    say(f"\n{sum(one.as_expected for one in results)} of {len(results)} as expected")


def _told(one: Tried) -> dict[str, object]:
    return {
        "example": one.example.text,
        "expected": one.example.expect,
        "answer": one.answer,
        "because": one.because,
        "as_expected": one.as_expected,
    }
