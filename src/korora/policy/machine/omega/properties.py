"""What a secure state is, and a secure step: the properties that every rule is proved to keep (P3, P4).

An *invariant* speaks of one state. A *constraint* speaks of a step: of the state before and, with a prime, of
the state after; `u` is the subject that asked. docs/POLICY.md gives each its source.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from korora.policy.machine.language import notation
from korora.policy.machine.language.formula import And, Formula
from korora.policy.machine.language.vocabulary import Sort
from korora.policy.machine.omega.classical import alters, observes, owns
from korora.policy.machine.omega.procedures import PREREQUISITES


@dataclass(frozen=True, slots=True)
class Property:
    """`source` is where it comes from: a paper's rule, or ours."""

    name: str
    source: str
    formula: Formula

    @property
    def text(self) -> str:
        return notation.text_of(self.formula)


def _invariant(name: str, source: str, *texts: str) -> Property:
    parts = tuple(notation.formula(text) for text in texts)
    return Property(name, source, parts[0] if len(parts) == 1 else And(parts))


def _constraint(name: str, source: str, *texts: str) -> Property:
    parts = tuple(notation.formula(text, {"u": Sort.SUBJECT}) for text in texts)
    return Property(name, source, parts[0] if len(parts) == 1 else And(parts))


_ORDER: Final = tuple(
    f"all m: done(m, {later}) -> done(m, {earlier})"
    for later, before in PREREQUISITES.items()
    for earlier in before
)

INVARIANTS: Final[tuple[Property, ...]] = (
    _invariant(
        "simple-security",
        "no read down (Biba 1977; the paper's SSP)",
        f"all s, o: {observes('s', 'o')} -> object_class(o) >= subject_class(s)",
    ),
    _invariant(
        "no-write-up",
        "Biba 1977; the paper",
        f"all s, o: {alters('s', 'o')} -> subject_class(s) >= object_class(o)",
    ),
    _invariant(
        "star",
        "Bell and LaPadula 1976, dual: what is observed is at least what is altered with it",
        f"all s, o, k: {observes('s', 'o')} and {alters('s', 'k')} -> object_class(o) >= object_class(k)",
    ),
    _invariant(
        "discretionary",
        "Bell and LaPadula 1976: a is within B",
        "all s, o, x: access(s, o, x) -> matrix(s, o, x)",
    ),
    _invariant(
        "compatibility",
        "Bell and LaPadula 1976, dual: classes do not rise towards the leaves",
        "all k, o: parent(k, o) -> object_class(k) >= object_class(o)",
    ),
    _invariant(
        "hierarchy",
        "Bell and LaPadula 1976: D is a forest",
        "all k, o: parent(k, o) -> k != o and live(k) and live(o)",
        "all k, l, o: parent(k, o) and parent(l, o) -> k = l",
    ),
    _invariant(
        "nothing-dangles",
        "what does not exist is in no set",
        "all s, o, x: matrix(s, o, x) -> live(o)",
        "all o: cdi(o) or udi(o) -> live(o)",
        "all o, m: belongs(o, m) -> live(o)",
        "all s, o: credential(s, o) -> live(o)",
    ),
    _invariant(
        "items", "Clark and Wilson 1987: an item is constrained or not", "all o: not (cdi(o) and udi(o))"
    ),
    _invariant("valid-is-constrained", "C1: only a CDI can be vouched for", "all o: valid(o) -> cdi(o)"),
    _invariant(
        "certified-relations",
        "E1, E2, C5: a triple needs a certificate, a certificate a constrained item",
        "all s, t, o: triple(s, t, o) -> certified(t, o)",
        "all t, o: upgrades(t, o) -> certified(t, o)",
        "all t, o: certified(t, o) -> cdi(o)",
    ),
    _invariant(
        "certifier-executes-nothing",
        "E4: who certifies a procedure does not run it",
        "all s, t, o: certifier(t, s) -> not triple(s, t, o)",
    ),
    _invariant(
        "requester-is-not-approver",
        "C3: separation of duty",
        "all m, s: requester(m, s) -> not approver(m, s)",
        "all m, s: requester(m, s) -> done(m, submit)",
        "all m, s: approver(m, s) -> done(m, submit)",
        "all m: done(m, submit) -> (some s: requester(m, s))",
    ),
    _invariant(
        "two-persons",
        "requirement S2: where a second person must agree, nothing is agreed without him",
        "all m: two_persons(m) and done(m, agree) -> (some s: approver(m, s))",
    ),
    _invariant("order", "the protocol: nothing before what it rests on", *_ORDER),
    _invariant(
        "withdrawn-is-not-released",
        "S8: a VM is given up or kept, never both",
        "all m: not (done(m, withdraw) and done(m, release))",
    ),
    _invariant(
        "one-host-runs-it",
        "S8: what the source has taken back the destination does not run",
        "all m: not (done(m, reclaim) and done(m, run))",
    ),
    _invariant(
        "log-entries-are-single",
        "C4: one number, one entry",
        "all n, s, t, o, l, q, k: log(n, s, t, o) and log(n, l, q, k) -> s = l and t = q and o = k",
        "all n, v, j: recorded(n, v) and recorded(n, j) -> v = j",
        "all n, v: recorded(n, v) -> (some s, t, o: log(n, s, t, o))",
    ),
    _invariant(
        "suspicion-is-no-validity",
        "requirement A4: what is flagged is vouched for by nobody until it is cleared",
        "all m, i: flagged(m, i) -> not valid(i) and cdi(i) and belongs(i, m)",
        "all m, i: flagged(m, i) -> (some s: flagger(m, s))",
    ),
    _invariant(
        "one-migration-each",
        "an item is of one migration",
        "all o, m, l: belongs(o, m) and belongs(o, l) -> m = l",
    ),
)

_NEW: Final = "log'(n, u, t, o) and not log(n, u, t, o)"
_STEPS: Final = " or ".join(f"t = {step}" for step in PREREQUISITES)
_ANY_UPGRADE: Final = "udi(i) and upgrades(t, o)"

CONSTRAINTS: Final[tuple[Property, ...]] = (
    _constraint(
        "cdi-changes-by-certified-procedure",
        "E1, E2, E3, E4, C4",
        f"all o: cdi(o) and holds'(o) != holds(o) -> (some n, t, h: {_NEW} and certified(t, o)"
        " and triple(u, t, o) and authenticated(u) and not certifier(t, u)"
        f" and executes(t, h) and {alters('h', 'o')})",
    ),
    _constraint(
        "every-entry-is-permitted",
        "E1, E2, E3, E4: whatever the log says was done was permitted when it was done",
        f"all n, t, o: {_NEW} -> certified(t, o) and triple(u, t, o) and authenticated(u)"
        " and not certifier(t, u) and (some h: executes(t, h))",
    ),
    _constraint(
        "udi-changes-by-its-writer",
        "discretionary security",
        f"all o: not cdi(o) and holds'(o) != holds(o) -> udi(o) and {alters('u', 'o')}",
    ),
    _constraint(
        "log-is-append-only",
        "C4",
        "all n, s, t, o: log(n, s, t, o) -> log'(n, s, t, o)",
        "all n, v: recorded(n, v) -> recorded'(n, v)",
        "all n, s, t, o: log'(n, s, t, o) and not log(n, s, t, o) -> s = u",
        "all n, s, t, o: log'(n, s, t, o) and not log(n, s, t, o) -> not (some l, q, k: log(n, l, q, k))",
    ),
    _constraint(
        "what-is-done-is-logged",
        "C4: enough to see what was done",
        f"all n, t, o: {_NEW} -> (some v: recorded'(n, v) and holds'(o) = v)",
        f"all m, t: done'(m, t) and not done(m, t) -> (some n, o: {_NEW} and belongs(o, m))",
        f"all m, i: flagged'(m, i) and not flagged(m, i)"
        f" -> (some n, t, o: {_NEW} and t = flag and belongs(o, m))",
        f"all m, i: flagged(m, i) and not flagged'(m, i)"
        f" -> (some n, t, o: {_NEW} and t = resolve and belongs(o, m))",
        "all o: valid'(o) and not valid(o) -> (some n, t, k: log'(n, u, t, k) and not log(n, u, t, k))",
    ),
    _constraint(
        "demands-stay",
        "requirement S2: that a second person must agree is said by the policy's agent, and not unsaid",
        "all m: two_persons(m) -> two_persons'(m)",
        "all m: two_persons'(m) and not two_persons(m) -> executes(authorize, u)",
    ),
    _constraint(
        "done-stays-done",
        "S5: no procedure of a migration twice",
        "all m, t: done(m, t) -> done'(m, t)",
        f"all n, t, o, m: {_NEW} and belongs(o, m) and ({_STEPS}) -> not done(m, t) and done'(m, t)",
    ),
    _constraint(
        "information-rises-by-upgrade-alone",
        "Biba 1977, and C5: upwards goes only an unconstrained item, through a procedure certified for it",
        "all i, o: flow'(i, o) and not flow(i, o) -> object_class(i) >= object_class(o)"
        f" or (some n, t: {_NEW} and {_ANY_UPGRADE})",
    ),
    _constraint(
        "valid-comes-of-valid",
        "C2, C5: a procedure takes valid items, or upgrades an unconstrained one",
        f"all i, o: flow'(i, o) and not flow(i, o) -> valid(i) or (some n, t: {_NEW} and {_ANY_UPGRADE})",
    ),
    _constraint(
        "procedures-stay-in-their-migration",
        "S5: nothing of another session",
        "all i, o: flow'(i, o) and not flow(i, o) -> (some m: belongs(i, m) and belongs(o, m))",
    ),
    _constraint(
        "validity-is-confirmed",
        "C1: vouched for is what a procedure certified for it made, looked at, or cleared of suspicion",
        "all o: valid'(o) and not valid(o) -> (some n, t, h: log'(n, u, t, o) and not log(n, u, t, o)"
        f" and executes(t, h) and ({observes('h', 'o')} or {alters('h', 'o')}))"
        " or (some m: flagged(m, o) and not flagged'(m, o))",
    ),
    _constraint(
        "suspicion-stops-everything",
        "requirement A4: while something is flagged, no step is taken",
        "all m, t, i: done'(m, t) and not done(m, t) and flagged(m, i) -> t = withdraw",
    ),
    _constraint(
        "suspicion-is-seen",
        "C1: only an agent that observes an item suspects it, or clears it",
        "all m, i: flagged'(m, i) and not flagged(m, i)"
        f" -> (some h: executes(flag, h) and {observes('h', 'i')})",
        "all m, i: flagged(m, i) and not flagged'(m, i)"
        f" -> (some h: executes(resolve, h) and {observes('h', 'i')})",
    ),
    _constraint(
        "another-person-resolves",
        "C3: who raised a flag does not clear it",
        "all m, i: flagged(m, i) and not flagged'(m, i) -> not flagger(m, u)",
        "all m, i: flagged'(m, i) and not flagged(m, i) -> flagger'(m, u)",
    ),
    _constraint(
        "roles-are-kept",
        "C3: who asked, agreed or flagged is not forgotten, and nobody is named by another",
        "all m, s: requester(m, s) -> requester'(m, s)",
        "all m, s: approver(m, s) -> approver'(m, s)",
        "all m, s: flagger(m, s) -> flagger'(m, s)",
        "all m, s: requester'(m, s) and not requester(m, s) -> s = u",
        "all m, s: approver'(m, s) and not approver(m, s) -> s = u",
    ),
    _constraint(
        "withdrawn-is-over",
        "S8: nothing follows a withdrawal",
        "all m, t: done'(m, t) and not done(m, t) -> not done(m, withdraw)",
        "all m, i: flagged(m, i) and not flagged'(m, i) -> not done(m, withdraw)",
    ),
    _constraint(
        "rights-come-from-the-owner",
        "Bell and LaPadula 1976: give and rescind lie with whoever alters the parent; a creator owns his own",
        f"all s, o, x: matrix'(s, o, x) and not matrix(s, o, x) -> (live(o) and ({owns('u', 'o')}))"
        " or (not live(o) and live'(o) and s = u)",
        f"all s, o, x: matrix(s, o, x) and not matrix'(s, o, x) -> ({owns('u', 'o')})",
    ),
    _constraint(
        "objects-belong-to-owners",
        "Bell and LaPadula 1976: created below what one alters, deleted and reclassified by the owner",
        f"all o: live'(o) and not live(o) -> (some p: parent'(p, o) and {alters('u', 'p')})",
        f"all o: live(o) and not live'(o) -> udi(o) and ({owns('u', 'o')})",
        f"all o: live(o) and object_class'(o) != object_class(o) -> udi(o) and ({owns('u', 'o')})"
        " and not (some s, x: access(s, o, x))",
    ),
    _constraint(
        "accesses-are-ones-own",
        "an access is opened by its subject, and closed by it or by the owner",
        "all s, o, x: access'(s, o, x) and not access(s, o, x) -> s = u and live(o)",
        f"all s, o, x: access(s, o, x) and not access'(s, o, x) -> s = u or ({owns('u', 'o')})",
    ),
    _constraint(
        "constrained-stays-constrained",
        "E1: no item escapes its procedures",
        "all o: cdi(o) -> cdi'(o)",
        "all o: cdi'(o) and not cdi(o) -> udi(o) and not (some s, x: access(s, o, x))"
        " and (some t: certifier(t, u) and certified'(t, o))",
    ),
    _constraint(
        "certificates-come-from-certifiers",
        "E4, C5: only who certifies a procedure changes its lists",
        "all t, o: certified'(t, o) and not certified(t, o) -> certifier(t, u)",
        "all t, o: certified(t, o) and not certified'(t, o) -> certifier(t, u)",
        "all t, o: upgrades'(t, o) and not upgrades(t, o) -> certifier(t, u)",
        "all s, t, o: triple'(s, t, o) and not triple(s, t, o) -> certifier(t, u)",
        "all s, t, o: triple(s, t, o) and not triple'(s, t, o) -> certifier(t, u)",
    ),
    _constraint(
        "tranquillity",
        "Bell and LaPadula 1976: a class changes with nothing open, by a registrar who is not below",
        "all s: subject_class'(s) != subject_class(s) -> not (some o, x: access(s, o, x)) and s != u"
        f" and not authenticated(s) and (some o: credential(s, o) and {alters('u', 'o')})"
        " and subject_class(u) >= subject_class'(s)",
    ),
    _constraint(
        "identity-is-shown",
        "E3",
        "all s: authenticated'(s) and not authenticated(s) -> (some o: credential(s, o) and valid(o)"
        f" and {observes('u', 'o')})",
        "all s: authenticated(s) and not authenticated'(s) -> s = u or (some o: credential(s, o)"
        f" and {observes('u', 'o')})",
    ),
)
