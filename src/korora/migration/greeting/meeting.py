"""Two hosts meet: greet, quote, appraise. Nothing about any VM is said here.

Afterwards each side knows that the other end of this very channel is the host that was attested
(requirements S3, S5; RFC 9334: both are attester and verifier).
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Protocol

from korora.errors import PeerError, RefusedError
from korora.migration.greeting.conversation import VISIT_DEADLINE_S, Conversation
from korora.model.evidence import HostEvidence
from korora.model.identity import HostName
from korora.policy.appraisal import Presented, Trusted, Untrusted
from korora.protocol.handshake import (
    BINDING_LABEL,
    DESTINATION,
    OFFER,
    SOURCE,
    Greeting,
    greeting,
    qualifying_data,
)
from korora.protocol.messages import VERSION, Evidence, Hello


class Attester(Protocol):
    """This host as attester. Both methods may block on the TPM for some milliseconds."""

    async def presented(self) -> Presented:
        """EK certificate, AK, enrolment and TLS certificate of this host."""
        ...

    async def evidence(self, qualifying: bytes) -> HostEvidence: ...

    async def available(self) -> bool:
        """Whether the TPM answers."""
        ...


class Verifier(Protocol):
    """This host as verifier, with its site's anchors and reference values."""

    def __call__(
        self, presented: Presented, evidence: HostEvidence, *, host: HostName, qualifying: bytes
    ) -> Trusted | Untrusted: ...


@dataclass(frozen=True, slots=True)
class Acquaintance:
    """What one host showed and what it quoted: kept for the receipt."""

    presented: Presented
    evidence: HostEvidence
    trusted: Trusted

    @property
    def state(self) -> str:
        """The name of the trusted state that it is in."""
        return self.trusted.platform.state


@dataclass(frozen=True, slots=True)
class Meeting:
    """Both hosts have attested each other over this channel."""

    greeted: Greeting
    binding: bytes
    own: Presented
    own_evidence: HostEvidence
    peer: Acquaintance


async def meet_as_source(
    conversation: Conversation, host: HostName, attester: Attester, verify: Verifier
) -> Meeting:
    """Speak first. RefusedError when the destination is not trusted; nothing of the VM was sent."""
    own = await attester.presented()
    mine = _hello(SOURCE, host, own)
    mine_bytes = await conversation.say(mine)
    theirs, theirs_bytes = await conversation.expect_with_body(Hello)
    greeted = greeting(mine, mine_bytes, theirs, theirs_bytes)
    return await _attest(conversation, greeted, SOURCE, own, attester, verify)


async def meet_as_destination(
    conversation: Conversation,
    first: Hello,
    first_bytes: bytes,
    host: HostName,
    attester: Attester,
    verify: Verifier,
) -> Meeting:
    """Answer a source's HELLO. RefusedError when the source is not trusted."""
    own = await attester.presented()
    mine = _hello(DESTINATION, host, own)
    mine_bytes = await conversation.say(mine)
    greeted = greeting(first, first_bytes, mine, mine_bytes)
    return await _attest(conversation, greeted, DESTINATION, own, attester, verify)


def _hello(role: str, host: HostName, own: Presented) -> Hello:
    return Hello(
        VERSION, role, host, secrets.token_bytes(32), OFFER, own.ek_certificate, own.ak_public, own.enrolment
    )


async def _attest(
    conversation: Conversation,
    greeted: Greeting,
    role: str,
    own: Presented,
    attester: Attester,
    verify: Verifier,
) -> Meeting:
    channel = conversation.channel
    theirs = greeted.destination if role == SOURCE else greeted.source
    if theirs.host != channel.peer:
        raise PeerError(
            f"the host with the certificate of {channel.peer} greets as {theirs.host}", kind="wrong-host"
        )
    binding = channel.export_key(BINDING_LABEL, greeted.session_bytes).reveal()
    evidence = await attester.evidence(qualifying_data(role, greeted, binding))
    await conversation.say(Evidence(evidence))
    shown = (await conversation.expect(Evidence, VISIT_DEADLINE_S)).evidence
    presented = Presented(theirs.ek_certificate, theirs.ak_public, theirs.enrolment, channel.peer_certificate)
    peer_role = DESTINATION if role == SOURCE else SOURCE
    verdict = verify(
        presented, shown, host=channel.peer, qualifying=qualifying_data(peer_role, greeted, binding)
    )
    if isinstance(verdict, Untrusted):
        raise RefusedError(
            f"host {channel.peer} is not trusted: {verdict.reason}", kind=verdict.kind, remedy=verdict.remedy
        )
    return Meeting(greeted, binding, own, evidence, Acquaintance(presented, shown, verdict))
