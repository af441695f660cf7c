"""Prechecks alone: up to the destination's answer, with nothing taken or changed on either side."""

from __future__ import annotations

from collections.abc import Sequence

from korora.migration.greeting import survey
from korora.migration.greeting.conversation import WORK_DEADLINE_S, Conversation
from korora.migration.greeting.meeting import meet_as_source
from korora.migration.setting import Setting
from korora.model.definition import definition_text
from korora.model.identity import HostName
from korora.model.plan import Finding
from korora.protocol.handshake import choose_rule
from korora.protocol.messages import Answer, Order


async def check(at: Setting, vm: str, destination: str, address: str | None) -> Sequence[Finding]:
    """What speaks against moving this VM there. RefusedError when the destination is not trusted."""
    live, host = at.guests.live(vm), HostName(destination)
    channel = await at.dial(host, address or at.address_of(host))
    try:
        talk = Conversation(channel)
        met = await meet_as_source(talk, at.host, at.attester, at.verify)
        rule = choose_rule(
            met.greeted, tls_version=channel.tls_version, tls_group=channel.tls_group, streams=1
        )
        order = Order(
            request=b"",
            authorized_by="",
            definition=definition_text(live.machine.definition),
            facts=await survey.source_facts(at, live.definition, live.machine),
            rule=rule,
            epoch=0,
            cold=False,
            dry_run=True,
            adopted=live.definition.adopted,
        )
        await talk.say(order)
        return (await talk.expect(Answer, WORK_DEADLINE_S)).findings
    finally:
        await channel.close()
