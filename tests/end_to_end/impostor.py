"""Somebody who answers in a host's place, with whatever credentials a test gives him, on real TLS.

He speaks the protocol by the product's own code, up to the attestation; `heard` is every message that the
source sent him. Limit: one visitor at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from end_to_end.conftest import Lab
from korora.adapters.channel import tls
from korora.errors import KororaError
from korora.migration.greeting.conversation import Conversation
from korora.migration.greeting.meeting import meet_as_destination
from korora.model.evidence import HostEvidence
from korora.model.identity import HostName
from korora.policy.appraisal import Presented, Trusted, Untrusted
from korora.protocol import messages
from korora.protocol.messages import decode


@dataclass
class Impostor:
    """`evidence` is what he shows, whatever was asked. `heard` names the messages that reached him."""

    name: HostName
    identity: tls.TlsIdentity
    shown: Presented
    evidence_shown: HostEvidence
    heard: list[str] = field(default_factory=list)

    async def presented(self) -> Presented:
        return self.shown

    async def evidence(self, qualifying: bytes) -> HostEvidence:
        return self.evidence_shown

    async def available(self) -> bool:
        return True

    def believe(
        self, presented: Presented, evidence: HostEvidence, *, host: HostName, qualifying: bytes
    ) -> Trusted | Untrusted:
        return Untrusted("nobody", "he never asks", "")

    async def serve(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            visitor, _ = await loop.sock_accept(listening)
            with contextlib.suppress(KororaError, OSError):
                await self._receive(visitor)

    async def _receive(self, visitor: socket.socket) -> None:
        first = await asyncio.get_running_loop().sock_recv(visitor, 1)
        channel = await tls.accept(visitor, first, self.identity)
        talk = Conversation(channel)
        hello, body = await talk.expect_with_body(messages.Hello)
        self.heard.append("Hello")
        with contextlib.suppress(KororaError):
            await meet_as_destination(talk, hello, body, self.name, self, self.believe)
        with contextlib.suppress(KororaError):
            while True:
                self.heard.append(type(decode(await channel.receive(5))).__name__)


@contextmanager
def answering(lab: Lab, impostor: Impostor) -> Iterator[str]:
    """Has him answer in the switch's namespace; yields his address."""
    listening = lab.inside(lambda: socket.create_server((lab.layout.switch_ip, 0)))
    listening.setblocking(False)
    loop = asyncio.new_event_loop()
    serving = loop.create_task(impostor.serve(listening))
    thread = threading.Thread(target=_run, args=(loop, serving), daemon=True)
    thread.start()
    try:
        yield "{}:{}".format(*listening.getsockname()[:2])
    finally:
        loop.call_soon_threadsafe(serving.cancel)
        thread.join(10)
        listening.close()


def _run(loop: asyncio.AbstractEventLoop, serving: asyncio.Task[None]) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        loop.run_until_complete(serving)
    loop.close()


def identity_of(certificate_pem: bytes, key: ec.EllipticCurvePrivateKey, authority: bytes) -> tls.TlsIdentity:
    certificate = x509.load_pem_x509_certificate(certificate_pem)
    return tls.TlsIdentity(certificate, key, x509.load_pem_x509_certificate(authority))
