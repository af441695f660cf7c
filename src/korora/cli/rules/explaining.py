"""`korora policy explain`: the story of a migration, decision by decision, from the logs of its hosts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from korora.cli.invocation import Invocation
from korora.cli.options import AsJson
from korora.cli.render import error_text, mark, say, say_json, table, warn
from korora.errors import KororaError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from korora.protocol.decision import PolicyDecision

Told = tuple[str, "PolicyDecision"]
SHORTEST = 8


def explain(
    context: typer.Context,
    session: Annotated[
        str,
        typer.Argument(
            metavar="SESSION", help="The session, or at least its first 8 characters: korora log show."
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Tell which rule allowed or refused each step of a migration, on both hosts, and what it protects.

    The logs are read as they are: `korora log verify` says whether they can be believed.
    """
    if len(session) < SHORTEST or not set(session) <= set("0123456789abcdef"):
        raise UsageError(
            f"{session!r} names no session",
            kind="unknown-session",
            remedy=f"give at least {SHORTEST} characters of it, as `korora log show` writes them",
        )
    told = _about(_decisions(Invocation.of(context)), session)
    if not told:
        raise UsageError(
            f"no host in reach has decisions of a session {session}…",
            kind="unknown-session",
            remedy="see `korora log show` of each host",
        )
    if as_json:
        say_json({"session": told[-1][1].session, "decisions": [_row_of(*one) for one in told]})
    else:
        _show(told)


def _decisions(invocation: Invocation) -> Iterable[Told]:
    """Of all hosts in reach; one that is silent is said."""
    from korora.protocol import decision

    for host in invocation.asked():
        try:
            with invocation.daemon(host) as daemon:
                leaves = daemon.log().leaves
        except KororaError as error:
            warn(error_text(error))
            continue
        for leaf in leaves:
            if (read := decision.read(leaf)) is not None:
                yield host.name, read


def _about(decisions: Iterable[Told], session: str) -> Sequence[Told]:
    """Those of the session, and those of its request from before it had a name; host by host, in order."""
    everything = list(decisions)
    requests = {told.request for _, told in everything if told.session.startswith(session)}
    return [
        (host, told)
        for host, told in everything
        if told.session.startswith(session) or (not told.session and told.request in requests)
    ]


def _show(told: Sequence[Told]) -> None:
    first = told[-1][1]
    say(f"{first.vm}, session {first.session[:16]}…, request {first.request}")
    rows = []
    for host, one in told:
        why = (
            ""
            if one.answer == "yes"
            else f"{one.rule}.{one.clause}" + (f" ({one.protects})" if one.protects else "")
        )
        made = f"{one.user} in {one.agent}: {one.takes} → {one.makes}"
        rows.append((mark(one.answer == "yes"), host, one.procedure, made, one.answer, why))
    table(["", "HOST", "PROCEDURE", "USER, AGENT, ITEMS", "ANSWER", "WHY"], rows)


def _row_of(host: str, told: PolicyDecision) -> dict[str, object]:
    import msgspec

    return {"host": host} | msgspec.structs.asdict(told)
