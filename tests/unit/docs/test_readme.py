"""What the README shows is what there is: commands, options, files, exit codes, keys of the outcome."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import typer

from korora.cli.main import app
from korora.client.events import MigrationOutcome, MigrationProgress, VtpmComparison
from korora.errors import ExitCode
from korora.model.configuration import parse_host_configuration
from korora.model.definition import parse_definition
from korora.model.progress import Phase
from korora.model.site import parse_site
from korora.policy.authorization import parse as parse_authorization
from korora.policy.reference_values import parse as parse_reference_values

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text()
DIVIDER = re.compile(r"&&|\|(?!\|)|;")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def shown_commands() -> Iterator[str]:
    """Every `korora …` that stands in a console block or between backticks."""
    for block in blocks("console"):
        for line in block.splitlines():
            if line.startswith("# "):
                commands = re.sub(r"\s{2,}\(.*\)$", "", line[2:])
                yield from (
                    part.strip() for part in DIVIDER.split(commands) if part.strip().startswith("korora ")
                )
    for code in re.findall(r"`(korora [^`\n]+)`", README.replace("\\|", "|")):
        yield from (part.strip() for part in code.split("&&"))


def with_optional_parts(command: str) -> str:
    """`[--to HOST]` as if it were given; of alternatives, the first."""
    plain = command.replace("[", " ").replace("]", " ").replace("…", "")
    return re.sub(r"(\w+)(?:\|\w+)+", r"\1", plain)


def parsed(words: list[str]) -> None:
    """Parse as the command line does, down to the last subcommand, and run nothing. Raises on any mistake."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("korora", words)
    while hasattr(command, "get_command"):
        rest = [*context._protected_args, *context.args]
        assert rest, f"{words} names no command"
        name, command, left = command.resolve_command(context, rest)
        assert command is not None, f"{words} names no command"
        context = command.make_context(name, left, parent=context)


COMMANDS = sorted({command for command in shown_commands() if "COMMAND" not in command})


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_is_shown_exists_with_these_options(command: str) -> None:
    words = shlex.split(with_optional_parts(command))[1:]
    words = ["5" if word == "N" else word for word in words]
    parsed(words)


def test_every_command_is_shown() -> None:
    group: Any = typer.main.get_command(app)
    context = group.make_context("korora", [], resilient_parsing=True)
    missing = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        inner = command.list_commands(context) if hasattr(command, "list_commands") else [""]
        missing += [
            f"korora {name} {sub}".strip() for sub in inner if f"`korora {name} {sub}".strip() not in README
        ]
    assert missing == []


def test_the_exit_codes_are_those_in_force() -> None:
    shown = re.findall(r"^\| (\d) \| ([A-Z_]+) \| .+ \|$", README, re.MULTILINE)
    assert {name: int(code) for code, name in shown} == {code.name: code.value for code in ExitCode}


def test_the_outcomes_keys_are_all_explained() -> None:
    section = README.split("### `migrate --json`")[1].split("\n## ")[0]
    table = section[section.index("| key |") :]
    explained = {
        key
        for line in table.splitlines()
        for key in re.findall(r"`(\w+)`", line.split("|")[1] if "|" in line else "")
    }
    assert explained == set(MigrationOutcome.__struct_fields__)
    for key in (*MigrationProgress.__struct_fields__, *VtpmComparison.__struct_fields__):
        assert f"`{key}`" in section
    assert ", ".join(phase for phase in Phase if phase is not Phase.REQUEST) in section.replace("\n", " ")


PARSERS: dict[str, Callable[[str], Any]] = {
    "korora.toml": lambda text: parse_site(text, "README"),
    "hostd.toml": lambda text: parse_host_configuration(text, ROOT / "README.md"),
    "authorization.toml": partial(parse_authorization, zone=ZoneInfo),
    "reference.toml": parse_reference_values,
    "vm.toml": parse_definition,
}


@pytest.mark.parametrize("name", PARSERS)
def test_an_example_of_a_file_is_read_by_its_real_parser(name: str) -> None:
    texts = [block for block in blocks("toml") if block.startswith(f"# {name}\n")]
    assert len(texts) == 1
    assert PARSERS[name](texts[0]) is not None


def test_no_example_goes_unread() -> None:
    assert {block.splitlines()[0].removeprefix("# ") for block in blocks("toml")} == set(PARSERS)


def test_the_scripts_that_are_named_are_there() -> None:
    for script in set(re.findall(r"\bscript/[a-z_]+", README)):
        assert (ROOT / script).is_file(), script
