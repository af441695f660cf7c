"""`korora flags`: what is wrong with the data of VMs: list, show, resolve, export (E5)."""

from __future__ import annotations

import os
import secrets
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from korora.cli.inspection.showing import show_flag, show_flags, state
from korora.cli.invocation import Invocation
from korora.cli.options import AsJson, group
from korora.cli.render import error_text, say, say_json, warn
from korora.errors import ExitCode, IntegrityError, KororaError, UsageError, error_of

if TYPE_CHECKING:
    from korora.client.inspections import Unreadable
    from korora.model.flag import Flag
    from korora.model.site import SiteHost

app = group("Flags on the data of VMs: list, show, resolve, export.")
Id = Annotated[str, typer.Argument(metavar="FLAG", help="The flag, or the first digits of its name.")]
PREFIX_MIN = 4
DAY_S = 24 * 3600
Found = tuple["SiteHost", str, "Flag"]


@dataclass(frozen=True, slots=True)
class Told:
    """`silent`: why hosts tell nothing; `unreadable`: why the flags of single VMs are not known."""

    found: list[Found]
    silent: list[KororaError]
    unreadable: list[KororaError]

    @property
    def code(self) -> ExitCode:
        """A record that was changed weighs most."""
        codes = [one.exit_code for one in (*self.silent, *self.unreadable)]
        return ExitCode.INTEGRITY if ExitCode.INTEGRITY in codes else next(iter(codes), ExitCode.DONE)

    @property
    def lacking(self) -> str:
        hosts = "; not every host told what it has" if self.silent else ""
        return hosts + (f"; of {len(self.unreadable)} VMs they cannot be read" if self.unreadable else "")


class Choice(StrEnum):
    ACCEPT = "accept"
    RESTORE = "restore"


@app.command("list")
def list_flags(
    context: typer.Context,
    vm: Annotated[str | None, typer.Option("--vm", metavar="VM", help="Of this VM.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Those that are resolved, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Flags on all hosts in reach, open ones first. Exit code 0, whatever there is.

    A host that does not tell its flags, or a VM whose flags cannot be read, is named. Then the exit code is
    not 0: 5 if a record was changed.
    """
    invocation = Invocation.of(context)
    told = _flags(invocation, vm)
    if vm is not None and not told.found and not told.code:
        invocation.find(vm)
    found = [one for one in told.found if all_ or one[2].is_open]
    if as_json:
        say_json([_object(*one) for one in found])
    else:
        show_flags([(f"{name} ({host.name})", flag) for host, name, flag in found])
        said = "flags" if all_ else "open flags; --all shows those that are resolved, too"
        say(f"{len(found)} {said}{told.lacking}")
    if told.code:
        raise typer.Exit(told.code)


@app.command()
def show(context: typer.Context, flag: Id, as_json: AsJson = False) -> None:
    """One flag: what, where, why, since when, and where its original is."""
    host, vm, found = _found(Invocation.of(context), flag)
    if as_json:
        say_json(_object(host, vm, found))
    else:
        show_flag(vm, host.name, found)


@app.command()
def resolve(
    context: typer.Context,
    flag: Id,
    choice: Annotated[Choice, typer.Argument(metavar="accept|restore")],
    reason: Annotated[
        str, typer.Option("--reason", help="Why; it is signed, and kept with the flag. accept needs one.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Close a flag, signed by the operator of the configuration, and logged by the host.

    accept: it may stay as it is. restore: it is mended; the host takes that only if it has looked since, at
    all of it, and did not find it again. Exit code 3 when the host does not take it.
    """
    from korora.cli.migration.request import operator_key, operator_of
    from korora.protocol.flag import Resolution, check_reason, signed

    check_reason(choice.value, reason := reason.strip())

    invocation = Invocation.of(context)
    host, vm, found = _found(invocation, flag)
    operator, now = operator_of(invocation.site), int(time.time())
    said = Resolution(
        by=operator.name,
        vm=vm,
        flag=found.id,
        choice=choice.value,
        reason=reason,
        nonce=secrets.token_hex(32),
        issued_at=now,
        not_after=now + DAY_S,
    )
    with invocation.daemon(host) as daemon:
        done = daemon.resolve(signed(said, operator_key(operator.key)).decode())
    if as_json:
        say_json(_object(host, vm, done))
    else:
        say(f"✓ {host.name}: flag {done.id[:8]} of {vm} is {state(done)}")


@app.command()
def export(
    context: typer.Context,
    flag: Id,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Where to write the bag: a new tar file, or a folder.")
    ],
    as_json: AsJson = False,
) -> None:
    """Write the original of what was flagged as a bag (RFC 8493), once its digests were compared.

    It is what was found there: it may be malware.
    """
    invocation = Invocation.of(context)
    host, vm, found = _found(invocation, flag)
    with invocation.daemon(host) as daemon:
        packed = daemon.original(vm, found.id)
    _check(packed, found)
    file = file / f"original-{found.id}.tar" if file.is_dir() else file
    _write_new(file, packed)
    if as_json:
        say_json({"flag": found.id, "vm": vm, "host": host.name, "file": file, "bytes": len(packed)})
    else:
        say(f"✓ {file}: the original of flag {found.id[:8]} of {vm}, {found.original.digest}")


def _write_new(file: Path, packed: bytes) -> None:
    """Readable for its owner alone, whole or not at all. UsageError(kind="output")."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise _unwritable(file, error) from error
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.write(packed)
    except OSError as error:
        file.unlink(missing_ok=True)
        raise _unwritable(file, error) from error


def _unwritable(file: Path, error: OSError) -> UsageError:
    return UsageError(
        f"{file} cannot be written: {error.strerror}",
        kind="output",
        remedy="name a new file, where there is room",
    )


def _check(packed: bytes, flag: Flag) -> None:
    """IntegrityError(kind="bad-bag") unless it holds what the flag says."""
    from korora.model.identity import sha256
    from korora.wiring.bags import original_in

    if sha256(original_in(packed, flag.id)) != flag.original.digest:
        raise IntegrityError(
            f"the original that is kept of flag {flag.id[:8]} is not the one that the flag names",
            kind="bad-bag",
            remedy="keep both, and find out what changed it",
        )


def _flags(invocation: Invocation, vm: str | None = None) -> Told:
    """Of every host in reach (those of one VM), and why others are not told; these are named. The error when
    no host tells any."""
    told = Told([], [], [])
    hosts = invocation.asked()
    for host in hosts:
        try:
            with invocation.daemon(host) as daemon:
                of_host = daemon.flags()
        except KororaError as error:
            told.silent.append(error)
            continue
        told.found.extend((host, one.vm, one.flag) for one in of_host.flags if vm in {None, one.vm})
        told.unreadable.extend(_of(host, one) for one in of_host.unreadable if vm in {None, one.vm})
    if told.silent and len(told.silent) == len(hosts):
        raise told.silent[0]
    for why in (*told.silent, *told.unreadable):
        warn(error_text(why))
    told.found.sort(key=lambda one: (not one[2].is_open, -one[2].seen_at, one[2].id))
    return told


def _of(host: SiteHost, unreadable: Unreadable) -> KororaError:
    error = unreadable.error
    return error_of(error.exit_code, error.kind, f"{host.name}: {error.message}", error.remedy, None)


def _found(invocation: Invocation, name: str) -> Found:
    """The one flag of that name, or whose name begins so."""
    found = [one for one in _flags(invocation).found if one[2].id.startswith(name.lower())]
    if len(name) < PREFIX_MIN or len({one[2].id for one in found}) > 1:
        raise UsageError(
            f"{name[:40]!r} does not name one flag", kind="which-flag", remedy="give more digits of its name"
        )
    if not found:
        raise UsageError(
            f"no host in reach has a flag {name[:40]!r}",
            kind="unknown-flag",
            remedy="see: korora flags list --all",
        )
    return found[0]


def _object(host: SiteHost, vm: str, flag: Flag) -> dict[str, object]:
    return {"host": host.name, "vm": vm, "state": state(flag), "flag": flag}
