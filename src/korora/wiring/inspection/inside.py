"""The files of one disk, in one reading: what packages, engines and indicators have to say of them."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from korora.adapters.filesystem.holes import TREE
from korora.adapters.filesystem.sandboxed import SandboxedFiles
from korora.agents.integrity.files.comparing import FileChange, changes
from korora.agents.integrity.files.packages.verifying import SystemFinding
from korora.model.files import Content, FileRecord
from korora.model.flag import FlagKind, Original, Place
from korora.model.identity import sha256
from korora.model.image import ImageFiles, NbdExport
from korora.model.inspection import Check, DiskFacts, Found
from korora.model.scan import Answer
from korora.protocol import canonical, flag
from korora.wiring.files_inside import FilesInside, name_of
from korora.wiring.image_files import Reading, system_findings
from korora.wiring.inspection.gathering import Gathering
from korora.wiring.inspection.originals import TOTAL_BYTES, Originals
from korora.wiring.inspection.tools import Tools
from korora.wiring.scanning import Scanned

ORIGINALS_MAX: Final = 200
_INFECTED: Final = {Answer.INFECTED, Answer.SUSPICIOUS}
_AS_ITS_PACKAGE: Final = {"configured", "unread"}
"""No findings: what an administrator may change, and what is told as unread already."""
_SYSTEM: Final = {
    "changed": "it is not as the package {package} brought it",
    "missing": "the package {package} brought it, and it is not there",
    "not a file": "the package {package} brought a file, and something else lies there",
    "privileged": "who starts it gains rights that the package {package} did not give it",
}
_OF_NO_PACKAGE: Final = "who starts it gains rights, and no package brought it"
Tell = Callable[[str], None]
_Flagged = tuple[Found, FileRecord | None]
"""With the file that the original is of, if it is there."""


@dataclass(frozen=True, slots=True)
class Seen:
    """All files of a disk; iterated, their records."""

    reading: Reading

    def __iter__(self) -> Iterator[FileRecord]:
        return iter(self.reading.files.values())

    @property
    def files(self) -> int:
        return len(self.reading.files)

    def changes_since(self, before: Mapping[tuple[int, bytes], FileRecord]) -> Iterator[FileChange]:
        return changes(before, self)


@dataclass(frozen=True, slots=True)
class _Grave:
    """Something in a file, or in a member of an archive, by its name in the results."""

    kind: FlagKind
    name: str
    reason: str


def look(disk: ImageFiles | NbdExport, name: str, gathering: Gathering, tools: Tools, tell: Tell) -> Seen:
    """All of it. KororaError when nothing can be read; what cannot be read of it is told."""
    count = 0

    def counted(_: FileRecord) -> None:
        nonlocal count
        count += 1
        tell(f"disk {name}: {count} files")

    if tools.matching is not None:
        tools.matching.comparison.examined.clear()  # of the disk before
    files = FilesInside(disk, engines=tools.engines, matching=tools.matching, tell=counted)
    graves = [*_scanned(files, name, gathering)]
    seen = Seen(files.reading)
    graves += _matched(tools, name, gathering, seen.files)
    found = [*_of_graves(graves, name, seen), *_packages(seen, name, gathering)]
    for problem in seen.reading.digest.problems:
        place = Place(disk=name, file=problem.where[:1000])
        gathering.finds(Found(kind=FlagKind.UNREAD, place=place, reason=problem.problem))
    unknown = len(seen.reading.digest.problems)
    gathering.looked(Check.FILES, examined=seen.files, unknown=unknown, words="BLAKE3 and facts of each file")
    # What nobody could read of the disk no engine, list or package has seen either.
    for check in (Check.PACKAGES, Check.MALWARE, Check.INDICATORS):
        gathering.looked(check, unknown=len(files.unread()))
    _tell(found, disk, gathering, tools.originals)
    return seen


def with_files(facts: DiskFacts, seen: Seen) -> DiskFacts:
    digest = seen.reading.digest
    return msgspec.structs.replace(
        facts, files_root=digest.root(), files=seen.files, bytes_read=digest.bytes_read
    )


def _scanned(files: FilesInside, disk: str, gathering: Gathering) -> Iterator[_Grave]:
    answers: Counter[Answer] = Counter()
    for one in files.look():
        answers[one.verdict.answer] += 1
        if one.verdict.answer in _INFECTED:
            yield _Grave(FlagKind.INFECTED, one.name, _words(one))
    if files.engines is not None:
        _looked(gathering, Check.MALWARE, disk, answers.total(), answers[Answer.UNKNOWN])


def _looked(gathering: Gathering, check: Check, disk: str, examined: int, unknown: int) -> None:
    """What nobody could say anything of is a finding, once for each disk."""
    gathering.looked(check, examined=examined, unknown=unknown)
    if unknown:
        place = Place(disk=disk, file=f"check of {check}")
        reason = f"nothing can be said of {unknown} of {examined} files"
        gathering.finds(Found(kind=FlagKind.UNREAD, place=place, reason=reason))


def _words(one: Scanned) -> str:
    said = (f"{by.engine}: {by.words}" for by in one.answers if by.answer in _INFECTED)
    return f"{one.verdict.answer}: {'; '.join(said)}"


def _matched(tools: Tools, disk: str, gathering: Gathering, files: int) -> list[_Grave]:
    if tools.matching is None:
        return []
    examined = tools.matching.comparison.examined
    unknown = sum(bool(one.unknown) for one in examined)
    _looked(gathering, Check.INDICATORS, disk, files, unknown)
    found = []
    for one in examined:
        said = [
            f"{match.hit.kind} {match.hit.value} ({', '.join(_sources(match.told))})"
            for match in one.matches
            if match.told is not None
        ]
        if one.matched:
            found.append(_Grave(FlagKind.INDICATOR, one.path, "; ".join(said[:10])))
    return found


def _sources(told: object) -> list[str]:
    indicator = getattr(told, "indicator", None)
    return sorted({one.source for one in indicator.provenances}) if indicator is not None else []


def _packages(seen: Seen, name: str, gathering: Gathering) -> Iterator[_Flagged]:
    if not gathering.wants(Check.PACKAGES):
        return
    known = sum(len(database.packages.stated) for database in seen.reading.databases)
    findings = list(system_findings(seen.reading))
    counted = Counter(one.finding for one in findings)
    for one in findings:
        if one.finding not in _AS_ITS_PACKAGE:
            yield _of_system(one, name), one.file
    configured = counted["configured"]
    words = f"{known} files of packages; {configured} configuration files differ, as administrators may want"
    gathering.looked(Check.PACKAGES, examined=known, unknown=counted["unread"], words=words)


def _of_system(one: SystemFinding, disk: str) -> Found:
    file = one.file
    place = Place(disk=disk, volume=one.volume, path=one.path if file is None else file.path)
    reason = f"{one.finding}: {_SYSTEM[one.finding].format(package=one.package)}"
    if one.finding == "privileged" and not one.package:
        reason = f"{one.finding}: {_OF_NO_PACKAGE}"
    content = ""
    if file is not None:
        content = _digest(file) if one.finding == "changed" else _digest_of_facts(file)
    return Found(kind=FlagKind.SYSTEM_FILE, place=place, content=content, reason=reason)


def _digest(file: FileRecord) -> str:
    told = file.blake3 or ""
    return f"blake3:{told}" if told and not told.startswith(TREE) else told


def _digest_of_facts(file: FileRecord) -> str:
    """Where not the content is what is wrong, or not it alone."""
    facts = [file.kind, file.blake3, file.mode, file.owner, file.group, file.target, file.device]
    return sha256(canonical.encoded([*facts, sorted((file.xattrs or {}).items())]))


def _of_graves(graves: list[_Grave], disk: str, seen: Seen) -> Iterator[_Flagged]:
    wanted = {outer for grave in graves for outer in _outer(grave.name)}
    records = {called: file for file in seen if (called := name_of(file.volume, file.path)) in wanted}
    for grave in graves:
        yield _found(grave, records, disk), _record(grave, records)


def _tell(
    found: list[_Flagged], disk: ImageFiles | NbdExport, gathering: Gathering, originals: Originals
) -> None:
    """Each with its original, or why that is left."""
    wanted = {(file.volume, file.path): file for one, file in found if file and originals.wants(one.kind)}
    chosen = [file for file in wanted.values() if file.kind == "file" and originals.holds(file.size)]
    contents = _contents(disk, chosen[:ORIGINALS_MAX])
    for one, file in found:
        if file is not None and originals.wants(one.kind):
            called = flag.name(gathering.order.vm, one.kind, one.place, one.content)
            content = contents.get((file.volume, file.path))
            if content is None:
                original = Original(left=_why_left(file, originals))
            else:
                original = originals.kept(called, one.kind, one.place, one.reason, content)
            one = msgspec.structs.replace(one, original=original)  # noqa: PLW2901
        gathering.finds(one)


def _why_left(file: FileRecord, originals: Originals) -> str:
    if file.kind != "file":
        return f"it is no file, but a {file.kind}"
    if not originals.holds(file.size):
        return f"it has {file.size} bytes, more than is kept"
    if file.problem:
        return "nothing of it could be read"
    return "more was flagged than is kept"


def _outer(name: str) -> Iterator[str]:
    """The file that it may be, or be a member of: a file's own name may look like a member's."""
    yield name
    while "!/" in name:
        name = name.rpartition("!/")[0]
        yield name


def _record(grave: _Grave, records: Mapping[str, FileRecord]) -> FileRecord | None:
    return next((records[outer] for outer in _outer(grave.name) if outer in records), None)


def _found(grave: _Grave, records: Mapping[str, FileRecord], disk: str) -> Found:
    file = _record(grave, records)
    if file is None:
        return Found(kind=grave.kind, place=Place(disk=disk, file=grave.name[:1000]), reason=grave.reason)
    member = grave.name.removeprefix(name_of(file.volume, file.path))
    path = file.path + member.encode("utf-8", "backslashreplace")
    place = Place(disk=disk, volume=file.volume, path=path)
    return Found(kind=grave.kind, place=place, content=_digest(file), reason=grave.reason)


def _contents(disk: ImageFiles | NbdExport, files: list[FileRecord]) -> dict[tuple[int, bytes], bytes]:
    """Of these, as far as there is room; read once more: what is kept is rare, and nobody knew before."""
    room, wanted = TOTAL_BYTES, []
    for file in files:
        if file.size <= room:
            room -= file.size
            wanted.append(glob.escape(file.path))
    contents: dict[tuple[int, bytes], bytes] = {}
    for one in SandboxedFiles().walk(disk, wanted) if wanted else ():
        if isinstance(one, Content):
            place = (one.volume, one.path)
            contents[place] = contents.get(place, b"") + one.content
    return contents
