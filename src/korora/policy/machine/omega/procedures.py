"""The transformation procedures (TPs) of a migration as rules: from submit to wipe, flag and resolve.

Each is asked for as (u, h, m, i, o, v, n): user, agent in which it runs, migration, the item it takes, the
item it makes, the value of that, and the number of the log entry it will be.
"""

from __future__ import annotations

from typing import Final

from korora.policy.machine.language.rule import Rule, rule
from korora.policy.machine.language.vocabulary import Procedure, Sort
from korora.policy.machine.omega.classical import alters, observes

PREREQUISITES: Final = {
    Procedure.SUBMIT: (),
    Procedure.AUTHORIZE: (Procedure.SUBMIT,),
    Procedure.APPROVE: (Procedure.SUBMIT,),
    Procedure.CHALLENGE: (),
    Procedure.ATTEST: (Procedure.CHALLENGE,),
    Procedure.AGREE: (Procedure.AUTHORIZE, Procedure.ATTEST),
    Procedure.BASELINE: (Procedure.AGREE,),
    Procedure.TRANSFER: (Procedure.BASELINE,),
    Procedure.SWITCHOVER: (Procedure.TRANSFER,),
    Procedure.MEASURE: (Procedure.SWITCHOVER,),
    Procedure.VERIFY: (Procedure.MEASURE,),
    Procedure.ACCEPT: (Procedure.VERIFY,),
    Procedure.RELEASE: (Procedure.ACCEPT,),
    Procedure.RUN: (Procedure.RELEASE,),
    Procedure.WIPE: (Procedure.RUN,),
    Procedure.RECEIPT: (Procedure.RUN,),
    Procedure.RECLAIM: (Procedure.RELEASE,),
    Procedure.WITHDRAW: (),
}
"""What must have been done before. Both hosts keep to it, in orders of their own."""

UPGRADES: Final = frozenset(
    {Procedure.SUBMIT, Procedure.APPROVE, Procedure.CHALLENGE, Procedure.MEASURE, Procedure.RECLAIM}
)
"""They make a constrained item of an unconstrained one, which is below it or came from outside (C5)."""

PARAMETERS: Final = {
    "u": Sort.SUBJECT,
    "h": Sort.SUBJECT,
    "m": Sort.MIGRATION,
    "i": Sort.OBJECT,
    "o": Sort.OBJECT,
    "v": Sort.VALUE,
    "n": Sort.ENTRY,
}


def _guard(of: Procedure) -> dict[str, str]:
    """What every procedure asks: its user, its agent, its output, its entry.

    That the procedure is certified for its output, and not by this user, follows from the triple.
    """
    return {
        "authenticated": "authenticated(u)",
        "triple": f"triple(u, {of}, o)",
        "executes": f"executes({of}, h)",
        "output": alters("h", "o"),
        "output-belongs": "belongs(o, m)",
        "entry-fresh": "not some s, t, k: log(n, s, t, k)",
    }


def _input(of: Procedure) -> dict[str, str]:
    belongs = {"input-belongs": "belongs(i, m)"}
    if of in UPGRADES:
        return belongs | {"input-unconstrained": "udi(i)", "upgrades": f"upgrades({of}, o)"}
    return belongs | {"input": observes("h", "i"), "input-valid": "valid(i)"}


def _order(of: Procedure) -> dict[str, str]:
    before = {f"after-{done}": f"done(m, {done})" for done in PREREQUISITES[of]}
    once = {"once": f"not done(m, {of})"}
    if of is Procedure.WITHDRAW or _follows_release(of):
        return before | once  # what is released was not withdrawn
    return before | once | {"not-withdrawn": f"not done(m, {Procedure.WITHDRAW})"}


def _follows_release(of: Procedure) -> bool:
    return Procedure.RELEASE in PREREQUISITES[of] or any(map(_follows_release, PREREQUISITES[of]))


_NOT_FLAGGED: Final = {"not-flagged": "not some k: flagged(m, k)"}
_SPECIAL: Final[dict[Procedure, dict[str, str]]] = {
    Procedure.APPROVE: {"another-person": "not requester(m, u)"},
    Procedure.AGREE: {"approved": "not two_persons(m) or (some s: approver(m, s))"},
    Procedure.RUN: {"not-reclaimed": f"not done(m, {Procedure.RECLAIM})"},
    Procedure.RECLAIM: {"not-run": f"not done(m, {Procedure.RUN})"},
    Procedure.WITHDRAW: {
        "not-released": f"not done(m, {Procedure.RELEASE})",
        "output-unflagged": "not flagged(m, o)",
    },
}
_ROLES: Final = {Procedure.SUBMIT: "requester", Procedure.APPROVE: "approver"}


def _entry(of: Procedure) -> list[str]:
    return [f"+log(n, u, {of}, o)", "+recorded(n, v)"]


def _output(of: Procedure) -> list[str]:
    return ["holds(o) := v", "+valid(o)", *_entry(of)]


def _step(of: Procedure) -> Rule:
    guard = _guard(of) | _input(of) | _order(of) | _SPECIAL.get(of, {})
    if of is not Procedure.WITHDRAW:
        guard |= _NOT_FLAGGED
    role = [f"+{_ROLES[of]}(m, u)"] if of in _ROLES else []
    return rule(of.value, PARAMETERS, guard, [*_output(of), "+flow(i, o)", f"+done(m, {of})", *role])


def _flag() -> Rule:
    """Suspicion of the item i, written down in o."""
    guard = _guard(Procedure.FLAG) | {"input": observes("h", "i"), "input-belongs": "belongs(i, m)"}
    guard |= {"constrained": "cdi(i)", "apart": "i != o", "output-unflagged": "not flagged(m, o)"}
    changes = ["+flagged(m, i)", "-valid(i)", "+flagger(m, u)"]
    return rule("flag", PARAMETERS, guard, [*_output(Procedure.FLAG), *changes])


def _resolve() -> Rule:
    """Somebody else found that i is as it must be; o says why."""
    guard = _guard(Procedure.RESOLVE) | {"input": observes("h", "i")}
    guard |= {"flagged": "flagged(m, i)", "another-person": "not flagger(m, u)"}
    guard |= {"output-unflagged": "not flagged(m, o)", "not-withdrawn": f"not done(m, {Procedure.WITHDRAW})"}
    return rule("resolve", PARAMETERS, guard, [*_output(Procedure.RESOLVE), "-flagged(m, i)", "+valid(i)"])


def _confirm() -> Rule:
    """The integrity verification procedure (IVP): what the item holds is what it should hold (C1)."""
    parameters = {name: PARAMETERS[name] for name in ("u", "h", "o", "v", "n")}
    guard = _guard(Procedure.CONFIRM)
    del guard["output"], guard["output-belongs"]
    guard |= {"observes": observes("h", "o"), "unchanged": "holds(o) = v"}
    guard |= {"not-flagged": "not some m: flagged(m, o)"}
    return rule("confirm", parameters, guard, ["+valid(o)", *_entry(Procedure.CONFIRM)])


PROCEDURES: Final[tuple[Rule, ...]] = (
    *(_step(procedure) for procedure in PREREQUISITES),
    _flag(),
    _resolve(),
    _confirm(),
)
