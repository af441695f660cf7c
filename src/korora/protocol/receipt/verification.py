"""Judge a receipt offline, as a third party that trusts neither host (S6).

Promise: `verify_bundle` makes every check it can and says of each what was found; a bundle in which any byte
was changed fails at least one. Certificates and quotes are judged as of the receipt's own time, so an old
receipt stays good. Limit: two attested hosts that lie together about what only they could see (the guest
boot's verdict, the wipe, the times) are not found out; reference values are those of the judge.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Final

from korora.errors import KororaError
from korora.model.evidence import VtpmIdentity
from korora.model.identity import HostName
from korora.model.inspection import Disposition
from korora.model.storage import ALL, Beneath
from korora.policy import attest
from korora.policy.appraisal import Untrusted
from korora.protocol import handshake, key_wrap, log, statements
from korora.protocol.handshake import DESTINATION, SOURCE
from korora.protocol.receipt import document
from korora.protocol.receipt.case import Case, Judge, bad, hello_of, presented
from korora.protocol.receipt.document import HostPart, Limit

CLOCK_SKEW_S: Final = 300
_SHOWN: Final = 3


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. `detail` says what was found, or why it is not good."""

    name: str
    ok: bool
    detail: str


def verify_bundle(data: bytes, judge: Judge) -> list[Check]:
    """Every check, in order, none left out for another's failure.

    Raises nothing for what the bundle contains. One that cannot be read gives one failed check, `bundle`.
    """
    try:
        case = Case(document.parse_bundle(data), judge)
    except KororaError as error:
        return [Check("bundle", ok=False, detail=error.message)]
    return [_made(name, check, case) for name, check in CHECKS.items()]


def _made(name: str, check: Callable[[Case], str], case: Case) -> Check:
    try:
        return Check(name, ok=True, detail=check(case))
    except KororaError as error:
        return Check(name, ok=False, detail=error.message)


def _bundle(case: Case) -> str:
    told = case.receipt
    hosts = tuple(shown.host for shown in case.bundle.logs)
    if hosts != (told.source, told.destination) or told.source == told.destination:
        raise bad("the bundle must hold the source's proof and the destination's, in this order")
    return f"{told.vm} from {told.source} to {told.destination}, session {told.session[:16]}…"


def _signatures(case: Case) -> str:
    document.opened(case.envelope, [case.source_key, case.destination_key])
    return "both hosts signed it, with keys that the site authority certified for their names"


def _time(case: Case) -> str:
    if case.at > case.judge.now + CLOCK_SKEW_S:
        raise bad("it is dated in the future")
    told = [case.manifest().at, case.accept().at, case.release().at, case.running().at, int(case.at)]
    if any(later < earlier - CLOCK_SKEW_S for earlier, later in pairwise(told)):
        raise bad("its statements are dated in another order than they must have been made")
    return "its times are in order"


def _request(case: Case) -> str:
    asked, told = case.request(), case.receipt
    wanted = (asked.vm, asked.source, asked.destination, asked.mode)
    if wanted != (told.vm, told.source, told.destination, told.mode):
        raise bad(
            f"the operator asked for {asked.vm} from {asked.source} to {asked.destination} ({asked.mode})"
        )
    if not asked.issued_at - CLOCK_SKEW_S <= case.at or asked.issued_at > asked.not_after:
        raise bad("the operator's request is younger than the migration, or was never valid")
    moved = statements.read_disks(case.manifest().disks)
    if {disk.name for disk in moved} != set(asked.disks.names) and not (moved and ALL in asked.disks.names):
        raise bad("other disks moved than the request names")
    usual = {Beneath.NOTHING, Beneath.KEPT if asked.disks.keep_backing else Beneath.FLATTENED}
    for disk in moved:
        if disk.beneath not in usual:
            raise bad(f"what lay beneath the disk {disk.name} was {disk.beneath}: nobody asked for that")
    return f"{asked.operator} signed the request for exactly this migration"


def _session(case: Case) -> str:
    rule = case.receipt.rule
    greeted = case.greeting()
    handshake.check_rule(rule, greeted, tls_version=rule.tls_version, tls_group=rule.tls_group)
    return f"both HELLOs give this session, and the rule is the best that both offered ({rule.tls_group})"


def _source_attested(case: Case) -> str:
    return _attested(case, SOURCE, case.receipt.source_host, case.receipt.source)


def _destination_attested(case: Case) -> str:
    return _attested(case, DESTINATION, case.receipt.destination_host, case.receipt.destination)


def _attested(case: Case, role: str, part: HostPart, host: str) -> str:
    qualifying = handshake.qualifying_data(role, case.greeting(), case.receipt.binding)
    verdict = case.judge.appraise(
        presented(part), part.evidence, host=HostName(host), qualifying_data=qualifying, now=case.at
    )
    if isinstance(verdict, Untrusted):
        raise bad(verdict.reason)
    return f"{host} was in the trusted state {verdict.platform.state!r}, quoted over this very channel"


def _allowed(case: Case) -> str:
    told = case.receipt
    rules = {told.source: told.source_host.allowed_by, told.destination: told.destination_host.allowed_by}
    if not all(rules.values()):
        raise bad("a host does not say which of its rules allowed the request")
    return "; ".join(f"{host}: {rule}" for host, rule in rules.items())


def _clean_memory(case: Case) -> str:
    proof = case.receipt.clean_memory
    if proof is None:
        memory = range(case.receipt.rule.streams)  # disks have the streams after these
        stopped = not any(root.stream in memory for root in case.manifest().carried.roots)
        return _admitted(case, Limit.NO_MEMORY if stopped else Limit.MEMORY_NOT_PROVED)
    if not proof.clean:
        raise bad("the destination's memory was not clean before the VM arrived")
    return f"{proof.size_bytes} bytes, {proof.allocated_bytes} of them in use before ({proof.method})"


def _vtpm_key(case: Case) -> str:
    wrapping = case.receipt.wrapping
    if wrapping is None:
        in_stream = Limit.VTPM_IN_STREAM in case.receipt.limits
        if case.manifest().carried.blobs is not None and not in_stream:
            raise bad("the vTPM's state moved, and no key was wrapped for it")
        return _admitted(case, Limit.VTPM_IN_STREAM if in_stream else Limit.NO_VTPM)
    greeted, part = case.greeting(), case.receipt.destination_host
    ak = attest.parse_public(hello_of(part).ak_public)
    key_wrap.checked(wrapping, ak, nonce=handshake.wrap_nonce(greeted), pcrs=part.evidence.pcrs)
    return "wrapped to a key of the destination's TPM, made for this session and bound to its attested state"


def _ownership(case: Case) -> str:
    case.manifest(), case.accept(), case.release(), case.running()
    return (
        f"manifest, acceptance, release and report of running answer each other; epoch {case.receipt.epoch}"
    )


def _arrival(case: Case) -> str:
    sent, arrived = case.manifest(), case.accept()
    found = statements.differences(sent.carried, arrived.carried)
    if found:
        raise bad("; ".join(found[:_SHOWN]))
    if sent.mode != case.receipt.mode:
        raise bad("the manifest speaks of another mode")
    disks = _disks(sent, arrived)
    equal = (
        f"{len(sent.carried.roots)} stream roots and {sent.carried.payload_bytes} bytes equal on both sides"
    )
    return f"{equal}; {disks}" if disks else equal


def _disks(sent: statements.Manifest, arrived: statements.Accept) -> str:
    """What is to be said of the disks that moved; "" if none should."""
    here, there = statements.read_disks(sent.disks), statements.read_disks(arrived.disks)
    found = statements.disk_differences(here, there)
    if found:
        raise bad("; ".join(found[:_SHOWN]))
    moved = sorted(disk.name for disk in here)
    return f"the same content tree of {', '.join(moved)} on both sides" if moved else ""


def _vtpm(case: Case) -> str:
    sent, arrived = case.manifest().carried, case.accept().carried
    if sent.vtpm is None or arrived.vtpm is None:
        if sent.blobs is not None or arrived.blobs is not None:
            raise bad("the vTPM's state moved, and its identity was not compared")
        in_stream = Limit.VTPM_IN_STREAM in case.receipt.limits
        return _admitted(case, Limit.VTPM_IN_STREAM if in_stream else Limit.NO_VTPM)
    if _identity(sent.vtpm) != _identity(arrived.vtpm) or sent.blobs != arrived.blobs:
        raise bad("the vTPM that arrived is not the one that left")
    if sent.blobs is None:
        return _admitted(case, Limit.VTPM_IN_STREAM)
    if not sent.vtpm.ek_name:  # it was switched off: its permanent state holds the seed of its EK
        return "the same permanent state and state blobs before and after"
    return f"the same EK ({sent.vtpm.ek_name[:16]}…), PCRs, NV and state blobs before and after"


def _identity(vtpm: VtpmIdentity) -> tuple[object, ...]:
    return vtpm.ek_name, vtpm.pcrs, vtpm.nv


def _inspection(case: Case) -> str:
    told, sent = case.receipt, "dossier" in case.manifest().files
    if (told.flags is not None) != sent:
        raise bad("the manifest and the receipt do not agree on whether the VM has a dossier")
    if told.inspection is None:
        return _admitted(case, Limit.NOT_INSPECTED) + _flags(told.flags)
    report = told.inspection
    if (report.vm, report.host) != (told.vm, told.source) or not sent:
        raise bad("the inspection is of another VM, or was made elsewhere, or did not go with the VM")
    blocked = [one.check for one in report.checks if one.disposition is Disposition.BLOCK and one.open]
    if blocked:
        raise bad(f"the VM left although its source's policy keeps it for: {', '.join(blocked)}")
    found = ", ".join(f"{one.check}: {one.found} of {one.examined}" for one in report.checks)
    return f"found before it left, {found}{_flags(told.flags)}"


def _flags(flags: document.Flags | None) -> str:
    return "" if flags is None else f"; flags: {flags.open} open, {flags.resolved} resolved"


def _wipe(case: Case) -> str:
    steps = case.receipt.wipe.steps
    if not steps and not case.receipt.wipe.limits:
        raise bad("nothing is said to have been wiped at the source, nor why not")
    if not steps:
        return "nothing could be wiped from outside; the receipt says so: " + "; ".join(
            case.receipt.wipe.limits
        )
    unproved = [step.what for step in steps if not step.verified]
    if unproved:
        raise bad(f"not verified to be gone: {', '.join(unproved)}")
    kept = [limit for limit in case.receipt.wipe.limits if limit in {Limit.DISKS_KEPT, Limit.BACKING_STAYS}]
    return "; ".join([*(f"{step.what}: {step.method}" for step in steps), *kept])


def _source_log(case: Case) -> str:
    return _logged(case, 0)


def _destination_log(case: Case) -> str:
    return _logged(case, 1)


def _logged(case: Case, place: int) -> str:
    _bundle(case)
    shown = case.bundle.logs[place]
    head = log.verify_proof(
        shown, document.leaf(case.envelope), (case.source_key, case.destination_key)[place]
    )
    if head.at < case.at - CLOCK_SKEW_S:
        raise bad(f"the head of {shown.host}'s log is older than the receipt in it")
    return f"entry {shown.index} of {head.size} in the log of {shown.host}"


def _admitted(case: Case, limit: Limit) -> str:
    """What is missing must be said."""
    if limit not in case.receipt.limits:
        raise bad(f"{limit}, and the receipt does not say so")
    return f"{limit}; the receipt says so"


CHECKS: Final[Mapping[str, Callable[[Case], str]]] = MappingProxyType(
    {
        "bundle": _bundle,
        "signatures": _signatures,
        "time": _time,
        "request": _request,
        "allowed": _allowed,
        "session": _session,
        "source-attestation": _source_attested,
        "destination-attestation": _destination_attested,
        "clean-memory": _clean_memory,
        "vtpm-key": _vtpm_key,
        "ownership": _ownership,
        "arrival": _arrival,
        "vtpm-identity": _vtpm,
        "inspection": _inspection,
        "wipe": _wipe,
        "source-log": _source_log,
        "destination-log": _destination_log,
    }
)
