"""The command `korora`: global options, the commands by name, and the exit code of whatever happens.

Promise: every way out is one of the contracted exit codes, an error is told on standard error (with `--json`
also as an object on standard output), and a traceback appears only with `--debug`. Commands are imported
when they are called, so that `--help` and small questions answer at once.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from korora.cli.failure import told, trace, understood
from korora.cli.invocation import Invocation
from korora.cli.render import say, unwritten
from korora.cli.values import plainly
from korora.errors import CancelledError, ExitCode, KororaError, ToolError

if TYPE_CHECKING:
    from typer._click.core import Command, Context

_INTERRUPTED = 130  # how typer hands on a KeyboardInterrupt

# name → module, and the line that `korora --help` shows for it without importing anything
COMMANDS = {
    "host": ("korora.cli.host", "Hosts: list, show, attest, enroll."),
    "vm": ("korora.cli.vm", "Virtual machines: list, show, start, stop, adopt, inspect, verify."),
    "check": ("korora.cli.check", "Run the prechecks of a migration; nothing moves."),
    "migrate": ("korora.cli.migrate", "Move a VM, with its vTPM, to another host, and prove it."),
    "migration": ("korora.cli.migrations", "Migrations that run: list, watch, cancel."),
    "receipt": ("korora.cli.receipt", "Receipts of migrations: show, verify (offline), list."),
    "log": ("korora.cli.log", "A host's append-only log: show, verify."),
    "question": ("korora.cli.question", "What no rule decides: list, show, answer."),
    "policy": ("korora.cli.policy", "The rules that decide: check, test, prove, audit, explain."),
    "indicators": ("korora.cli.inspection.indicators", "What is known to be bad: import, list, match."),
    "scan": ("korora.cli.inspection.scan", "Malware in files, by several engines."),
    "evaluate": (
        "korora.cli.evaluate",
        "How near a migration or an installation comes to the ideal, and why.",
    ),
    "flags": ("korora.cli.inspection.flags", "Flags on the data of VMs: list, show, resolve, export."),
    "files": ("korora.cli.inspection.files", "Files inside of a disk image: digest, verify, diff."),
    "config": ("korora.cli.inspection.config", "Configuration files of VMs: digest, diff."),
    "image": ("korora.cli.inspection.image", "Disk images: digest, verify, diff, info."),
    "disk": ("korora.cli.disk", "Disks of VMs: diff, heat."),
    "store": ("korora.cli.store", "What this host has already, and need not be sent: add, list, verify."),
    "doctor": ("korora.cli.doctor", "This machine: what is missing, and the command that mends it."),
    "lab": ("korora.cli.lab", "Several hosts on this one machine, to try things out: up, down, status."),
    "hostd": ("korora.cli.hostd", "The daemon of a host."),
}


class Commands(TyperGroup):
    """The commands above, each imported when it is called."""

    def list_commands(self, ctx: Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Context, cmd_name: str) -> Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(COMMANDS[cmd_name][0])
        application = getattr(module, "app", None) or _only(getattr(module, cmd_name))
        command = typer.main.get_command(application)
        command.name = cmd_name
        return plainly(command)

    def format_commands(self, ctx: Context, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


def _only(function: Any) -> typer.Typer:
    """An application of one command."""
    application = typer.Typer(add_completion=False, rich_markup_mode=None)
    application.command()(function)
    return application


app = typer.Typer(cls=Commands, add_completion=False, no_args_is_help=False, rich_markup_mode=None)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        say(f"korora {version('korora')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def korora(
    context: typer.Context,
    host: Annotated[str | None, typer.Option("--host", "-H", help="The host to ask, by its name.")] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="The site: hosts, addresses, trust anchors. Default: $KORORA_CONFIG."),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Move a running virtual machine, with its virtual TPM, between attested hosts, and prove it."""
    context.obj = Invocation(host, config, debug)
    if context.invoked_subcommand is None:
        say(context.get_help())
        raise typer.Exit(ExitCode.USAGE)


def run(arguments: list[str] | None = None) -> None:
    """The console script. Always ends with SystemExit, its code an ExitCode."""
    words = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    code = answer(words)
    lost = unwritten()
    if code == ExitCode.DONE and lost is not None:
        error = ToolError(
            f"the answer could not be written: {lost}", kind="output", remedy="make room for it"
        )
        code = told(error, as_json=False)
    sys.exit(int(code))


def answer(words: list[str]) -> int:
    """Run one command line; returns its exit code, having told what went wrong."""
    as_json = "--json" in words
    try:
        code = plainly(typer.main.get_command(app)).main(
            args=words, prog_name="korora", standalone_mode=False
        )
        if code != _INTERRUPTED:
            return code if isinstance(code, int) else ExitCode.DONE
        error: KororaError = CancelledError("interrupted", kind="cancelled", remedy="nothing more was asked")
        return told(error, as_json=as_json)
    except Exception as problem:
        if "--debug" in words:
            trace(problem)
        context = getattr(problem, "ctx", None)
        error = understood(problem, getattr(context, "command_path", "korora"))
        if as_json and getattr(context, "info_name", None) == "migrate":
            from korora.cli.migrate import never_begun

            return never_begun(error)
        return told(error, as_json=as_json)
