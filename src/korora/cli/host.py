"""`korora host`: the hosts of the site, and whether they can be trusted."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer

from korora.cli.invocation import Invocation
from korora.cli.options import AsJson, HostArgument, group
from korora.cli.render import error_object, error_text, fields, say, say_json, table, warn
from korora.errors import KororaError, RefusedError

if TYPE_CHECKING:
    from korora.cli.evidence.host import Appraised
    from korora.client.views import HostView
    from korora.model.site import SiteHost

app = group("The hosts of the site.")


@app.command("list")
def list_hosts(context: typer.Context, as_json: AsJson = False) -> None:
    """Every host of the configuration, and whether its daemon answers."""
    invocation = Invocation.of(context)
    hosts = [invocation.site.host(invocation.host)] if invocation.host else invocation.site.hosts.values()
    found = [(host, _asked(invocation, host)) for host in hosts]
    if as_json:
        say_json([_described(host, answer) for host, answer in found])
        return
    table(("HOST", "ADDRESS", "DAEMON", "VERSION"), [_row(host, answer) for host, answer in found])


@app.command()
def show(context: typer.Context, host: HostArgument = None, as_json: AsJson = False) -> None:
    """One host, as its daemon describes it."""
    invocation = Invocation.of(context)
    chosen = invocation.chosen(host)
    with invocation.daemon(chosen) as daemon:
        view = daemon.host()
    if as_json:
        say_json(_described(chosen, view))
    else:
        fields(_pairs(chosen, view))


@app.command()
def attest(context: typer.Context, host: HostArgument = None, as_json: AsJson = False) -> None:
    """Ask the host for evidence over a fresh nonce, and appraise it here.

    Exit code 0 when the host is trusted, 3 when it is not.
    """
    from korora.cli.evidence.host import appraise
    from korora.policy.appraisal import Trusted

    invocation = Invocation.of(context)
    chosen = invocation.chosen(host)
    with invocation.daemon(chosen) as daemon:
        found = appraise(invocation.site, chosen.name, daemon)
    if as_json:
        say_json(_appraisal(chosen, found))
    else:
        _show_appraisal(chosen, found)
    if not isinstance(found.verdict, Trusted):
        refusal = RefusedError(found.verdict.reason, kind=found.verdict.kind, remedy=found.verdict.remedy)
        warn(error_text(refusal))
        raise typer.Exit(refusal.exit_code)


@app.command()
def enroll(context: typer.Context, host: HostArgument = None, as_json: AsJson = False) -> None:
    """Have the site's authority vouch for the host's TPM and keys. Needs `authority_key` in [site]."""
    from korora.cli.evidence.host import enrol

    invocation = Invocation.of(context)
    chosen = invocation.chosen(host)
    with invocation.daemon(chosen) as daemon:
        certificate = enrol(invocation.site, chosen.name, daemon)
    if as_json:
        say_json({"host": chosen.name, "enrolled": True, "certificate": certificate})
    else:
        say(f"✓ {chosen.name} is enrolled: its attestation key lives in the TPM that its maker certified")


def _appraisal(host: SiteHost, found: Appraised) -> dict[str, object]:
    """For scripts: `error` as the command's own, None when the host is trusted."""
    import msgspec

    from korora.policy.appraisal import Trusted

    shown = {"host": host.name, "pcrs": found.pcrs, "events": found.events}
    if isinstance(found.verdict, Trusted):
        return {**shown, "trusted": True, "error": None, **msgspec.to_builtins(found.verdict, str_keys=True)}
    verdict = found.verdict
    error = RefusedError(verdict.reason, kind=verdict.kind, remedy=verdict.remedy)
    return {**shown, "trusted": False, "error": error_object(error)}


def _show_appraisal(host: SiteHost, found: Appraised) -> None:
    from korora.policy.appraisal import Trusted

    verdict = found.verdict
    if isinstance(verdict, Trusted):
        say(f"✓ {host.name} is trusted: state {verdict.platform.state!r}")
        until = datetime.fromtimestamp(verdict.enrolled_until, UTC)
        fields(
            [
                ("  Secure Boot", verdict.platform.secure_boot),
                ("  attestation key", verdict.ak_name),
                ("  endorsement certificate", verdict.ek_certificate),
                ("  enrolled until", f"{until:%Y-%m-%d %H:%M} UTC"),
            ]
        )
    else:
        say(f"✗ {host.name} is not trusted")
    for pcr in sorted(found.pcrs):
        say(f"  PCR {pcr:2}  {found.pcrs[pcr]}")
    for event in found.events:
        say(f"  booted: {event}")


def _asked(invocation: Invocation, host: SiteHost) -> HostView | KororaError:
    try:
        with invocation.daemon(host) as daemon:
            return daemon.host(deadline_s=10.0)
    except KororaError as error:
        return error


def _row(host: SiteHost, answer: HostView | KororaError) -> tuple[object, ...]:
    if isinstance(answer, KororaError):
        return host.name, host.address, answer.kind, None
    return host.name, host.address, "answers", answer.version


def _described(host: SiteHost, answer: HostView | KororaError) -> dict[str, object]:
    """A host for scripts: what is configured, what its daemon says, and why it says nothing."""
    import msgspec

    configured = {"host": host.name, "address": host.address and str(host.address), "api": host.api}
    if isinstance(answer, KororaError):
        return {**configured, "answers": False, "error": error_object(answer)}
    return {**configured, "answers": True, "error": None, **msgspec.to_builtins(answer)}


def _pairs(host: SiteHost, view: HostView) -> list[tuple[str, object]]:
    facts = view.hypervisor or {}
    return [
        ("name", view.name),
        ("address", host.address),
        ("listens at", view.listen),
        ("version", view.version),
        ("enrolled", view.enrolled),
        ("hypervisor", f"{facts.get('name', '')} {facts.get('version', '')}".strip()),
        ("accelerator", facts.get("accelerator")),
        ("", facts.get("accelerator_note")),
        ("swtpm", facts.get("swtpm_version")),
        ("TPM", "answers" if view.tpm_ok else view.tpm_trouble),
        ("VMs", ", ".join(f"{count} {state}" for state, count in view.vms.items())),
        ("arriving at one time", view.incoming_limit),
        ("log entries", view.log_size),
        *(("problem", f"{problem.message} ({problem.remedy})") for problem in view.problems),
    ]
