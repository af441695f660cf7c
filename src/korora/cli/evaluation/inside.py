"""What a receipt says of the inside of the VM: its disks, files, malware and flags (E2 to E5)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from korora.model.inspection import Check, DiskFacts, Inspection
from korora.policy.evaluation.evidence import Finding, Link, Standing
from korora.protocol.receipt.document import Receipt

ENGINES: Final = ("clamav:", "yara:", "reputation:")
_NOBODY: Final = "nobody looked into the VM for this move"


def of_inside(told: Receipt, file: Link) -> Iterator[Finding]:
    report = told.inspection
    if report is None:
        for fact in ("disk-digests", "file-digests", "scan", "flags"):
            yield Finding(fact, Standing.LACKING, _NOBODY, (file,))
        return
    yield _digests("disk-digests", "chunks", report.disks, [disk.root for disk in report.disks], file)
    yield _digests("file-digests", "files", report.disks, [disk.files_root for disk in report.disks], file)
    yield _scan(report, file)
    yield _flags(told, file)


def _digests(
    fact: str, what: str, disks: Sequence[DiskFacts], roots: Sequence[str | None], file: Link
) -> Finding:
    """Of the source's word alone: that they are the same later is for `korora vm verify` to say there."""
    if not disks:
        return Finding(fact, Standing.GOOD, "it has no disk that was looked at", (file,))
    missing = [disk.name for disk, root in zip(disks, roots, strict=True) if root is None]
    if missing:
        return Finding(
            fact, Standing.LACKING, f"there is no digest of the {what} of {', '.join(missing)}", (file,)
        )
    return Finding(
        fact, Standing.PARTLY, f"digests of the {what} were taken before; not compared yet", (file,)
    )


def _scan(report: Inspection, file: Link) -> Finding:
    malware, indicators = report.result(Check.MALWARE), report.result(Check.INDICATORS)
    made = [one for one in (malware, indicators) if one is not None]
    words = "; ".join(
        f"{one.check}: {one.found} found in {one.examined}, {one.unknown} unknown" for one in made
    )
    if not made or any(one.found for one in made):
        return Finding(
            "scan", Standing.LACKING, words or "neither malware nor indicators were looked for", (file,)
        )
    whole = len(made) == 2 and not any(one.unknown for one in made)
    three = malware is not None and all(engine in malware.words for engine in ENGINES)
    return Finding("scan", Standing.GOOD if whole and three else Standing.PARTLY, words, (file,))


def _flags(told: Receipt, file: Link) -> Finding:
    flags = told.flags
    if flags is None or not flags.open + flags.resolved:
        return Finding("flags", Standing.GOOD, "nothing is flagged", (file,))
    words = f"{flags.open} open, {flags.resolved} resolved"
    return Finding("flags", Standing.PARTLY if flags.open else Standing.GOOD, words, (file,))
