"""The site as configured on this machine: file, trust anchors, operator, daemons, ports."""

from __future__ import annotations

import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from korora import named_file
from korora.cli.diagnosis.symptom import Symptom
from korora.cli.invocation import Invocation
from korora.cli.unfolded import FOLD_BACK, not_in_disks
from korora.errors import KororaError
from korora.model.site import SiteConfiguration, SiteHost

_CONNECT_S = 2.0


def of_site(invocation: Invocation) -> Iterator[Symptom]:
    """What the configuration names, if there is one: a machine without one is ready for `korora lab up`."""
    try:
        site = invocation.site
    except KororaError as error:
        absent = error.kind == "no-config"
        yield Symptom("site", "configuration", False, error.message, error.remedy, needed=not absent)
        return
    yield Symptom("site", "configuration", True, site.origin)
    yield from _anchors(site)
    yield from _operator(site)
    for host in site.hosts.values():
        yield from _daemon(invocation, host)
        yield from _port(host)


def _anchors(site: SiteConfiguration) -> Iterator[Symptom]:
    yield _certificate("authority", site.authority)
    for path in site.manufacturers:
        yield _certificate("TPM manufacturer", path)
    if not site.manufacturers:
        yield _absent("TPM manufacturer", "manufacturers")
    if site.reference_values is None:
        yield _absent("reference values", "reference_values")
    else:
        yield _reference_values(site.reference_values)


def _certificate(what: str, path: Path | None) -> Symptom:
    if path is None:
        return _absent(what, what)
    import datetime

    from korora.policy.certificates import anchors_in

    try:
        certificates = anchors_in(named_file.read(path))
    except OSError as error:
        return Symptom("site", what, False, f"{path}: {error.strerror}", "put the certificate there, in PEM")
    except KororaError as error:
        return Symptom("site", what, False, f"{path}: {error.message}", "put the certificate there, in PEM")
    now = datetime.datetime.now(datetime.UTC)
    for one in certificates:
        if not one.not_valid_before_utc <= now <= one.not_valid_after_utc:
            until = f"{one.not_valid_before_utc:%Y-%m-%d} to {one.not_valid_after_utc:%Y-%m-%d}"
            return Symptom("site", what, False, f"{path}: valid from {until}", "replace it, or set the clock")
    return Symptom("site", what, True, str(path))


def _absent(what: str, key: str) -> Symptom:
    return Symptom(
        "site", what, False, "not configured: nothing can be verified offline", f"add {key} to [site]", False
    )


def _reference_values(path: Path) -> Symptom:
    from korora.policy import reference_values

    what = "reference values"
    try:
        reference_values.parse(named_file.read(path).decode())
    except OSError as error:
        return Symptom(
            "site", what, False, f"{path}: {error.strerror}", "correct the path, or its permissions"
        )
    except UnicodeDecodeError:
        return Symptom("site", what, False, f"{path}: it is not UTF-8 text", "is it the right file?")
    except KororaError as error:
        return Symptom("site", what, False, f"{path}: {error.message}", error.remedy)
    return Symptom("site", what, True, str(path))


def _operator(site: SiteConfiguration) -> Iterator[Symptom]:
    from korora.cli.migration.request import operator_key, operator_of

    try:
        operator = operator_of(site)
        operator_key(operator.key)
    except KororaError as error:
        yield Symptom(
            "site", "operator", False, error.message, error.remedy, needed=error.kind != "no-operator"
        )
        return
    open_to_others = operator.key.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    found = f"{operator.name}, key {operator.key}"
    if open_to_others:
        found += ": others may read it"
    yield Symptom("site", "operator", not open_to_others, found, f"chmod 600 {operator.key}", needed=False)


def _daemon(invocation: Invocation, host: SiteHost) -> Iterator[Symptom]:
    what = f"daemon of {host.name}"
    if host.api is None:
        yield Symptom("site", what, False, "not asked: no `api`", "ask it on its own machine", needed=False)
        return
    try:
        with invocation.daemon(host) as daemon:
            view, vms = daemon.host(deadline_s=10.0), daemon.vms()
    except KororaError as error:
        yield Symptom("site", what, False, error.message, error.remedy)
        return
    if view.name != host.name:
        found = f"{host.api} belongs to host {view.name!r}"
        yield Symptom("site", what, False, found, f"correct `api` of [hosts.{host.name}]")
        return
    yield Symptom("site", what, True, f"answers, version {view.version or 'unknown'}")
    for problem in view.problems:
        yield Symptom("site", f"files of {host.name}", False, problem.message, problem.remedy)
    for vm in vms:
        disks, trouble = f"disks of {vm.name} on {host.name}", vm.disks_trouble
        if vm.not_in_disks:
            yield Symptom("site", disks, False, not_in_disks(vm), FOLD_BACK)
        if trouble is not None:
            yield Symptom("site", disks, False, trouble.message, trouble.remedy)


def _port(host: SiteHost) -> Iterator[Symptom]:
    """Whether its port is reached from here; the hosts themselves may have another way to each other."""
    if host.address is None:
        return
    try:
        socket.create_connection((host.address.host, host.address.port), _CONNECT_S).close()
    except OSError as error:
        found = f"{host.address} is not reached from this machine ({error.strerror or error})"
        remedy = "see that it is reached from the other hosts; this command does not need it"
        yield Symptom("site", f"port of {host.name}", False, found, remedy, needed=False)
        return
    yield Symptom("site", f"port of {host.name}", True, f"{host.address} is reached")
