"""Values of command lines that are made without typer's library are those that it makes."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import pytest
import typer

from korora.cli.main import COMMANDS, app
from korora.cli.values import plainly

if TYPE_CHECKING:
    from typer._click.core import Command, Context

WORDS = [
    "web",
    "",
    "-",
    "a b",
    "ä/ö",
    "/",
    "/nowhere/at/all",
    "7",
    "line\nline",
    "\udcff",
    "\0",
    "raw",
    "RAW",
    "mirror",
    "offline",
    "true",
]


LOADED = "sys.exit('pydantic' in sys.modules)"


def made(command: Command, words: list[str]) -> list[Any]:
    """What the command would be called with, or the error, by its kind and words."""
    try:
        with command.make_context("it", list(words)) as context:
            return [context.params]
    except Exception as error:
        return [type(error).__name__, str(error), getattr(error, "message", None)]


def below(command: Command, context: Context | None = None) -> Iterator[Command]:
    yield command
    for one in getattr(command, "commands", {}).values():
        yield from below(one)


def lines(command: Command) -> Iterator[list[str]]:
    """For each parameter every word, alone and twice, and what is needed beside it."""
    yield []
    positional = [one for one in command.params if one.param_type_name == "argument"]
    for one in command.params:
        for word in WORDS:
            if one.param_type_name == "argument":
                yield [word for _ in positional]
                yield [word, word, word]
            elif not getattr(one, "is_flag", False):
                rest = ["/dev/null" for _ in positional]
                yield [*rest, one.opts[0], word]
                yield [*rest, one.opts[0], word, one.opts[0], "more"]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_called_with_the_values_that_typer_makes(name: str) -> None:
    root = typer.main.get_command(app)
    asked = typer.Context(root)
    usual = root.get_command(asked, name)  # type: ignore[attr-defined]
    for command in below(usual):
        unchanged = without_it(command)
        for words in lines(command):
            assert made(command, words) == made(unchanged, words), words


def without_it(command: Command) -> Command:
    """The same command with typer's own ways."""
    plain = copy.copy(command)
    vars(plain).pop("get_params", None)
    plain.params = [copy.copy(one) for one in command.params]
    for one in plain.params:
        vars(one).pop("process_value", None)
    return plain


def of(function: Callable[..., None]) -> Command:
    application = typer.Typer(add_completion=False)
    application.command()(function)
    return plainly(typer.main.get_command(application))


def louder(value: str | None) -> str | None:
    return value.upper() if value is not None else "nobody"


def test_a_callback_is_called_with_the_value() -> None:
    def it(name: Annotated[str | None, typer.Option(callback=louder)] = None) -> None:
        pass

    assert made(of(it), ["--name", "web"]) == [{"name": "WEB"}]
    assert made(of(it), []) == [{"name": "nobody"}]


def test_a_path_of_which_something_is_asked_is_asked_by_typer(tmp_path: Path) -> None:
    def it(path: Annotated[Path, typer.Argument(exists=True, dir_okay=False)]) -> None:
        pass

    assert made(of(it), [str(tmp_path)])[0] == "BadParameter"
    assert made(of(it), [str(tmp_path / "nothing")])[0] == "BadParameter"


def test_a_command_of_text_choices_and_paths_loads_no_library_for_them(tmp_path: Path) -> None:
    for words in (
        ["scan", "--image", str(tmp_path / "none"), "--paths", "/etc/*", "--json"],
        ["migrate", "web", "--to", "b", "--disks", "all", "--storage-mode", "mirror", "--mode", "offline"],
    ):
        _loads_nothing(words)


def _loads_nothing(words: list[str]) -> None:
    code = f"import sys; from korora.cli.main import answer; answer({words}); " + LOADED
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
