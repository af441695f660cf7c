"""One host, as the story sees it: every port and agent it needs, chosen by `wiring`."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from korora.agents.dataorg.popularity import Popularity
from korora.agents.dataplane import DestinationRelay
from korora.migration.greeting.meeting import Attester, Verifier
from korora.model.identity import HostName
from korora.ports.authorizer import Authorizer
from korora.ports.channel import Channel
from korora.ports.clock import Clock
from korora.ports.contents import Contents, NoContents
from korora.ports.hypervisor import Hypervisor
from korora.ports.image import ImageReader
from korora.ports.journal import Journal
from korora.ports.kept_disks import KeptDisks
from korora.ports.premises import Premises
from korora.ports.tpm import Tpm
from korora.ports.vtpm import VtpmAgent
from korora.protocol.dsse import PublicKey, SigningKey
from korora.supervision.guests import Guests
from korora.supervision.inspection.examiner import Examiner


class Reception(Protocol):
    """Where data connections arrive; a ticket names the relay that waits for it."""

    def expect(self, tickets: list[bytes], relay: DestinationRelay) -> None: ...

    def forget(self, tickets: list[bytes]) -> None: ...


class HostKey(SigningKey, Protocol):
    """This host's signing key, which is its TLS key."""

    @property
    def public(self) -> PublicKey: ...


async def nothing_known(_: str) -> Mapping[str, Popularity]:
    return {}


@dataclass(frozen=True, slots=True)
class Setting:
    host: HostName
    state: Path
    guests: Guests
    hypervisor: Hypervisor
    vtpms: VtpmAgent
    tpm: Tpm
    journal: Journal
    clock: Clock
    authorizer: Authorizer
    attester: Attester
    verify: Verifier
    signer: HostKey
    dial: Callable[[HostName, str], Awaitable[Channel]]
    dial_data: Callable[[str], socket.socket]
    reception: Reception
    address_of: Callable[[HostName], str]
    premises: Premises
    images: ImageReader
    kept: KeptDisks
    examiner: Examiner
    incoming_limit: int
    habits: Callable[[str], Awaitable[Mapping[str, Popularity]]] = nothing_known
    """How a VM uses its disks, as far as it was watched."""
    contents: Contents = field(default_factory=NoContents)
    stall_deadline_s: float = 30.0  # both sides' own: who waits longer learns it from the other
