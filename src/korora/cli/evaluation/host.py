"""Evidence of one host, from what its daemon answered and what was judged here of it. Asks nobody."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import Final

from korora.cli.evaluation.gathering import line_of
from korora.cli.evidence.log import Verified
from korora.client.views import HostView, QuestionView, VmView
from korora.model.ownership import Status
from korora.model.question import Stage
from korora.model.site import SiteConfiguration, SiteHost
from korora.policy.appraisal import Trusted, Untrusted
from korora.policy.evaluation.evidence import Finding, Link, Place, Standing
from korora.policy.evaluation.installation import ENROLMENT_GOOD_S

_GOOD, _PARTLY, _LACKING, _BROKEN = Standing.GOOD, Standing.PARTLY, Standing.LACKING, Standing.BROKEN
_ASKED: Final = frozenset({Status.IN_DOUBT, Status.ORPHANED, Status.FENCED})  # a person must decide
_COMPARED: Final = "trusted"
_FIRST: Final = "learned"
_SECURE_BOOT: Final = {True: "on", False: "off", None: "its boot log does not say"}


def wrong_host(host: SiteHost, name: str) -> Finding:
    found = f"the daemon at {host.api} is that of host {name!r}"
    return _about(
        host, "answers", _LACKING, found, "korora host show", f"correct `api` of [hosts.{host.name}]"
    )


def described(host: SiteHost, view: HostView) -> Iterator[Finding]:
    show = "korora host show"
    yield _about(host, "answers", _GOOD, f"answers, version {view.version or 'unknown'}", show)
    problems = "; ".join(problem.message for problem in view.problems)
    remedies = "; ".join(problem.remedy for problem in view.problems)
    yield _about(
        host, "files", _LACKING if problems else _GOOD, problems or "uses all of them", show, remedies
    )
    if view.tpm_ok is not None:
        found = "answers" if view.tpm_ok else view.tpm_trouble or "does not answer"
        yield _about(host, "tpm", _GOOD if view.tpm_ok else _LACKING, found, show)
    facts = view.hypervisor or {}
    if "accelerator" in facts:
        standing = _GOOD if facts["accelerator"] == "kvm" else _PARTLY
        found = f"{facts['accelerator']}: {facts.get('accelerator_note') or 'seen to work'}"
        yield _about(host, "accelerator", standing, found, show)


def attested(
    host: SiteHost, verdict: Trusted | Untrusted, site: SiteConfiguration, now: float
) -> Iterator[Finding]:
    attest = "korora host attest"
    if not isinstance(verdict, Trusted):
        yield _about(host, "trusted", _LACKING, verdict.reason, attest, verdict.remedy)
        return
    state = line_of(site.reference_values, f'"{verdict.platform.state}"')
    found = f"in the trusted state {verdict.platform.state!r}"
    yield _about(host, "trusted", _GOOD, found, attest, links=state)
    standing = _GOOD if verdict.enrolled_until - now > ENROLMENT_GOOD_S else _PARTLY
    until = datetime.fromtimestamp(verdict.enrolled_until, UTC)
    yield _about(host, "enrolment", standing, f"until {until:%Y-%m-%d}", attest)
    secure = verdict.platform.secure_boot
    yield _about(host, "secure-boot", _GOOD if secure else _LACKING, _SECURE_BOOT[secure], attest)


def logged(host: SiteHost, verified: Verified, *, enrolled: bool) -> Finding:
    verify = "korora log verify"
    if not enrolled:
        found = "nobody vouches for its log: it is not enrolled"
        return _about(host, "log", _LACKING, found, verify, f"korora host enroll {host.name}")
    found = "; ".join(f"{check.name}: {check.detail}" for check in verified.checks)
    if any(check.ok is False for check in verified.checks):
        remedy = "keep the log and its heads: they are the evidence; find out who changed the history"
        return _about(host, "log", _BROKEN, found, verify, remedy)
    seen_before = all(check.ok for check in verified.checks)
    return _about(host, "log", _GOOD if seen_before else _PARTLY, found, verify)


def running(host: SiteHost, views: list[VmView]) -> Iterator[Finding]:
    """Of the VMs that it owns."""
    own, listed = [view for view in views if view.owned], f"korora -H {host.name} vm list"
    without = [view.name for view in own if not view.vtpm]
    standing = _GOOD if not without else _LACKING if len(without) == len(own) else _PARTLY
    found = f"none in {', '.join(without)}" if without else f"{len(own)} of {len(own)} have one"
    yield Finding("vtpms", standing, found, _command(listed), host.name)
    words = [(view.name, view.boot.verdict if view.boot is not None else "unmeasured") for view in own]
    found = "; ".join(f"{name}: {word}" for name, word in words) or "it owns no VM"
    yield Finding("boots", _boots({word for _, word in words}), found, _command(listed), host.name)


def owning(host: str, views: list[VmView], twice: AbstractSet[str]) -> Finding:
    """`twice` are the VMs that several hosts own."""
    listed = _command("korora vm list")
    double = sorted(view.name for view in views if view.owned and view.name in twice)
    if double:
        found = f"another host owns as well: {', '.join(double)}"
        remedy = "stop one of the two by hand, and keep both hosts' journals: they are the evidence"
        return Finding("owners", _BROKEN, found, listed, host, remedy)
    asked = sorted(view.name for view in views if view.ownership in _ASKED)
    if asked:
        found = f"a person must decide about: {', '.join(asked)}"
        return Finding("owners", _PARTLY, found, listed, host, "bring the other host back, or decide")
    owned = sum(view.owned for view in views)
    return Finding("owners", _GOOD, f"owns {owned} VMs, each of them alone", listed, host)


def asking(host: SiteHost, questions: Sequence[QuestionView]) -> Finding:
    waiting = [question.matter for question in questions if question.stage == Stage.OPEN]
    found = "; ".join(waiting) or "none is open"
    listed = _command(f"korora -H {host.name} question list")
    return Finding("questions", _PARTLY if waiting else _GOOD, found, listed, host.name)


def unread_log(host: SiteHost, message: str, remedy: str) -> Finding:
    """What is remembered of it here cannot be read."""
    return _about(host, "log", _BROKEN, message, "korora log verify", remedy)


def _boots(words: AbstractSet[str]) -> Standing:
    if words <= {_COMPARED}:
        return _GOOD
    return _PARTLY if words <= {_COMPARED, _FIRST} else _LACKING


def _about(
    host: SiteHost,
    fact: str,
    standing: Standing,
    found: str,
    command: str,
    remedy: str = "",
    links: tuple[Link, ...] = (),
) -> Finding:
    return Finding(fact, standing, found, (*_command(f"{command} {host.name}"), *links), host.name, remedy)


def _command(words: str) -> tuple[Link, ...]:
    return (Link(Place.COMMAND, words),)
