"""Evidence from a host's log: its newest migrations, their receipts, and what the rules said of them.

Promise: what the log names is asked for, so a receipt that the host would rather not show is missed. Limit:
only the newest `NEWEST` migrations are looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from korora.cli.evaluation import receipt as one_receipt
from korora.client import Daemon
from korora.errors import KororaError, UsageError
from korora.model.identity import HostName, OperatorName, sha256
from korora.model.site import SiteConfiguration
from korora.policy.evaluation.evidence import Finding, Link, Place, Standing
from korora.policy.evaluation.installation import RECENT, SECOND_PERSON
from korora.policy.evaluation.migration import MIGRATION
from korora.policy.evaluation.scoring import Report, Scored, Verdict, evaluate
from korora.policy.machine.language.vocabulary import Procedure
from korora.protocol import canonical, decision
from korora.protocol.decision import PolicyDecision
from korora.protocol.log import LogEntry
from korora.protocol.receipt import document
from korora.protocol.receipt.document import parse_bundle

NEWEST: Final = 5
DECIDED: Final = (
    Procedure.SUBMIT,
    Procedure.AUTHORIZE,
    Procedure.ATTEST,
    Procedure.AGREE,
    Procedure.ACCEPT,
    Procedure.RELEASE,
    Procedure.RUN,
)
_STANDING: Final = {
    Verdict.MET: Standing.GOOD,
    Verdict.PARTLY: Standing.PARTLY,
    Verdict.NOT_MET: Standing.LACKING,
}
_WORST_FIRST: Final = (Verdict.NOT_MET, Verdict.NOT_LOOKED_AT, Verdict.PARTLY, Verdict.MET)


@dataclass(frozen=True, slots=True)
class Entry:
    """A migration whose receipt the log names: where last, and by which leaves."""

    index: int
    vm: str
    session: str
    leaves: frozenset[bytes]

    @property
    def name(self) -> str:
        return f"{self.vm}, session {self.session[:16]}…"


@dataclass(frozen=True, slots=True)
class History:
    """One host's newest migrations, the newest last."""

    host: HostName
    entries: tuple[Entry, ...]
    decisions: tuple[tuple[int, PolicyDecision], ...]

    @classmethod
    def of(cls, host: HostName, leaves: Sequence[bytes]) -> History:
        told = tuple((index, read) for index, leaf in enumerate(leaves) if (read := decision.read(leaf)))
        return cls(host, _entries(leaves)[-NEWEST:], told)

    @property
    def shown(self) -> Link:
        """All of the log, where something is not in it."""
        return Link(Place.COMMAND, f"korora log show {self.host}")

    def link(self, index: int) -> Link:
        return Link(Place.LOG, f"{self.host}: entry {index}")


def findings(
    history: History, daemon: Daemon, site: SiteConfiguration, operators: Mapping[OperatorName, bytes]
) -> Iterator[Finding]:
    """What the newest migrations show; nothing where there was none yet."""
    if not history.entries:
        return
    yield _decisions(history)
    yield _second_person(history)
    receipts = [_kept(entry, daemon) for entry in history.entries]
    yield _completeness(history, receipts)
    if any(one.why for one in receipts):
        return  # a host gains nothing by keeping one back
    reports = [(one.entry, _report(history, one, site, operators)) for one in receipts]
    for criterion in MIGRATION.criteria:
        if criterion.id != SECOND_PERSON.id:
            yield from _worst(history, reports, criterion.id)


def _entries(leaves: Sequence[bytes]) -> tuple[Entry, ...]:
    """One for each session. A receipt that had to be drafted again is in the log more than once."""
    found: dict[str, Entry] = {}
    for index, leaf in enumerate(leaves):
        if (read := _filed(leaf)) is not None:
            before = found.pop(read.session, None)
            others = before.leaves if before is not None else frozenset()
            found[read.session] = Entry(index, read.vm, read.session, others | {leaf})
    return tuple(found.values())


def _filed(leaf: bytes) -> LogEntry | None:
    try:
        read = canonical.decoded(leaf, LogEntry)
    except KororaError:
        return None
    return read if read.kind == "receipt" else None


# -- receipts -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Kept:
    """A receipt as the host shows it; `why` it is not the one that the log names, empty when it is."""

    entry: Entry
    data: bytes = b""
    why: str = ""
    changed: bool = False


def _kept(entry: Entry, daemon: Daemon) -> _Kept:
    """ToolError when the daemon does not answer: that says nothing of the receipt."""
    try:
        data = daemon.receipt(entry.session)
    except UsageError as error:
        return _Kept(entry, why=error.message)
    try:
        envelope = bytes(parse_bundle(data).receipt)
        leaf = document.leaf(envelope)
    except KororaError as error:
        return _Kept(entry, why=error.message, changed=True)
    if leaf not in entry.leaves:  # a leaf names the session too: no good receipt stands in for another
        return _Kept(entry, why=f"it is {sha256(envelope)}, which the log does not name", changed=True)
    return _Kept(entry, data)


def _completeness(history: History, receipts: Sequence[_Kept]) -> Finding:
    missing = [one for one in receipts if one.why]
    if not missing:
        links = tuple(history.link(one.entry.index) for one in receipts)
        found = f"its newest {len(links)} receipts are kept as its log names them"
        return Finding("receipts", Standing.GOOD, found, links, history.host)
    return Finding(
        "receipts",
        Standing.BROKEN if any(one.changed for one in missing) else Standing.LACKING,
        "; ".join(f"the receipt of {one.entry.name}: {one.why}" for one in missing),
        tuple(history.link(one.entry.index) for one in missing),
        history.host,
        "find out what became of the receipt; the other host of that migration has a copy",
    )


def _report(
    history: History, kept: _Kept, site: SiteConfiguration, operators: Mapping[OperatorName, bytes]
) -> Report:
    where = f"{history.host}'s receipt {kept.entry.session[:16]}…"
    gathered = one_receipt.examined(kept.data, where, site, operators)
    return evaluate(gathered.target, MIGRATION, gathered.evidence)


def _worst(history: History, reports: list[tuple[Entry, Report]], criterion: str) -> Iterator[Finding]:
    """Nothing if one of them says nothing: what was not looked at is not better than what was."""
    scored = [(entry, _of(report, criterion)) for entry, report in reports]
    entry, worst = min(scored, key=lambda pair: (_WORST_FIRST.index(pair[1].verdict), pair[1].score))
    if worst.verdict is Verdict.NOT_LOOKED_AT:
        return
    lacking = [shown for shown in worst.shown if shown.worth != 1]
    said = "; ".join(one.finding.found for one in lacking if one.finding is not None)
    yield Finding(
        RECENT + criterion,
        Standing.BROKEN if _broken(worst) else _STANDING[worst.verdict],
        f"{entry.name}: {said}" if said else f"{len(scored)} of its newest {len(scored)} do",
        (history.link(entry.index), Link(Place.COMMAND, f"korora -H {history.host} receipt list")),
        history.host,
        "; ".join(dict.fromkeys(one.remedy for one in lacking)),
    )


def _broken(scored: Scored) -> bool:
    return any(one.finding is not None and one.finding.standing is Standing.BROKEN for one in scored.shown)


def _of(report: Report, criterion: str) -> Scored:
    return next(one for one in report.scored if one.criterion.id == criterion)


# -- decisions ----------------------------------------------------------------------------------------------


def _decisions(history: History) -> Finding:
    """Whether the rules said yes to what each of these migrations did here."""
    missing: list[str] = []
    links: list[Link] = []
    for entry in history.entries:
        said = _said(history, entry, DECIDED)
        links += [history.link(index) for index in said.values()][-1:]
        without = [procedure for procedure in DECIDED if procedure not in said]
        if without:
            missing.append(f"{entry.name}: {', '.join(without)}")
    if not missing:
        found = f"a yes to every step of its newest {len(history.entries)} migrations"
        return Finding("decisions", Standing.GOOD, found, tuple(links), history.host)
    return Finding(
        "decisions",
        Standing.PARTLY if links else Standing.LACKING,
        "no yes is in the log: " + "; ".join(missing),
        tuple(links) or (history.shown,),
        history.host,
        "use the same, newest version of Korora on every host; see `korora policy explain SESSION`",
    )


def _second_person(history: History) -> Finding:
    said = [_said(history, entry, (Procedure.APPROVE,)) for entry in history.entries]
    approved = [index for one in said for index in one.values()]
    standing = Standing.GOOD if all(said) else Standing.PARTLY if approved else Standing.LACKING
    return Finding(
        "second-person",
        standing,
        f"{len(approved)} of its newest {len(said)} migrations were approved by a second person",
        tuple(history.link(index) for index in approved) or (history.shown,),
        history.host,
        'demand one by `@two_persons("yes")` on the policies that permit to migrate',
    )


def _said(history: History, entry: Entry, procedures: Sequence[Procedure]) -> Mapping[Procedure, int]:
    """Those of the procedures that the rules said yes to, with their places in the log.

    Decisions from before the session had a name belong to it by its request.
    """
    session = entry.session
    requests = {told.request for _, told in history.decisions if told.session == session}
    mine = [
        (index, told)
        for index, told in history.decisions
        if told.session == session or (not told.session and told.request in requests)
    ]
    return {
        procedure: index
        for procedure in procedures
        for index, told in mine
        if told.procedure == procedure and told.answer == "yes"
    }
