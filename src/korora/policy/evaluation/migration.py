"""The ideal migration: what a receipt would show of it, criterion by criterion.

Limit: a receipt is what two hosts signed. Of some rows of the paper no receipt of this version speaks; they
stand here all the same, for the ideal has them, and are not looked at.
"""

from __future__ import annotations

from typing import Final

from korora.policy.evaluation.evidence import Kind
from korora.policy.evaluation.yardstick import Criterion, Need, Yardstick

DOWNTIME_GOOD_MS: Final = 1_000
DOWNTIME_PARTLY_MS: Final = 10_000
REQUEST_GOOD_S: Final = 3_600
LOOK: Final = "let the source look into the VM: `inspection = FILE` in its hostd.toml"
VERIFY: Final = f"{LOOK}; then hold the VM against it where it is: korora vm verify"
NOT_IN_A_RECEIPT: Final = "a receipt has no approval in it: evaluate a host of it, whose log has"

_SIGNED: Final = ("bundle", "signatures")
_OTHER_COPY: Final = "believe nothing of this receipt; ask the other host for its copy"
_NEWEST: Final = "use the same, newest version of Korora on both hosts"
_DEFINE: Final = "define the VM for Korora instead of adopting it"
_OWN_VTPM: Final = f"give the VM a vTPM (`vtpm = true`); {_DEFINE}"
_COMPARED_BOOT: Final = "let the guest deliver its event log, and start it once more: a boot to compare with"
_NO_EXCEPTION: Final = "have no swap on the hosts; copies in a process that ended are beyond this version"


def _told(
    fact: str, text: str, raises: str = _OTHER_COPY, *, vital: bool = False, share: int = 1, on: str = ""
) -> Need:
    """What the receipt says, which counts only under both signatures. `on` is one more fact it rests on."""
    rests_on = tuple(ground for ground in (*_SIGNED, on) if ground and ground != fact)
    return Need(fact, text, raises, vital=vital, share=share, rests_on=rests_on)


PRECHECKS: Final = Criterion(
    "prechecks",
    "S1",
    asked="Was it made sure beforehand that the VM can run there?",
    ideal="every precheck was made, and the best cryptography that both hosts offer was agreed",
    weight=3,
    needs=(
        _told("prechecks", "every precheck was made", _NEWEST),
        _told("session", "the agreed rule is the best that both hosts offered"),
    ),
)
AUTHORIZATION: Final = Criterion(
    "authorization",
    "S2",
    asked="Was it asked for by somebody who may?",
    ideal="a known operator signed the request for exactly this, and each host names its rule for it",
    weight=3,
    needs=(
        _told("request", "the operator's signature over exactly this migration", vital=True),
        _told("allowed", "the rule of each host that allowed it", vital=True),
    ),
)
SECOND_PERSON: Final = Criterion(
    "second-person",
    "S2",
    asked="Did a second person agree?",
    ideal="another person than the one who asked approved it",
    weight=1,
    needs=(_told("second-person", "the approval of another operator", NOT_IN_A_RECEIPT),),
)
AUTHENTICATION: Final = Criterion(
    "authentication",
    "S3",
    asked="Did each host know the other, and what it had booted?",
    ideal="both hosts quoted a trusted state over this very session, with keys that the site certified",
    weight=3,
    needs=(
        _told("session", "both HELLOs give this session", vital=True),
        _told("source-attestation", "the source's quote, in a trusted state", vital=True),
        _told("destination-attestation", "the destination's quote, in a trusted state", vital=True),
    ),
)
CHANNEL: Final = Criterion(
    "channel",
    "S4",
    asked="Was all that crossed kept secret, and did it arrive unchanged?",
    ideal="all of it crossed under the agreed cryptography, and both hosts signed the same roots",
    weight=3,
    needs=(
        _told("session", "the agreed cryptography", vital=True),
        _told("arrival", "the same stream roots and bytes on both sides", vital=True, on="ownership"),
    ),
)
REPLAY: Final = Criterion(
    "replay",
    "S5",
    asked="Can an old request, message or VM be brought again?",
    ideal="all is bound to this session and dated in order, and the request was valid for an hour at most",
    weight=3,
    needs=(
        _told("session", "a session of both hosts' fresh randomness", vital=True),
        _told("time", "times in the order in which things must have been done", vital=True),
        _told("short-lived", "a request that expires soon", "sign for an hour at most", on="request"),
    ),
)
NON_REPUDIATION: Final = Criterion(
    "non-repudiation",
    "S6",
    asked="Can either host deny it later?",
    ideal="both hosts signed one receipt, and it stands in the append-only logs of both",
    weight=3,
    needs=(
        _told("signatures", "both hosts' signatures", vital=True),
        _told("source-log", "the entry in the source's log", vital=True),
        _told("destination-log", "the entry in the destination's log", vital=True),
    ),
)
HYGIENE: Final = Criterion(
    "hygiene",
    "S7",
    asked="Was the destination's memory clean, and is nothing left at the source?",
    ideal="memory was seen clean before, and all that was at the source was seen gone, without exception",
    weight=3,
    needs=(
        _told("clean-memory", "the destination's memory was seen to be clean", _DEFINE),
        _told("wipe", "what was at the source was overwritten and seen gone", _DEFINE),
        _told("wipe-limits", "the wipe certificate has no exceptions", _NO_EXCEPTION),
    ),
)
OWNERSHIP: Final = Criterion(
    "ownership",
    "S8",
    asked="Did exactly one host own the VM at every moment?",
    ideal="manifest, acceptance, release and report of running answer each other under the next epoch",
    weight=3,
    needs=(_told("ownership", "the chain of the hand-over's signed statements", vital=True),),
)
VTPM: Final = Criterion(
    "vtpm",
    "A1",
    asked="Did the VM keep its vTPM, and did only the attested destination get it?",
    ideal="its state crossed under a key that only the destination's TPM opens, it is the same as before,"
    " and the guest had booted as it first did",
    weight=3,
    needs=(
        _told("vtpm-key", "a key wrapped to the destination's TPM", _OWN_VTPM),
        _told("vtpm-identity", "the same EK, PCRs and NV before and after", _OWN_VTPM),
        _told("guest-boot", "a measured boot like the first", _COMPARED_BOOT),
    ),
)
INTERRUPTION: Final = Criterion(
    "interruption",
    "W1",
    asked="Did those whom the VM serves notice?",
    ideal="it moved live, and stood still for a second at most",
    weight=1,
    needs=(
        _told("live", "a live migration", "move it with --mode live"),
        _told("downtime", "a short downtime", "move it while it is quiet, or over a faster link", share=2),
    ),
)
CONFIGURATION: Final = Criterion(
    "configuration",
    "E1",
    asked="Is the VM's configuration the same?",
    ideal="the digest of its canonical form is in the signed manifest that the destination accepted",
    weight=2,
    needs=(
        _told("definition", "the definition's digest in the manifest", _NEWEST, vital=True, on="ownership"),
    ),
)
DISKS: Final = Criterion(
    "disks",
    "E2",
    asked="Are the VM's disks the same?",
    ideal="the guest-visible content of every disk has one digest before and after",
    weight=2,
    needs=(_told("disk-digests", "the same digests of every disk's content", VERIFY, on="inspection"),),
)
FILES: Final = Criterion(
    "files",
    "E3",
    asked="Are the files inside the VM the same?",
    ideal="its data and system files have the same digests before and after",
    weight=2,
    needs=(_told("file-digests", "the same digests of the files inside", VERIFY, on="inspection"),),
)
MALWARE: Final = Criterion(
    "malware",
    "E4",
    asked="Is there anything malicious in it?",
    ideal="three engines looked at its files and found nothing, and no indicator of several sources matches",
    weight=2,
    needs=(_told("scan", "the findings of three engines and of indicators", LOOK, on="inspection"),),
)
FLAGS: Final = Criterion(
    "flags",
    "E5",
    asked="Is what is wrong with it marked, and its original kept?",
    ideal="every problem is flagged in the record, and a person has looked at each flag",
    weight=2,
    needs=(
        _told(
            "flags", "the flags, each resolved", "korora flags list; mend each, or accept it", on="inspection"
        ),
    ),
)

MIGRATION: Final = Yardstick(
    Kind.MIGRATION,
    "A migration that two attested hosts can prove to somebody who trusts neither: asked for and approved by"
    " people who may, unnoticed by the guest, with everything of the VM the same, and nothing left behind.",
    (
        PRECHECKS,
        AUTHORIZATION,
        SECOND_PERSON,
        AUTHENTICATION,
        CHANNEL,
        REPLAY,
        NON_REPUDIATION,
        HYGIENE,
        OWNERSHIP,
        VTPM,
        INTERRUPTION,
        CONFIGURATION,
        DISKS,
        FILES,
        MALWARE,
        FLAGS,
    ),
)
