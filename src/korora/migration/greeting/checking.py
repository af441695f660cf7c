"""Prechecks alone: up to the destination's answer, with nothing taken or changed on either side."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence

from korora.errors import IntegrityError, KororaError, QuestionError, RefusedError, UsageError
from korora.migration import inspection
from korora.migration.crossing.disks import storage
from korora.migration.crossing.disks.manner import refuse_replacement
from korora.migration.crossing.subject import Subject, find_subject
from korora.migration.greeting import gate, survey
from korora.migration.greeting.conversation import WORK_DEADLINE_S, Conversation
from korora.migration.greeting.meeting import meet_as_source
from korora.migration.greeting.refusals import refuse_changed_boot, refuse_unsettled
from korora.migration.recovery.standing import Standing
from korora.migration.setting import Setting
from korora.model.definition import definition_text
from korora.model.plan import Finding, Inquiry, MigrationRequest
from korora.protocol.handshake import choose_rule
from korora.protocol.messages import Answer, Order


async def check(at: Setting, asked: Inquiry) -> Sequence[Finding]:
    """What speaks against this migration, on this host and on the other one.

    RefusedError when the VM is not there to move, or the destination is not trusted. What the destination's
    own policy says of the operator is asked by a migration alone: only a signed request tells who asks.
    """
    subject = find_subject(at, asked.vm, asked.mode)
    return [*await _findings_here(at, asked, subject), *await _findings_there(at, asked, subject)]


async def _findings_here(at: Setting, asked: Inquiry, subject: Subject) -> list[Finding]:
    state = Standing(at.journal, asked.vm, copy=True).state
    found = [*_refused(at, "ownership", lambda: refuse_unsettled(state, asked.vm))]
    if subject.live is not None:
        boot = await at.guests.boot_verdict(asked.vm)
        found += _refused(at, "guest-boot", lambda: refuse_changed_boot(boot, asked.vm, at.host))
    found += await _flagged(at, subject)
    try:
        await refuse_replacement(at, subject, asked.disks)
    except RefusedError as refused:
        found.append(_finding(at, refused.kind, refused))
    if asked.operator is not None:
        found += _denied(at, asked)
    return found


async def _findings_there(at: Setting, asked: Inquiry, subject: Subject) -> Sequence[Finding]:
    channel = await at.dial(asked.destination, asked.address or at.address_of(asked.destination))
    try:
        talk = Conversation(channel)
        met = await meet_as_source(talk, at.host, at.attester, at.verify)
        rule = choose_rule(
            met.greeted, tls_version=channel.tls_version, tls_group=channel.tls_group, streams=1
        )
        order = Order(
            request=b"",
            authorized_by="",
            definition=definition_text(subject.definition),
            facts=await survey.source_facts(at, subject.definition, subject.machine),
            rule=rule,
            epoch=0,
            cold=subject.live is None,
            dry_run=True,
            adopted=subject.definition.adopted,
            disks=await storage.chosen(at, subject, asked.disks),
        )
        await talk.say(order)
        return (await talk.expect(Answer, WORK_DEADLINE_S)).findings
    finally:
        await channel.close()


async def _flagged(at: Setting, subject: Subject) -> Sequence[Finding]:
    """What is flagged already, and keeps the VM here; what an inspection would find is not known."""
    try:
        await asyncio.to_thread(inspection.refuse_flagged, at, subject)
    except (RefusedError, IntegrityError, UsageError) as refused:
        return [_finding(at, "flags", refused)]
    return []


def _refused(at: Setting, check: str, refuse: Callable[[], object]) -> Iterator[Finding]:
    try:
        refuse()
    except (RefusedError, QuestionError) as refused:
        yield _finding(at, check, refused)


def _finding(at: Setting, check: str, refused: KororaError) -> Finding:
    return Finding(check, at.host, refused.message, refused.remedy)


def _denied(at: Setting, asked: Inquiry) -> Iterator[Finding]:
    """What this host's policy would say to a request of theirs. Nobody signed one: it is only looked at."""
    assert asked.operator is not None  # noqa: S101 the caller looked
    now = int(at.clock.now())
    request = MigrationRequest(
        operator=asked.operator,
        procedure="migrate",
        vm=asked.vm,
        source=at.host,
        destination=asked.destination,
        mode=asked.mode,
        nonce="",
        issued_at=now,
        not_after=now,
        disks=asked.disks,
    )
    yield from _refused(at, "authorization", lambda: gate.allowed(at, request, None))
