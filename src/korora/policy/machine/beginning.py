"""What one host begins a migration with: its subjects and items, their classes, and who may run what on what.

One table says it, `STEPS`: each procedure with its user, the agent in which it runs, the item it takes and
the item it makes. Classes are those of the paper's hierarchy (section 4.1, item 13); docs/POLICY.md argues
each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from korora.policy.machine.language.vocabulary import Access, Procedure
from korora.policy.machine.omega.procedures import UPGRADES
from korora.policy.machine.running.classes import AccessClass, Level
from korora.policy.machine.running.state import Facts, Row

IDENTITY_PROVIDER: Final = "identity-provider"
APPRAISER: Final = "appraiser"
TPM: Final = "host-tpm"
DOMAIN: Final = "privileged-domain"
CERTIFIER: Final = "certifier"
OPERATOR: Final = "operator"
APPROVER: Final = "approver"
"""The parts of who asks and of who agrees. Who they are is the session's to see to: two keys, two persons."""

AGENTS: Final = {
    IDENTITY_PROVIDER: Level.IDP,
    APPRAISER: Level.TA,
    TPM: Level.VTPM,
    DOMAIN: Level.RP,
    CERTIFIER: Level.TA,
}

CONSTRAINED: Final = {
    "policy": Level.TA,  # the rules and reference values in force: valid from the beginning
    "record": Level.IDP,
    "ticket": Level.IDP,
    "approval": Level.IDP,
    "quote": Level.VTPM,
    "verdict": Level.TA,
    "session": Level.RP,
    "baseline": Level.RP,
    "image": Level.RP,  # memory and disks, as they cross
    "state": Level.RP,  # all of the VM, with its vTPM, paused
    "measurement": Level.TA,
    "comparison": Level.TA,
    "acceptance": Level.IDP,
    "release": Level.RP,
    "status": Level.RP,
    "wipe-certificate": Level.RP,
    "receipt": Level.RP,
    "reclamation": Level.RP,
    "withdrawal": Level.RP,
    "incident": Level.RP,
    "resolution": Level.RP,
}
UNCONSTRAINED: Final = {
    "request": Level.UA,  # signed by an operator, and so far only bytes
    "approval-form": Level.UA,
    "nonce": Level.UA,  # the other host's
    "arrival": Level.UA,  # what the other host says and sends
}
CREDENTIALS: Final = Level.IDP


@dataclass(frozen=True, slots=True)
class Step:
    """A procedure of a migration. `user` is a person, OPERATOR or APPROVER, or an agent."""

    agent: str
    takes: str
    makes: str
    user: str = DOMAIN


STEPS: Final[dict[Procedure, Step]] = {
    Procedure.SUBMIT: Step(IDENTITY_PROVIDER, "request", "record", OPERATOR),
    Procedure.AUTHORIZE: Step(IDENTITY_PROVIDER, "record", "ticket", IDENTITY_PROVIDER),
    Procedure.APPROVE: Step(IDENTITY_PROVIDER, "approval-form", "approval", APPROVER),
    Procedure.CHALLENGE: Step(TPM, "nonce", "quote", APPRAISER),
    Procedure.ATTEST: Step(APPRAISER, "quote", "verdict", APPRAISER),
    Procedure.AGREE: Step(DOMAIN, "verdict", "session"),
    Procedure.BASELINE: Step(DOMAIN, "session", "baseline"),
    Procedure.TRANSFER: Step(DOMAIN, "baseline", "image"),
    Procedure.SWITCHOVER: Step(DOMAIN, "image", "state"),
    Procedure.MEASURE: Step(APPRAISER, "arrival", "measurement", APPRAISER),
    Procedure.VERIFY: Step(APPRAISER, "measurement", "comparison", APPRAISER),
    Procedure.ACCEPT: Step(IDENTITY_PROVIDER, "comparison", "acceptance", IDENTITY_PROVIDER),
    Procedure.RELEASE: Step(DOMAIN, "acceptance", "release"),
    Procedure.RUN: Step(DOMAIN, "release", "status"),
    Procedure.WIPE: Step(DOMAIN, "status", "wipe-certificate"),
    Procedure.RECEIPT: Step(DOMAIN, "status", "receipt"),
    Procedure.RECLAIM: Step(DOMAIN, "arrival", "reclamation"),
    Procedure.WITHDRAW: Step(DOMAIN, "policy", "withdrawal"),
}


def item(session: str, name: str) -> str:
    """An item of one migration: of no other has it the name."""
    return f"{session}/{name}"


def beginning(session: str) -> Facts:
    """The first state. Nobody has anything open, nothing is done, and only the policy is vouched for."""
    facts: set[tuple[str, Row]] = set()
    for name, level in AGENTS.items():
        facts |= {("subject_class", (name, AccessClass(level))), ("authenticated", (name,))}
    for person in (OPERATOR, APPROVER):
        facts |= _person(session, person)
    for name, level in (CONSTRAINED | UNCONSTRAINED).items():
        facts |= _item(session, name, level)
    facts |= {("udi", (item(session, name),)) for name in UNCONSTRAINED}
    facts |= {("cdi", (item(session, name),)) for name in CONSTRAINED}
    facts.add(("valid", (item(session, "policy"),)))
    for procedure, step in STEPS.items():
        facts |= _step(session, procedure, step)
    return frozenset(facts)


def _person(session: str, person: str) -> set[tuple[str, Row]]:
    credential = item(session, f"credential of {person}")
    return {
        ("subject_class", (person, AccessClass(Level.UA))),
        ("credential", (person, credential)),
        ("cdi", (credential,)),
        ("valid", (credential,)),
        ("matrix", (IDENTITY_PROVIDER, credential, Access.READ.value)),
        *_item(session, f"credential of {person}", CREDENTIALS),
    }


def _item(session: str, name: str, level: Level) -> set[tuple[str, Row]]:
    of = item(session, name)
    return {
        ("live", (of,)),
        ("object_class", (of, AccessClass(level))),
        ("belongs", (of, session)),
        ("holds", (of, "")),
    }


def _step(session: str, procedure: Procedure, step: Step) -> set[tuple[str, Row]]:
    takes, makes = item(session, step.takes), item(session, step.makes)
    facts: set[tuple[str, Row]] = {
        ("certified", (procedure.value, makes)),
        ("certifier", (procedure.value, CERTIFIER)),
        ("executes", (procedure.value, step.agent)),
        ("matrix", (step.agent, makes, Access.APPEND.value)),
        ("triple", (step.user, procedure.value, makes)),
    }
    if procedure in UPGRADES:
        facts.add(("upgrades", (procedure.value, makes)))
    else:
        facts.add(("matrix", (step.agent, takes, Access.READ.value)))
    return facts
