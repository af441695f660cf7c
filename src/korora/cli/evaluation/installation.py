"""Evidence of an installation: what its daemons, their logs and the site's files show, asked from here.

Promise: a host that is silent leaves gaps, and keeps no other from being looked at. As `korora log verify`
does, it remembers the head of each log that holds. Limit: clock and programs are looked at on this machine
alone; of the others there is what their daemons say.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from korora.cli.evaluation import history
from korora.cli.evaluation import host as one_host
from korora.cli.evaluation.gathering import Gathered
from korora.cli.evaluation.site import of_authorization, of_machine
from korora.cli.evidence import log
from korora.cli.evidence.anchors import operators_of, trust_anchors
from korora.cli.evidence.host import appraise
from korora.cli.invocation import Invocation
from korora.client import Daemon
from korora.client.views import HostView, VmView
from korora.errors import IntegrityError, KororaError
from korora.model.identity import OperatorName
from korora.model.site import SiteHost
from korora.policy.evaluation.evidence import Finding, Kind, Target, filed


def surveyed(invocation: Invocation, named: str | None) -> Gathered:
    """The host of that name, or all of the site. The first host's error when no daemon answers at all.

    UsageError when the site's anchors or operators cannot be read.
    """
    site = invocation.site
    one = invocation.chosen(named) if named or invocation.host else None
    hosts = list(site.hosts.values()) if one is None else [one]
    for host in invocation.asked() if one is None else [one]:
        invocation.daemon(host).close()  # UsageError when none is in reach
    trust_anchors(site)  # what cannot be read is told before anybody is asked
    survey = _Survey(invocation, operators_of(site))
    survey.process.append(f"read the trust anchors and operators that {site.origin} names")
    findings = [finding for host in hosts for finding in survey.of(host)]
    if survey.silent and not survey.answered:
        raise survey.silent[0]
    findings += [*survey.owners(), *of_machine(invocation), *of_authorization(site, survey.operators)]
    survey.process.append("looked over this machine, as `korora doctor` does")
    survey.process.append("checked the site's policies here, and tried its examples on them")
    name = f"site {site.name}" if one is None else f"host {one.name} of site {site.name}"
    target = Target(Kind.INSTALLATION, name, tuple(host.name for host in hosts))
    return Gathered(target, filed(findings), tuple(survey.process))


@dataclass
class _Survey:
    """The hosts that were asked so far. `views` are the VMs of those that told of them."""

    invocation: Invocation
    operators: Mapping[OperatorName, bytes]
    process: list[str] = field(default_factory=list)
    silent: list[KororaError] = field(default_factory=list)
    answered: set[str] = field(default_factory=set)
    views: dict[str, list[VmView]] = field(default_factory=dict)

    def of(self, host: SiteHost) -> Iterator[Finding]:
        """Everything of one host, as far as it answers."""
        if host.api is None:
            self.process.append(f"did not ask {host.name}: the configuration names no `api` for it")
            return
        with self.invocation.daemon(host) as daemon:
            try:
                view = daemon.host()
            except KororaError as error:
                self._unanswered(host, "anything", error)
                return
            self.answered.add(host.name)
            if view.name != host.name:
                yield one_host.wrong_host(host, view.name)
                return
            yield from one_host.described(host, view)
            yield from self._all(host, daemon, view)

    def _all(self, host: SiteHost, daemon: Daemon, view: HostView) -> Iterator[Finding]:
        """One thing that cannot be had keeps no other from being looked at."""
        steps = {
            "a fresh quote": self._quote(host, daemon),
            "its log and newest receipts": self._log(host, daemon, view),
            "its VMs": self._vms(host, daemon),
            "its questions": self._questions(host, daemon),
        }
        for what, step in steps.items():
            try:
                yield from step
            except KororaError as error:
                self._unanswered(host, what, error)
            else:
                self.process.append(f"asked {host.name} for {what}")

    def _unanswered(self, host: SiteHost, what: str, error: KororaError) -> None:
        self.silent.append(error)
        self.process.append(f"could not ask {host.name} for {what}: {error.message}")

    def _quote(self, host: SiteHost, daemon: Daemon) -> Iterator[Finding]:
        site = self.invocation.site
        yield from one_host.attested(host, appraise(site, host.name, daemon).verdict, site, time.time())

    def _log(self, host: SiteHost, daemon: Daemon, view: HostView) -> Iterator[Finding]:
        site = self.invocation.site
        try:
            verified = log.verify(site, host.name, daemon)
        except IntegrityError as error:
            yield one_host.unread_log(host, error.message, error.remedy)
            return
        yield one_host.logged(host, verified, enrolled=view.enrolled is not False)
        if all(check.ok is not False for check in verified.checks):
            told = history.History.of(host.name, verified.leaves)
            yield from history.findings(told, daemon, site, self.operators)

    def _vms(self, host: SiteHost, daemon: Daemon) -> Iterator[Finding]:
        self.views[host.name] = daemon.vms()
        yield from one_host.running(host, self.views[host.name])

    def _questions(self, host: SiteHost, daemon: Daemon) -> Iterator[Finding]:
        yield one_host.asking(host, daemon.questions())

    def owners(self) -> Iterator[Finding]:
        """Held against all hosts that answered: two owners are seen only by who asks both."""
        owned = Counter(view.name for views in self.views.values() for view in views if view.owned)
        twice = {name for name, count in owned.items() if count > 1}
        for host, views in self.views.items():
            yield one_host.owning(host, views, twice)
