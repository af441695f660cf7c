"""Which property a clause of a guard serves: the reason behind the reason of a *no*.

Checked, not believed: `policy.proof.audit` deletes each clause and sees that property lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

_BY_LABEL: Final[Mapping[str, str]] = MappingProxyType(
    {
        "discretionary": "discretionary",
        "no-read-down": "simple-security",
        "no-write-up": "no-write-up",
        "owner": "rights-come-from-the-owner",
        "alters": "udi-changes-by-its-writer",
        "fresh": "objects-belong-to-owners",
        "compatible": "compatibility",
        "leaf": "hierarchy",
        "of-no-migration": "nothing-dangles",
        "no-credential": "nothing-dangles",
        "rescinded": "nothing-dangles",
        "registrar": "tranquillity",
        "no-escalation": "tranquillity",
        "signed-out": "tranquillity",
        "credential": "identity-is-shown",
        "valid": "identity-is-shown",
        "who": "identity-is-shown",
        "certifier": "certificates-come-from-certifiers",
        "certified": "certified-relations",
        "forbidden": "certified-relations",
        "separation": "certifier-executes-nothing",
        "authenticated": "every-entry-is-permitted",
        "triple": "every-entry-is-permitted",
        "executes": "every-entry-is-permitted",
        "output": "cdi-changes-by-certified-procedure",
        "output-belongs": "what-is-done-is-logged",
        "output-unflagged": "suspicion-is-no-validity",
        "entry-fresh": "log-is-append-only",
        "input": "information-rises-by-upgrade-alone",
        "input-belongs": "procedures-stay-in-their-migration",
        "input-valid": "valid-comes-of-valid",
        "input-unconstrained": "valid-comes-of-valid",
        "upgrades": "information-rises-by-upgrade-alone",
        "once": "done-stays-done",
        "not-withdrawn": "withdrawn-is-over",
        "not-released": "withdrawn-is-not-released",
        "not-reclaimed": "one-host-runs-it",
        "not-run": "one-host-runs-it",
        "not-flagged": "suspicion-is-no-validity",
        "flagged": "suspicion-is-no-validity",
        "apart": "suspicion-is-no-validity",
        "provider": "demands-stay",
        "not-agreed": "two-persons",
        "approved": "two-persons",
        "unchanged": "what-is-done-is-logged",
    }
)
_BY_RULE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "write.unconstrained": "cdi-changes-by-certified-procedure",
        "create.owner": "objects-belong-to-owners",
        "delete.unconstrained": "objects-belong-to-owners",
        "change-object-class.unconstrained": "objects-belong-to-owners",
        "change-object-class.owner": "objects-belong-to-owners",
        "change-object-class.closed": "objects-belong-to-owners",
        "change-object-class.leaf": "compatibility",
        "change-subject-class.closed": "tranquillity",
        "constrain.unconstrained": "constrained-stays-constrained",
        "constrain.closed": "constrained-stays-constrained",
        "certify.constrained": "certified-relations",
        "authenticate.observes": "identity-is-shown",
        "confirm.observes": "validity-is-confirmed",
        "approve.another-person": "requester-is-not-approver",
        "resolve.another-person": "another-person-resolves",
        "flag.constrained": "suspicion-is-no-validity",
        "flag.input": "suspicion-is-seen",
        "flag.input-belongs": "suspicion-is-no-validity",
        "resolve.input": "suspicion-is-seen",
    }
)


def protected_by(rule: str, clause: str) -> str:
    """The property's name; empty for a clause that serves none."""
    if clause.startswith("after-"):
        return "order"
    return _BY_RULE.get(f"{rule}.{clause}") or _BY_LABEL.get(clause, "")
