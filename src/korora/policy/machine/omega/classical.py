"""The classical requests: accesses, the matrix, objects, classes, and who may do what.

After the rules of Bell and LaPadula (1976), turned to integrity as Biba (1977) does: nothing is read from
below, nothing written above. Certification and permission after Clark and Wilson (1987), E1 to E4.
Where we had to choose, docs/POLICY.md says why.
"""

from __future__ import annotations

from typing import Final

from korora.policy.machine.language.rule import Rule, rule
from korora.policy.machine.language.vocabulary import Sort

_S, _O, _A, _C, _P = Sort.SUBJECT, Sort.OBJECT, Sort.ACCESS, Sort.CLASS, Sort.PROCEDURE
_M, _V = Sort.MIGRATION, Sort.VALUE


def observes(subject: str, item: str) -> str:
    return f"(access({subject}, {item}, r) or access({subject}, {item}, w))"


def alters(subject: str, item: str) -> str:
    return f"(access({subject}, {item}, w) or access({subject}, {item}, a))"


def owns(subject: str, item: str) -> str:
    """Control over an object lies with whoever alters its parent (Bell and LaPadula 1976)."""
    return f"some p: parent(p, {item}) and {alters(subject, 'p')}"


_MAY: Final = {"discretionary": "matrix(u, o, x)"}
_NO_READ_DOWN: Final = {"no-read-down": "object_class(o) >= subject_class(u)"}
_NO_WRITE_UP: Final = {"no-write-up": "subject_class(u) >= object_class(o)"}
_OWNER: Final = {"owner": owns("u", "o")}
_GET: Final = {"u": _S, "o": _O, "x": _A}
_GRANT: Final = {"u": _S, "s": _S, "o": _O, "x": _A}
_CERTIFIER: Final = {"certifier": "certifier(t, u)"}

_ACCESSES: Final = (
    rule(
        "get-read",
        _GET,
        _MAY | _NO_READ_DOWN,
        ["+access(u, o, x)"],
        request="get",
        domain="x = r",
        meaning="open to observe",
    ),
    rule(
        "get-write",
        _GET,
        _MAY | _NO_READ_DOWN | _NO_WRITE_UP,
        ["+access(u, o, x)"],
        request="get",
        domain="x = w",
        meaning="open to observe and to alter: only at one's own class",
    ),
    rule(
        "get-append",
        _GET,
        _MAY | _NO_WRITE_UP,
        ["+access(u, o, x)"],
        request="get",
        domain="x = a",
        meaning="open to alter without observing",
    ),
    rule(
        "get-execute",
        _GET,
        _MAY,
        ["+access(u, o, x)"],
        request="get",
        domain="x = e",
        meaning="open to run: neither observes nor alters",
    ),
    rule("release-access", _GET, {"held": "access(u, o, x)"}, ["-access(u, o, x)"], meaning="close again"),
    rule(
        "write",
        {"u": _S, "o": _O, "v": _V},
        {"alters": alters("u", "o"), "unconstrained": "udi(o)"},
        ["holds(o) := v"],
        meaning="change an unconstrained item; a constrained one changes through procedures alone (E1)",
    ),
)

_MATRIX: Final = (
    rule("give", _GRANT, _OWNER, ["+matrix(s, o, x)"], meaning="let somebody open an object"),
    rule(
        "rescind",
        _GRANT,
        _OWNER,
        ["-matrix(s, o, x)", "-access(s, o, x)"],
        meaning="take that right back, at once",
    ),
)

_OBJECTS: Final = (
    rule(
        "create",
        {"u": _S, "o": _O, "k": _O, "c": _C},
        {
            "fresh": "not live(o)",
            "owner": alters("u", "k"),
            "compatible": "object_class(k) >= c",
        },
        [
            "+live(o)",
            "+udi(o)",
            "+parent(k, o)",
            "object_class(o) := c",
            "+matrix(u, o, r)",
            "+matrix(u, o, w)",
        ],
        meaning="a new item below a parent; nobody vouches for it yet",
    ),
    rule(
        "delete",
        {"u": _S, "o": _O},
        _OWNER
        | {
            "unconstrained": "udi(o)",
            "leaf": "not some k: parent(o, k)",
            "of-no-migration": "not some m: belongs(o, m)",
            "no-credential": "not some s: credential(s, o)",
            "rescinded": "not some s, x: matrix(s, o, x) and s != u",
        },
        ["-live(o)", "-udi(o)", "-parent(_, o)", "-matrix(u, o, _)", "-access(u, o, _)"],
        meaning="what others may open is rescinded first, so no deletion takes long",
    ),
    rule(
        "change-object-class",
        {"u": _S, "o": _O, "c": _C},
        _OWNER
        | {
            "unconstrained": "udi(o)",
            "closed": "not some s, x: access(s, o, x)",
            "leaf": "not some k: parent(o, k)",
            "compatible": "all p: parent(p, o) -> object_class(p) >= c",
        },
        ["object_class(o) := c"],
        meaning="while nobody has it open, and it is nobody's parent",
    ),
)

_SUBJECTS: Final = (
    rule(
        "change-subject-class",
        {"u": _S, "s": _S, "c": _C},
        {
            "registrar": f"some o: credential(s, o) and {alters('u', 'o')}",
            "no-escalation": "subject_class(u) >= c",
            "signed-out": "not authenticated(s)",
            "closed": "not some o, x: access(s, o, x)",
        },
        ["subject_class(s) := c"],
        meaning="never in the middle of a session",
    ),
    rule(
        "authenticate",
        {"u": _S, "s": _S, "o": _O},
        {"credential": "credential(s, o)", "valid": "valid(o)", "observes": observes("u", "o")},
        ["+authenticated(s)"],
        meaning="E3: who the user is was shown by his credential",
    ),
    rule(
        "sign-out",
        {"u": _S, "s": _S},
        {"who": f"u = s or (some o: credential(s, o) and {observes('u', 'o')})"},
        ["-authenticated(s)"],
    ),
)

_CERTIFICATION: Final = (
    rule(
        "constrain",
        {"u": _S, "t": _P, "o": _O},
        _CERTIFIER | {"unconstrained": "udi(o)", "closed": "not some s, x: access(s, o, x)"},
        ["-udi(o)", "+cdi(o)", "+certified(t, o)"],
        meaning="from now on procedures alone change it, this one first",
    ),
    rule(
        "certify",
        {"u": _S, "t": _P, "o": _O},
        _CERTIFIER | {"constrained": "cdi(o)"},
        ["+certified(t, o)"],
        meaning="C2: the procedure takes the item from one valid state to another",
    ),
    rule(
        "certify-upgrade",
        {"u": _S, "t": _P, "o": _O},
        _CERTIFIER | {"certified": "certified(t, o)"},
        ["+upgrades(t, o)"],
        meaning="C5: and makes it of an unconstrained item, or rejects that",
    ),
    rule(
        "decertify",
        {"u": _S, "t": _P, "o": _O},
        _CERTIFIER | {"forbidden": "not some s: triple(s, t, o)"},
        ["-certified(t, o)", "-upgrades(t, o)"],
        meaning="once nobody may run it any more",
    ),
    rule(
        "permit",
        {"u": _S, "s": _S, "t": _P, "o": _O},
        _CERTIFIER | {"certified": "certified(t, o)", "separation": "not certifier(t, s)"},
        ["+triple(s, t, o)"],
        meaning="E2, and E4: who certifies a procedure does not run it",
    ),
    rule("forbid", {"u": _S, "s": _S, "t": _P, "o": _O}, _CERTIFIER, ["-triple(s, t, o)"]),
)

_DEMANDS: Final = (
    rule(
        "demand-approval",
        {"u": _S, "m": _M},
        {"provider": "executes(authorize, u)", "not-agreed": "not done(m, agree)"},
        ["+two_persons(m)"],
        meaning="the policy lets this migration happen only if a second person agrees (S2)",
    ),
)

CLASSICAL: Final[tuple[Rule, ...]] = _ACCESSES + _MATRIX + _OBJECTS + _SUBJECTS + _CERTIFICATION + _DEMANDS
