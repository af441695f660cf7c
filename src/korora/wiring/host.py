"""The one place that picks adapters and puts a host together.

Promise: nothing else knows which technology serves which port. Limit: builds; decides nothing.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Final, Protocol

from korora.adapters.authorization.files import FOLDER, FileAuthorizer
from korora.adapters.channel import tls
from korora.adapters.channel.listener import Listener
from korora.adapters.channel.reception import TicketReception
from korora.adapters.hypervisor.qemu import Qemu
from korora.adapters.image.qemu_nbd import QemuImages
from korora.adapters.inspector.process import ProcessInspector
from korora.adapters.journal.sqlite import SqliteJournal
from korora.adapters.premises.kept import LocalKeptDisks
from korora.adapters.premises.local import LocalPremises
from korora.adapters.store.store import FolderStore
from korora.adapters.tpm.esys import EsysTpm
from korora.adapters.vtpm.swtpm import Swtpm
from korora.agents.vtpm.custody import Custody
from korora.errors import UsageError
from korora.migration.service import Migrations
from korora.migration.setting import Setting
from korora.model.configuration import HostConfiguration
from korora.model.evidence import HostEvidence
from korora.model.identity import HostName
from korora.model.store_settings import NAME as STORE
from korora.model.store_settings import StoreSettings
from korora.policy.appraisal import Presented, Trusted, Untrusted
from korora.policy.storage import StorageRule
from korora.ports.channel import Channel
from korora.ports.clock import SystemClock
from korora.protocol.host_appraisal import appraise_host
from korora.supervision.archive import HostLog, Receipts
from korora.supervision.boots.appraiser import GuestBootAppraiser
from korora.supervision.contents import StoreContents
from korora.supervision.guests import Guests
from korora.supervision.heat.watching import HeatWatch
from korora.supervision.inspection.examiner import Examiner
from korora.supervision.inspection.resolving import Resolver
from korora.supervision.inspection.service import Inspections
from korora.supervision.kept import KeptExpiry
from korora.wiring.anchors import SiteAnchors, SiteFiles
from korora.wiring.content_store import refer
from korora.wiring.identity import HostIdentity
from korora.wiring.inspection.rules import InspectionRules

DATA_CONNECT_DEADLINE_S: Final = 15.0


class Closable(Protocol):
    def close(self) -> None: ...


class Startable(Protocol):
    async def start(self) -> None: ...
    async def stop(self) -> None: ...


@dataclass(frozen=True, slots=True)
class HostServices:
    """What the API speaks to."""

    configuration: HostConfiguration
    guests: Guests
    inspections: Inspections
    heat: HeatWatch
    kept: LocalKeptDisks
    migrations: Migrations
    attestation: HostIdentity
    enrolment: HostIdentity
    receipts: Receipts
    log: HostLog
    operators: FileAuthorizer
    files: SiteFiles


@dataclass(frozen=True, slots=True)
class WiredHost:
    services: HostServices
    listeners: Sequence[Startable]


async def wire_host(configuration: HostConfiguration) -> WiredHost:
    """Put one host together. KororaError when a file it needs is missing or wrong."""
    state, clock, anchors = configuration.state, SystemClock(), SiteAnchors(configuration.site)
    anchors.all()  # better said now than in the middle of a migration
    authorizer = FileAuthorizer(configuration.authorization)
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    journal = SqliteJournal(state / "journal.db")
    tpm = EsysTpm(configuration.tpm)
    own = HostIdentity(
        configuration.name, tpm, state / "identity", configuration.event_log, anchors.authority
    )
    await own.load()
    hypervisor = Qemu(state / "cache", configuration.qemu)
    vtpms = Custody(tpm, Swtpm(state / "vtpm-ca"))
    guests = Guests(hypervisor, vtpms, journal, state / "vms", appraiser=GuestBootAppraiser())
    rules = InspectionRules(configuration.inspection)
    examiner = Examiner(configuration.name, journal, clock, ProcessInspector(), rules)
    resolver = Resolver(configuration.name, authorizer, journal, clock)
    reception = TicketReception()
    kept = LocalKeptDisks(state / "kept")
    heat = HeatWatch(guests, clock, configuration.heat)
    store = configuration.store or StoreSettings(state / STORE)
    learn = partial(refer, learnt=True)
    contents = StoreContents(store, partial(FolderStore, store.folder, store.bounds), learn)
    setting = Setting(
        host=configuration.name,
        state=state,
        guests=guests,
        hypervisor=hypervisor,
        vtpms=vtpms,
        tpm=tpm,
        journal=journal,
        clock=clock,
        authorizer=authorizer,
        attester=own,
        verify=Verification(anchors, clock),
        signer=own,
        dial=Dialer(own),
        dial_data=dial_data,
        reception=reception,
        address_of=AddressBook(configuration),
        premises=LocalPremises(storage_rule(configuration)),
        images=QemuImages(),
        kept=kept,
        examiner=examiner,
        incoming_limit=configuration.incoming_limit,
        habits=heat.popularity,
        contents=contents,
        stall_deadline_s=configuration.stall_deadline_s,
    )
    migrations = Migrations(setting, channels=configuration.multifd_channels)
    listener = Listener(str(configuration.listen), own.tls, migrations.welcome, reception.arrived)
    services = HostServices(
        configuration=configuration,
        guests=guests,
        inspections=Inspections(guests, examiner, resolver),
        heat=heat,
        kept=kept,
        migrations=migrations,
        attestation=own,
        enrolment=own,
        receipts=Receipts(state / "receipts"),
        log=HostLog(configuration.name, journal, clock, own),
        operators=authorizer,
        files=SiteFiles((anchors.all, authorizer.check, rules.check)),
    )
    # Nobody is listened to before every open hand-over was looked at; what all of them use is closed last.
    expiry = KeptExpiry(kept, clock, configuration.kept)
    resources = Resources(contents, journal, tpm)
    return WiredHost(services, (resources, migrations, listener, heat, expiry))


class Resources:
    """What is open as long as the daemon lives: closed in the order in which they are given."""

    def __init__(self, *resources: Closable) -> None:
        self._resources = resources

    async def start(self) -> None:
        """They were opened when the host was put together."""

    async def stop(self) -> None:
        for resource in self._resources:
            await asyncio.to_thread(resource.close)


@dataclass(frozen=True, slots=True)
class Verification:
    """The site's appraisal of other hosts."""

    anchors: SiteAnchors
    clock: SystemClock

    def __call__(
        self, presented: Presented, evidence: HostEvidence, *, host: HostName, qualifying: bytes
    ) -> Trusted | Untrusted:
        return appraise_host(
            presented,
            evidence,
            host=host,
            qualifying_data=qualifying,
            anchors=self.anchors.all(),
            now=self.clock.now(),
        )


@dataclass(frozen=True, slots=True)
class Dialer:
    """Opens control channels as this host."""

    own: HostIdentity

    async def __call__(self, host: HostName, address: str) -> Channel:
        identity = self.own.tls()
        if identity is None:
            await self.own.presented()  # raises why
            raise AssertionError("unreachable: a host without identity presents nothing")
        return await tls.connect(address, host, identity)


@dataclass(frozen=True, slots=True)
class AddressBook:
    configuration: HostConfiguration

    def __call__(self, host: HostName) -> str:
        endpoint = self.configuration.hosts.get(host)
        if endpoint is None:
            known = ", ".join(sorted(self.configuration.hosts)) or "none"
            raise UsageError(
                f"no host {host} is known to {self.configuration.name} (it knows: {known})",
                kind="unknown-host",
                remedy=f"add [hosts.{host}] with its address to the configuration",
            )
        return str(endpoint)


def storage_rule(configuration: HostConfiguration) -> StorageRule:
    """The administrator's folders, and what no VM ever gets: this host's state, configuration and trust."""
    site = configuration.site
    own = (
        configuration.state,
        *(configuration.api, configuration.event_log, configuration.authorization),
        configuration.authorization.parent / FOLDER,
        *(file for file in (configuration.file, configuration.inspection) if file is not None),
        *([configuration.store.folder] if configuration.store else []),
        *(site.authority, site.reference_values, *site.manufacturers),
    )
    return StorageRule(_real(configuration.storage), _real(own))


def _real(paths: Iterable[Path]) -> tuple[PurePosixPath, ...]:
    return tuple(PurePosixPath(path.resolve()) for path in paths)


def dial_data(address: str) -> socket.socket:
    """One TCP connection for the data plane. Blocking; OSError when there is none in time."""
    host, _, port = address.rpartition(":")
    connection = socket.create_connection((host.strip("[]"), int(port)), DATA_CONNECT_DEADLINE_S)
    connection.settimeout(None)
    return connection
