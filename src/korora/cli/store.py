"""`korora store`: what this host has already, so that a migration need not send it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from korora.cli.hostd import DEFAULT, read_configuration
from korora.cli.inspection.image import Allowed, Declared, shown
from korora.cli.options import AsJson, group
from korora.cli.render import fields, mark, say, say_json, size, table, warn
from korora.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from korora.model.store_settings import StoreSettings
    from korora.model.stored import Added, Scope
    from korora.ports.content_store import ContentStore

app = group("The content store of this host: what need not be sent again.")
StoreFolder = Annotated[
    Path | None, typer.Option("--store", metavar="FOLDER", help="The store; default: what hostd.toml says.")
]
Hostd = Annotated[Path, typer.Option("--hostd", metavar="FILE", help="The host's configuration.")]
Shared = Annotated[bool, typer.Option("--shared", help="For every tenant's VMs.")]
Tenant = Annotated[str | None, typer.Option("--tenant", metavar="NAME", help="For this tenant's VMs alone.")]


@app.command()
def stat(store: StoreFolder = None, hostd: Hostd = DEFAULT, as_json: AsJson = False) -> None:
    """How much there is, for whom, and how often something in it was not what it should be."""
    settings = _settings(store, hostd)
    with _opened(settings) as there:
        stats = there.stat()
    if as_json:
        bounds = asdict(settings.bounds)
        rows = [asdict(one) | {"scope": one.scope.folder, "tenant": one.scope.tenant} for one in stats]
        say_json({"store": settings.folder, "bounds": bounds, "scopes": rows})
        return
    table(
        ("FOR", "FILES", "KEPT", "PARTS", "COPIES", "INDEX", "CHANGED", "GONE", "ROTTED", "REBUILT"),
        [
            (
                *(one.scope, one.origins - one.kept, one.kept, one.entries, size(one.size)),
                *(size(one.index_size), one.changed, one.gone, one.rotted, one.rebuilt),
            )
            for one in stats
        ],
    )
    say(f"\nat most {size(settings.bounds.bytes)} of copies and {settings.bounds.entries} parts for each")


@app.command("list")
def list_(
    shared: Shared = False,
    tenant: Tenant = None,
    store: StoreFolder = None,
    hostd: Hostd = DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Where its content comes from: files of this host, and what was kept. Those used last come first."""
    with _opened(_settings(store, hostd)) as there:
        found = [one for scope in _asked(there, shared, tenant) for one in there.origins(scope)]
    if as_json:
        say_json({"origins": [asdict(one) | {"scope": one.scope.folder} for one in found]})
        return
    rows = [
        (
            *(one.scope, one.number, one.kind, one.entries, size(one.size) if one.size else ""),
            *(_when(one.used_at), one.path),
        )
        for one in found
    ]
    table(("FOR", "NUMBER", "KIND", "PARTS", "COPIES", "USED", "WHAT"), rows)


@app.command()
def add(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="A disk image or a disk of this host.")],
    shared: Shared = False,
    tenant: Tenant = None,
    copied: Annotated[
        bool,
        typer.Option("--keep", help="Keep copies of what a guest sees: the image may go, or be compressed."),
    ] = False,
    declared: Declared = None,
    allow: Allowed = None,
    store: StoreFolder = None,
    hostd: Hostd = DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Make an image's content known, for one tenant's VMs or for everybody's.

    Without --keep nothing is copied: its bytes are read where they lie, and compared each time; a VM may run
    on it. Exit code 0, also when a bound left no room for all of it, which is said.
    """
    from korora.wiring import content_store
    from korora.wiring.images import looked_at

    scope = _one(shared, tenant)
    if not copied and (declared is not None or allow):
        raise UsageError(
            "--format and --allow say how an image is to be read, which is done with --keep alone",
            kind="usage",
            remedy="leave them out: an image that is not copied is not interpreted",
        )
    with _opened(_settings(store, hostd), made=True) as there, shown(quiet=as_json) as tell:
        if copied:
            added = content_store.keep(there, scope, looked_at(image, declared, allow or ()), tell)
        else:
            added = content_store.refer(there, scope, image, tell)
    _say_added(added, image, scope, as_json=as_json)


@app.command()
def verify(
    shared: Shared = False,
    tenant: Tenant = None,
    store: StoreFolder = None,
    hostd: Hostd = DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Read all of it, and drop what is not what it should be.

    Exit code 5 when a copy of the store's own rotted; that a VM's disk changed is nothing unusual.
    """
    with _opened(_settings(store, hostd)) as there:
        found = [there.verify(scope) for scope in _asked(there, shared, tenant)]
    rotted = any(one.rotted for one in found)
    if as_json:
        say_json(
            {"sound": not rotted, "scopes": [asdict(one) | {"scope": one.scope.folder} for one in found]}
        )
    for one in [] if as_json else found:
        changes = f"{one.changed} changed, {one.gone} files gone, {len(one.rotted)} copies rotted"
        say(f"{mark(not one.rotted)} {one.scope}: {one.sound} parts are sound; {changes}")
        for name in one.rotted:
            say(f"  {name}")
    if rotted and not as_json:
        warn("copies rotted, and were removed: the storage below the store fails, or somebody wrote to it")
    raise typer.Exit(ExitCode.INTEGRITY if rotted else ExitCode.DONE)


@app.command()
def collect(
    shared: Shared = False,
    tenant: Tenant = None,
    store: StoreFolder = None,
    hostd: Hostd = DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Take away what nothing needs any more and, beyond the bounds, what was used least recently."""
    with _opened(_settings(store, hostd)) as there:
        found = [there.collect(scope) for scope in _asked(there, shared, tenant)]
    if as_json:
        say_json({"scopes": [asdict(one) | {"scope": one.scope.folder} for one in found]})
        return
    for one in found:
        say(
            f"{one.scope}: {one.origins} files and copies, {one.entries} parts, {size(one.size)},"
            f" {one.leftovers} leftovers"
        )


@app.command()
def forget(
    number: Annotated[int, typer.Argument(metavar="NUMBER", help="As `korora store list` shows it.")],
    shared: Shared = False,
    tenant: Tenant = None,
    store: StoreFolder = None,
    hostd: Hostd = DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Take one file's or template's content out of it. The file itself stays."""
    scope = _one(shared, tenant)
    with _opened(_settings(store, hostd)) as there:
        if not there.forget(scope, number):
            raise UsageError(
                f"there is no number {number} for {scope}",
                kind="unknown-origin",
                remedy="`korora store list` shows what there is",
            )
    say_json({"forgotten": number}) if as_json else say(f"✓ {number} is forgotten")


# -- inside ------------------------------------------------------------------------------------------------


def _settings(folder: Path | None, hostd: Path) -> StoreSettings:
    from korora.model.store_settings import NAME, StoreSettings

    if folder is not None:
        return StoreSettings(folder.absolute())
    configuration = read_configuration(hostd)
    return configuration.store or StoreSettings(configuration.state / NAME)


@contextmanager
def _opened(settings: StoreSettings, *, made: bool = False) -> Iterator[ContentStore]:
    from korora.wiring.content_store import opened

    with opened(settings, made=made) as store:
        yield store


def _one(shared: bool, tenant: str | None) -> Scope:
    """Never by default: what is shared, everybody can find out to be here."""
    from korora.model.stored import scope_of

    if shared == (tenant is not None):
        raise UsageError(
            "it is not said whose content it is",
            kind="usage",
            remedy="give --tenant NAME, or --shared for what every tenant may know to be here",
        )
    return scope_of(tenant)


def _asked(store: ContentStore, shared: bool, tenant: str | None) -> list[Scope]:
    """The one that was named, or all that there are."""
    return [_one(shared, tenant)] if shared or tenant is not None else [one.scope for one in store.stat()]


def _say_added(added: Added, image: Path, scope: Scope, *, as_json: bool) -> None:
    if as_json:
        say_json(asdict(added) | {"image": image, "scope": scope.folder})
        return
    fields(
        [
            ("image", image),
            ("for", scope),
            ("number", added.origin),
            ("parts", added.entries),
            ("copies", size(added.size) if added.size else None),
        ]
    )
    if not added.complete:
        warn("not all of it: a bound of [store] in hostd.toml left no room")


def _when(seconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
