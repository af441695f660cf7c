#!/usr/bin/env python3
"""Write docs/ownership.md from the transition table in force."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from korora.model.ownership import MESSAGES, Do, On, Status
from korora.protocol.ownership_table import TABLE, Row, When

HEAD = """# Who owns a VM

Generated from `src/korora/protocol/ownership_table.py` by `script/ownership_doc.py`: do not edit.

`n` is the epoch that the journal holds before the step. Upper-case events are messages of the other host.
Whenever the state changes it is journalled and synced first: before any message is sent, and before the VM
runs, is destroyed or wiped (only a pause comes before the journal). An event without a row is refused and
changes nothing.

"""


RECOVERY = """
## Recovery

After a restart every VM of the journal gets `restarted`, and again until what it orders was done. Of a
VM whose process is there but does not answer nothing is concluded. From then on, every three seconds,
whatever is neither `owner`, `absent` nor `wiped` and has no conversation of its own goes on by one step:
`released`, `in-doubt`, `loaded`, `orphaned` and `declined` speak to the other host, an `offered` or
`loading` that was interrupted ends as `failed`, the others are reminded. A host that is spoken to about
a session whose old conversation it still holds breaks that off first: it can only be dead. Every
statement is verified as in the first conversation. There is no receipt then.
"""


def drawn() -> str:
    """The whole page."""
    return (
        HEAD
        + _diagram()
        + _table("At rest", _at_rest)
        + _table("Source", _at_source)
        + _table("Destination", _at_destination)
        + RECOVERY
    )


_SOURCE = {Status.OFFERED, Status.RELEASED, Status.IN_DOUBT, Status.TAKEN_OVER}
_DESTINATION = {Status.LOADING, Status.LOADED, Status.ORPHANED, Status.STARTING, Status.DECLINED}


def _at_source(status: Status, row: Row) -> bool:
    return status in _SOURCE or row.on is On.OFFERED


def _at_destination(status: Status, row: Row) -> bool:
    return status in _DESTINATION or row.on is On.BEGUN


def _at_rest(status: Status, row: Row) -> bool:
    return not _at_source(status, row) and not _at_destination(status, row)


def _diagram() -> str:
    """The ways between states; what stays where it is stands only in the tables."""
    ways: dict[tuple[Status, Status], list[str]] = {}
    for status, row in _places():
        if row.then is not None and row.then is not status:
            ways.setdefault((status, row.then), []).append(str(row.on))
    lines = [
        f"    {_id(start)} --> {_id(end)}: {', '.join(dict.fromkeys(events))}"
        for (start, end), events in ways.items()
    ]
    return "```mermaid\nstateDiagram-v2\n    [*] --> absent\n" + "\n".join(lines) + "\n```\n"


def _table(title: str, belongs) -> str:  # type: ignore[no-untyped-def]
    lines = ["| in | on | when | to | do | why |", "|---|---|---|---|---|---|"]
    lines += [_line(status, row) for status, row in _places() if belongs(status, row)]
    return f"\n## {title}\n\n" + "\n".join(lines) + "\n"


def _places() -> Iterable[tuple[Status, Row]]:
    for status in Status:
        for row in TABLE:
            if status in row.at:
                yield status, row


def _line(status: Status, row: Row) -> str:
    event = f"**{row.on}**" if row.on in MESSAGES else str(row.on)
    then = "stays" if row.then in {None, status} else f"{row.then} {_epoch(row)}"
    when = "" if row.when is When.ALWAYS else str(row.when)
    return f"| {status} | {event} | {when} | {then} | {_deeds(row.do)} | {row.why} |"


def _epoch(row: Row) -> str:
    return "(the event's)" if row.epoch is None else {0: "(n)"}.get(row.epoch, f"(n+{row.epoch})")


def _deeds(deeds: tuple[Do, ...]) -> str:
    return ", ".join(deeds)


def _id(status: Status) -> str:
    return status.replace("-", "_")


if __name__ == "__main__":
    page = Path(__file__).resolve().parents[1] / "docs" / "ownership.md"
    page.parent.mkdir(exist_ok=True)
    page.write_text(drawn())
