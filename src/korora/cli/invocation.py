"""What stood before the command (`-H`, `--config`, `--debug`), and the site and daemons that follow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from korora.errors import KororaError, ToolError, UsageError

if TYPE_CHECKING:
    from korora.client import Daemon
    from korora.client.views import VmView
    from korora.model.site import SiteConfiguration, SiteHost


@dataclass(frozen=True)
class Invocation:
    """One run of the command. The configuration is read when a command first needs it."""

    host: str | None = None
    config: Path | None = None
    debug: bool = False

    @classmethod
    def of(cls, context: typer.Context) -> Invocation:
        found = context.find_object(cls)
        return found if found is not None else cls()

    @cached_property
    def site(self) -> SiteConfiguration:
        from korora.cli.site import load_site

        return load_site(self.config)

    def chosen(self, argument: str | None = None) -> SiteHost:
        """The one host a command is about: its argument, `-H`, or the only one whose daemon is in reach."""
        if argument and self.host and argument != self.host:
            raise UsageError(
                f"-H says {self.host!r}, the command says {argument!r}",
                kind="which-host",
                remedy="name the host once",
            )
        named = argument or self.host
        if named:
            return self.site.host(named)
        near = [host for host in self.site.hosts.values() if host.api]
        if len(near) == 1:
            return near[0]
        names = ", ".join(host.name for host in near) or "none in the configuration has an `api`"
        raise UsageError("it is not said which host", kind="which-host", remedy=f"give -H HOST ({names})")

    def asked(self) -> list[SiteHost]:
        """The hosts that a question without a host goes to: the one of `-H`, or all in reach."""
        if self.host:
            return [self.site.host(self.host)]
        near = [host for host in self.site.hosts.values() if host.api]
        if not near:
            raise UsageError(
                f"no host in {self.site.origin} has an `api` socket",
                kind="no-hosts",
                remedy='add a table such as [hosts.a] with address = "ip:port" and api = "socket"',
            )
        return near

    def daemon(self, host: SiteHost) -> Daemon:
        """A client of that host's daemon; opens no connection yet."""
        from korora.client import Daemon

        if host.api is None:
            raise UsageError(
                f"the daemon of host {host.name!r} cannot be asked from here",
                kind="no-api",
                remedy=f"add `api` (its unix socket) to [hosts.{host.name}] in {self.site.origin}",
            )
        return Daemon(host.api, host.name)

    def survey(self) -> Iterator[tuple[SiteHost, list[VmView] | KororaError]]:
        """Each asked host with its VMs, or with why it did not answer."""
        for host in self.asked():
            try:
                with self.daemon(host) as daemon:
                    yield host, daemon.vms()
            except ToolError as error:
                yield host, error

    def find(self, vm: str) -> tuple[SiteHost, VmView]:
        """Where that VM is: at its owner, of those asked. UsageError(kind="unknown-vm") when nowhere."""
        seen: list[tuple[SiteHost, VmView]] = []
        silent: list[KororaError] = []
        for host, answer in self.survey():
            if isinstance(answer, KororaError):
                silent.append(answer)
            else:
                seen += [(host, view) for view in answer if view.name == vm]
        if seen:
            return max(seen, key=_claim)
        if silent:
            raise ToolError(
                f"VM {vm!r} is on no host that answered; {silent[0].message}",
                kind=silent[0].kind,
                remedy=silent[0].remedy,
            )
        where = ", ".join(host.name for host in self.asked())
        raise UsageError(
            f"there is no VM {vm!r} (asked: {where})",
            kind="unknown-vm",
            remedy="`korora vm list` shows what there is",
        )


def _claim(found: tuple[SiteHost, VmView]) -> tuple[bool, int]:
    """Owners first, and of those the latest: an earlier one lost a decision and has not heard of it yet."""
    view = found[1]
    return view.owned, view.epoch
