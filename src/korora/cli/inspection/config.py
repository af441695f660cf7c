"""`korora config`: what a VM's configuration file says, whatever its format, and what changed in it (E1)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from korora.cli.options import AsJson, group
from korora.cli.render import mark, same, say, say_json, warn
from korora.errors import ExitCode
from korora.model.vm_settings import ConfigurationFormat, Field, Part

if TYPE_CHECKING:
    from korora.model.vm_settings import SettingChange, VmConfiguration
    from korora.wiring.configuration_files import Allowed

app = group("Configuration files of VMs: digest, diff.")
FileArgument = Annotated[
    Path, typer.Argument(metavar="FILE", help="A VM's configuration, in any known format.")
]
Declared = Annotated[
    ConfigurationFormat | None, typer.Option("--format", help="What it is, whatever it looks like.")
]
SHOWN = 100


@app.command()
def digest(file: FileArgument, declared: Declared = None, as_json: AsJson = False) -> None:
    """One digest of all settings, in any order and spelling. Exit code 6 if not all of it could be read."""
    from korora.wiring.configuration_files import digest as digest_of
    from korora.wiring.configuration_files import read_file

    seen = read_file(file, declared)
    whole = digest_of(seen)
    if as_json:
        say_json(_described(seen) | {"digest": whole})
    else:
        _tell(file, seen)
        say(f"{whole or 'unknown: not all of it could be read'}  {file}")
    raise typer.Exit(ExitCode.TOOL if whole is None else ExitCode.DONE)


@app.command()
def diff(
    file: FileArgument,
    other: Annotated[Path, typer.Argument(metavar="FILE2", help="Another, in whatever format.")],
    declared: Declared = None,
    other_format: Annotated[
        ConfigurationFormat | None, typer.Option("--format2", help="What the other is.")
    ] = None,
    moved: Annotated[
        bool, typer.Option("--moved", help="The VM was moved: host paths and runtime data may differ.")
    ] = False,
    allow: Annotated[
        list[str] | None,
        typer.Option("--allow", metavar="mac|bridge", help="What else may. Can be repeated."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """What changed, in words and by how grave it is. Exit code 5 if anything did that is not expected.

    Exit code 6 if nothing did in what was read, and not everything was. Between formats only what both tell
    in the same words is compared.
    """
    from korora.wiring.configuration_files import changes, read_file
    from korora.wiring.configuration_files import digest as digest_of

    allowed = _allowed(allow or ())
    before, after = read_file(file, declared), read_file(other, other_format)
    found = list(changes(before, after, moved=moved, allowed=allowed))
    if as_json:
        say_json(
            {
                "same": same(found, all_read=not (before.unparsed or after.unparsed)),
                "expected": all(one.expected for one in found),
                "formats": [before.format, after.format],
                "compared": "all" if before.format is after.format else "common",
                "digests": [digest_of(before), digest_of(after)],
                "changes": [_change(one) for one in found],
                "unparsed": [
                    {"file": str(path)} | one
                    for path, seen in ((file, before), (other, after))
                    for one in _unparsed(seen)
                ],
                "findings": [*before.findings, *after.findings],
            }
        )
    else:
        for path, seen in ((file, before), (other, after)):
            _tell(path, seen)
        _changes(found, all_read=not (before.unparsed or after.unparsed))
        if before.format is not after.format:
            say(f"– of {before.format} and {after.format} the common settings were compared, and no others")
    raise typer.Exit(_verdict(before, after, found))


def _verdict(before: VmConfiguration, after: VmConfiguration, found: list[SettingChange]) -> ExitCode:
    """Nothing is said to be well that was not read."""
    if any(not one.expected for one in found):
        return ExitCode.INTEGRITY
    return ExitCode.TOOL if before.unparsed or after.unparsed else ExitCode.DONE


def _allowed(said: list[str] | tuple[()]) -> list[Allowed]:
    from korora.wiring.configuration_files import Allowed

    try:
        return [Allowed(one) for one in said]
    except ValueError as error:
        raise typer.BadParameter("allow one of " + ", ".join(Allowed), param_hint="--allow") from error


def _tell(path: Path, seen: VmConfiguration) -> None:
    for finding in seen.findings[:SHOWN]:
        warn(f"{finding.severity}: {path}: {finding.message} ({finding.kind})")
    for one in _unparsed(seen)[:SHOWN]:
        warn(f"unknown: {path}: {one['place']}: {one['text'][:200]}: {one['why']}")
    if len(seen.unparsed) > SHOWN:
        warn(f"… and {len(seen.unparsed) - SHOWN} more: see --json")


def _changes(found: list[SettingChange], *, all_read: bool) -> None:
    from korora.wiring.configuration_files import words

    for one in found[:SHOWN]:
        say(f"{'– expected' if one.expected else f'✗ {one.severity}'}: {words(one)}")
    if len(found) > SHOWN:
        say(f"… and {len(found) - SHOWN} more: see --json")
    if not found:
        say(f"{mark(same(found, all_read=all_read))} nothing changed in what was compared")


def _described(seen: VmConfiguration) -> dict[str, object]:
    from korora.wiring.configuration_files import shown

    vm = {fact.field.value: shown(fact.value) for one in seen.of(Part.VM) for fact in one.facts}
    devices = [
        {"part": one.part, "slot": one.slot} | {fact.field.value: shown(fact.value) for fact in one.facts}
        for one in seen.components
        if one.part is not Part.VM
    ]
    vm.pop(Field.ARGUMENTS.value, None)  # they may hold passwords
    return {
        "format": seen.format,
        "settings": len(seen.settings),
        "vm": vm,
        "devices": devices,
        "unparsed": _unparsed(seen),
        "findings": seen.findings,
    }


def _unparsed(seen: VmConfiguration) -> list[dict[str, str]]:
    from korora.wiring.configuration_files import shown_text

    return [
        {"place": one.place, "text": shown_text(one.place, one.text), "why": one.why} for one in seen.unparsed
    ]


def _change(one: SettingChange) -> dict[str, object]:
    from korora.wiring.configuration_files import words

    return {
        "what": one.what,
        "field": one.field,
        "before": one.before,
        "after": one.after,
        "severity": one.severity,
        "expected": one.expected,
        "paths": one.paths,
        "words": words(one),
    }
