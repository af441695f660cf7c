"""The ideal installation: what its hosts, logs and configuration would show, criterion by criterion.

Each criterion of a migration is asked here as well, of the newest migrations that each host's log has
(`recent/…`, the worst of them), beside what only a host or its site can show.
"""

from __future__ import annotations

from typing import Final

from korora.policy.evaluation import migration
from korora.policy.evaluation.evidence import Kind
from korora.policy.evaluation.yardstick import Criterion, Need, Scope, Yardstick

RECENT: Final = "recent/"
ENROLMENT_GOOD_S: Final = 30 * 86_400
_MOVE_ONE: Final = "move a VM, so that there is a receipt to look at"


def _host(fact: str, text: str, raises: str, *, vital: bool = False, share: int = 1, on: str = "") -> Need:
    """`on` is another fact of the same host that it rests on."""
    rests_on = (on,) if on else ()
    return Need(fact, text, raises, vital=vital, share=share, scope=Scope.EACH_HOST, rests_on=rests_on)


_OWN: Final[dict[str, tuple[Need, ...]]] = {
    migration.PRECHECKS.id: (
        _host("answers", "its daemon answers under its name", "start korora hostd there", vital=True),
        _host("files", "it can use every file of the site", "mend what `korora host show` names"),
        _host("tpm", "its TPM answers", "see that the daemon may open the TPM"),
        _host("accelerator", "guests run in hardware", "turn virtualization on, and load KVM's module"),
        Need("machine", "this machine has all that is needed", "mend what `korora doctor` names"),
    ),
    migration.AUTHORIZATION.id: (
        Need("operators", "every operator has a key of their own", "name their keys in authorization.toml"),
        Need("policies", "the site's policies can be used", "mend what `korora policy check` names"),
        Need(
            "examples",
            "the policies answer the site's own examples as expected",
            "write examples of who may do what, and try them: `korora policy test`",
        ),
    ),
    migration.AUTHENTICATION.id: (
        _host(
            "trusted", "a fresh quote shows a trusted state", "see `korora host attest`", vital=True, share=2
        ),
        _host(
            "enrolment",
            "its enrolment holds for another month",
            "enrol it again: `korora host enroll`",
            on="trusted",
        ),
        _host(
            "secure-boot",
            "it booted with Secure Boot",
            "turn Secure Boot on in its firmware, and describe that state in reference.toml",
            on="trusted",
        ),
    ),
    migration.REPLAY.id: (Need("clock", "somebody keeps the clock", "keep the clock by NTP"),),
    migration.NON_REPUDIATION.id: (
        _host(
            "log",
            "its log gives the signed root, and begins with what was seen before",
            "evaluate again later: then it is seen whether the log only grew",
            vital=True,
            share=2,
        ),
        _host("receipts", "every receipt that its log names is kept", _MOVE_ONE, on="log"),
    ),
    migration.OWNERSHIP.id: (
        _host("owners", "what it runs is its own, and of no other host", "see `korora vm list`", vital=True),
    ),
    migration.VTPM.id: (
        _host("vtpms", "every VM on it has a vTPM", "give its VMs a vTPM: `vtpm = true`"),
        _host("boots", "every VM on it booted as it first did", "see `korora vm show` of each VM"),
    ),
}
SECOND_PERSON: Final = Criterion(
    migration.SECOND_PERSON.id,
    migration.SECOND_PERSON.requirement,
    migration.SECOND_PERSON.asked,
    migration.SECOND_PERSON.ideal,
    migration.SECOND_PERSON.weight,
    # A host's log would have the approval; a receipt has none.
    (_host("second-person", "another person approved each of its newest migrations", _MOVE_ONE, on="log"),),
)
RULES: Final = Criterion(
    "rules",
    "P4",
    asked="Were the rules asked for each step, and are their answers in the log?",
    ideal="of each of the newest migrations the log has the rules' yes to every step that its host took",
    weight=2,
    needs=(_host("decisions", "the decisions of its newest migrations are in the log", _MOVE_ONE, on="log"),),
)

QUESTIONS: Final = Criterion(
    "questions",
    "P2",
    asked="Did a person answer what no rule decides?",
    ideal="no question waits for a person",
    weight=1,
    needs=(_host("questions", "no question is open", "answer it: `korora question list`", vital=True),),
)


def _asked_of_hosts(one: Criterion) -> Criterion:
    """The same question, of every host and its newest migrations."""
    if one.id == SECOND_PERSON.id:
        return SECOND_PERSON
    recent = _host(f"{RECENT}{one.id}", "its newest migrations come up to this", _MOVE_ONE, on="log")
    own = _OWN.get(one.id, ())
    return Criterion(one.id, one.requirement, one.asked, one.ideal, one.weight, (*own, recent))


INSTALLATION: Final = Yardstick(
    Kind.INSTALLATION,
    "A site whose every host proves what it booted and keeps a log that nobody can rewrite unseen, and whose"
    " every migration comes up to the ideal one.",
    (*map(_asked_of_hosts, migration.MIGRATION.criteria), RULES, QUESTIONS),
)
