"""OVF packages: the files in them, and the manifest that says what they must be.

Promise: names never leave the package; what the manifest names twice, or is not there, is a finding.
Limit: a manifest without a signature shows damage, not tampering: whoever changes a disk can change it too.

Source: DMTF DSP0243, Open Virtualization Format 2.1, sections 6.1 and 6.3 (package, manifest file).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final, Literal

from korora.agents.integrity.disks.descriptor import Reference
from korora.model.image import MAX_MEMBERS, Format, ImageFinding

MAX_MANIFEST_BYTES: Final = 1 << 20
_MAX_FINDINGS: Final = 50
_OF_THE_PACKAGE: Final = (".ovf", ".mf", ".cert")
_LINE: Final = re.compile(
    r"\s*(SHA1|SHA256|SHA512)\s*\((?P<file>.{1,255})\)\s*=\s*(?P<digest>[0-9a-fA-F]+)\s*"
)
_DISKS: Final = {
    ".vmdk": Format.VMDK,
    ".vhd": Format.VHD,
    ".vhdx": Format.VHDX,
    ".qcow2": Format.QCOW2,
    ".vdi": Format.VDI,
    ".raw": Format.RAW,
    ".img": Format.RAW,
}

Algorithm = Literal["sha1", "sha256", "sha512"]


@dataclass(frozen=True, slots=True)
class Claim:
    """One line of a manifest."""

    file: str
    algorithm: Algorithm
    digest: str


def claims(manifest: bytes) -> tuple[tuple[Claim, ...], tuple[ImageFinding, ...]]:
    """What the manifest says, and what of it cannot be used."""
    found: dict[str, Claim] = {}
    findings = []
    for number, line in enumerate(manifest.decode("utf-8", "replace").splitlines(), start=1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            findings.append(ImageFinding("warning", "manifest", f"line {number} of the manifest is no claim"))
        elif match["file"] in found:
            findings.append(
                ImageFinding("critical", "manifest", f"the manifest names {match['file']!r} more than once")
            )
        else:
            algorithm: Algorithm = {"SHA1": "sha1", "SHA256": "sha256", "SHA512": "sha512"}[match[1]]  # type: ignore[assignment]
            found[match["file"]] = Claim(match["file"], algorithm, match["digest"].lower())
        if len(found) > MAX_MEMBERS or len(findings) > _MAX_FINDINGS:
            findings.append(
                ImageFinding("critical", "manifest", "the manifest is longer, and read no further")
            )
            break
    return tuple(found.values()), tuple(findings)


def judged(
    stated: Collection[Claim], there: Collection[str], digests: Mapping[str, str]
) -> Iterator[ImageFinding]:
    """The claims against the files that are there, and their digests (file → hex)."""
    for claim in stated:
        if claim.file not in there:
            yield ImageFinding("critical", "missing", f"{claim.file!r} is named, and not in the package")
        elif digests.get(claim.file) != claim.digest:
            yield ImageFinding("critical", "changed", f"{claim.file!r} is not what the manifest says")
        if claim.algorithm == "sha1":
            yield ImageFinding("info", "weak-digest", f"the manifest has only a SHA-1 of {claim.file!r}")
    named = {claim.file for claim in stated}
    for name in sorted(there):
        if stated and name not in named and not name.lower().endswith((".mf", ".cert")):
            yield ImageFinding("warning", "unnamed", f"{name!r} is in the package and not in the manifest")
    if not stated:
        yield ImageFinding("warning", "no-manifest", "without a manifest nothing says what it must be")


def covered(referred: Collection[Reference], there: Collection[str]) -> Iterator[ImageFinding]:
    """What the descriptor refers to, against the files that are there: what no digest of its disks covers."""
    for one in referred:
        if one.file not in there:
            yield ImageFinding("critical", "missing", f"the descriptor refers to {one.file!r}: not there")
        elif one.altered:
            yield ImageFinding("critical", "altered", f"{one.file!r} is {one.altered}, and cannot be read so")
    for name in sorted(there):
        if disk_format(name) is None and not name.lower().endswith(_OF_THE_PACKAGE):
            yield ImageFinding("warning", "uncovered", f"{name!r} is no disk: no digest covers it")
    for suffix in (".ovf", ".mf"):
        number = sum(name.lower().endswith(suffix) for name in there)
        if number > 1:
            yield ImageFinding("critical", "ambiguous", f"it has {number} files that end in {suffix}")


def disk_format(name: str) -> Format | None:
    """Of a disk in a package, by its name; None for another file."""
    return _DISKS.get(PurePosixPath(name).suffix.lower())
