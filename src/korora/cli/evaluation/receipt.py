"""Evidence of one migration: what its receipt shows to somebody who trusts neither host. Asks no daemon.

Promise: whatever the file holds, there is an answer. The checks are those of `korora receipt verify`; what a
receipt only says counts where the checks it rests on hold (`policy.evaluation`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from korora.cli.evaluation.gathering import Gathered, line_of
from korora.cli.evaluation.inside import of_inside
from korora.cli.evidence.checks import Check
from korora.cli.evidence.receipt import Claims, claims, judged
from korora.errors import KororaError
from korora.model.identity import OperatorName, sha256
from korora.model.plan import Mode
from korora.model.site import SiteConfiguration
from korora.policy.evaluation import migration
from korora.policy.evaluation.evidence import Finding, Kind, Link, Place, Standing, Target, filed
from korora.policy.precheck import PRECHECKS
from korora.protocol.receipt.document import Limit

_COMPARED: Final = "trusted"  # of supervision.boots: the guest booted as it first did
_FIRST: Final = "learned"
_GOOD, _PARTLY, _LACKING, _BROKEN = Standing.GOOD, Standing.PARTLY, Standing.LACKING, Standing.BROKEN


def examined(
    data: bytes,
    where: str,
    site: SiteConfiguration,
    operators: Mapping[OperatorName, bytes],
    path: Path | None = None,
) -> Gathered:
    """Judge the receipt `data`, found at `where` (the file `path`, if it is on this machine).

    UsageError when the site's anchors cannot be used.
    """
    checks = judged(data, site, operators)
    told = _read(data)
    file = Link(Place.RECEIPT, f"{where} ({sha256(data)})", str(path.absolute()) if path is not None else "")
    findings = [_of_check(check, told, file) for check in checks]
    if told is not None:
        findings += _of_words(told, file)
        findings = [_with_configuration(finding, told, site) for finding in findings]
    return Gathered(_target(told, where), filed(findings), _process(data, where, checks, site))


def _read(data: bytes) -> Claims | None:
    try:
        return claims(data)
    except KororaError:
        return None


def _target(told: Claims | None, where: str) -> Target:
    if told is None:
        return Target(Kind.MIGRATION, f"the migration of {where}")
    receipt = told.receipt
    name = f"{receipt.vm} from {receipt.source} to {receipt.destination}, session {receipt.session[:16]}…"
    return Target(Kind.MIGRATION, name)


def _process(data: bytes, where: str, checks: list[Check], site: SiteConfiguration) -> tuple[str, ...]:
    failed = sum(check.ok is False for check in checks)
    return (
        f"read {where}, {len(data)} bytes, {sha256(data)}",
        f"judged it by the trust anchors of {site.origin}, asking no host",
        f"made the {len(checks)} checks of `korora receipt verify`; {failed or 'none'} failed",
    )


# -- what can be checked ------------------------------------------------------------------------------------


def _of_check(check: Check, told: Claims | None, file: Link) -> Finding:
    links = (
        file,
        Link(Place.CHECK, check.name),
        *_statement(check.name, told),
    )
    if check.ok is False:
        remedy = "believe nothing of it that depends on this; ask the other host for its copy"
        return Finding(check.name, _BROKEN, check.detail, links, remedy=remedy)
    return Finding(check.name, _standing(check.name, told), check.detail, links)


def _standing(name: str, told: Claims | None) -> Standing:
    """Of a check that held: the receipt may have admitted that there was nothing to check."""
    if told is None:
        return _GOOD
    match name:
        case "clean-memory":
            unproved = told.receipt.clean_memory is None and Limit.MEMORY_NOT_PROVED in told.receipt.limits
            return _LACKING if unproved else _GOOD
        case "wipe":
            return _GOOD if told.receipt.wipe.steps else _LACKING
        case "vtpm-key":
            return _GOOD if told.receipt.wrapping is not None else _of_vtpm(told)
        case "vtpm-identity":
            sent = told.manifest.carried
            return _GOOD if sent.vtpm is not None and sent.blobs is not None else _of_vtpm(told)
        case _:
            return _GOOD


def _of_vtpm(told: Claims) -> Standing:
    return _PARTLY if Limit.VTPM_IN_STREAM in told.receipt.limits else _LACKING


def _statement(name: str, told: Claims | None) -> tuple[Link, ...]:
    """The signed statement, or the log's entry, that the check is about."""
    if told is None:
        return ()
    signed = told.receipt.ownership
    match name:
        case "request":
            return (Link(Place.STATEMENT, f"request {sha256(told.receipt.request)}"),)
        case "arrival" | "vtpm-identity":
            return (
                Link(Place.STATEMENT, f"manifest {sha256(signed.manifest)}"),
                Link(Place.STATEMENT, f"acceptance {sha256(signed.accept)}"),
            )
        case "ownership":
            return (
                Link(Place.STATEMENT, f"release {sha256(signed.release)}"),
                Link(Place.STATEMENT, f"running {sha256(signed.running)}"),
            )
        case "source-log" | "destination-log":
            place = 0 if name == "source-log" else 1
            return tuple(
                Link(Place.LOG, f"{host}: entry {index} of {head.size}")
                for host, index, head in told.logs[place : place + 1]
            )
        case _:
            return ()


def _with_configuration(finding: Finding, told: Claims, site: SiteConfiguration) -> Finding:
    """The line by which the site believes it."""
    if finding.standing is not _GOOD:
        return finding
    match finding.fact:
        case "request":
            links = line_of(site.authorization, f"[operators.{told.request.operator}]")
        case "source-attestation" | "destination-attestation":
            links = _state(finding, site)
        case _:
            links = ()
    return Finding(finding.fact, finding.standing, finding.found, (*finding.links, *links))


def _state(finding: Finding, site: SiteConfiguration) -> tuple[Link, ...]:
    """The reference state that the quote was found to be in."""
    from korora.cli.evidence.anchors import trust_anchors

    names = [
        state.name for state in trust_anchors(site).reference.states if repr(state.name) in finding.found
    ]
    return line_of(site.reference_values, f'"{names[0]}"') if names else ()


# -- what it says -------------------------------------------------------------------------------------------


def _of_words(told: Claims, file: Link) -> Iterator[Finding]:
    manifest = Link(Place.STATEMENT, f"manifest {sha256(told.receipt.ownership.manifest)}")
    request = Link(Place.STATEMENT, f"request {sha256(told.receipt.request)}")
    yield _prechecks(told, file)
    yield _short_lived(told, request)
    yield _wipe_limits(told, file)
    yield _guest_boot(told, file)
    yield _live(told, file)
    if told.receipt.timings.downtime_ms is not None:
        yield _downtime(told.receipt.timings.downtime_ms, file)
    yield _definition(told, manifest)
    yield from of_inside(told.receipt, file)


def _prechecks(told: Claims, file: Link) -> Finding:
    made = told.receipt.prechecks
    missing = [name for name in PRECHECKS if name not in made]
    if not missing:
        return Finding("prechecks", _GOOD, f"made: {', '.join(made)}", (file,))
    return Finding("prechecks", _PARTLY if made else _LACKING, f"not made: {', '.join(missing)}", (file,))


def _short_lived(told: Claims, request: Link) -> Finding:
    lived_s = told.request.not_after - told.request.issued_at
    good = 0 <= lived_s <= migration.REQUEST_GOOD_S
    return Finding(
        "short-lived", _GOOD if good else _PARTLY, f"the request was valid for {lived_s} s", (request,)
    )


def _wipe_limits(told: Claims, file: Link) -> Finding:
    limits = told.receipt.wipe.limits
    found = "; ".join(limits) or "the certificate names no exception"
    return Finding("wipe-limits", _PARTLY if limits else _GOOD, found, (file,))


def _guest_boot(told: Claims, file: Link) -> Finding:
    boot = told.receipt.guest_boot
    if boot is None:
        return Finding("guest-boot", _LACKING, "no boot of the guest was measured", (file,))
    standing = {_COMPARED: _GOOD, _FIRST: _PARTLY}.get(boot.verdict, _LACKING)
    return Finding("guest-boot", standing, "; ".join((boot.verdict, *boot.findings)), (file,))


def _live(told: Claims, file: Link) -> Finding:
    mode = told.receipt.mode
    return Finding("live", _GOOD if mode is Mode.LIVE else _PARTLY, f"it moved {mode}", (file,))


def _downtime(downtime_ms: int, file: Link) -> Finding:
    standing = (
        _GOOD
        if downtime_ms <= migration.DOWNTIME_GOOD_MS
        else _PARTLY
        if downtime_ms <= migration.DOWNTIME_PARTLY_MS
        else _LACKING
    )
    return Finding("downtime", standing, f"it stood still for {downtime_ms} ms", (file,))


def _definition(told: Claims, manifest: Link) -> Finding:
    digest = told.manifest.files.get("definition")
    if digest is None:
        return Finding("definition", _LACKING, "the manifest names no definition", (manifest,))
    return Finding("definition", _GOOD, f"both hosts hold the definition {digest}", (manifest,))
