"""What became of each file: between two readings of a disk, or of two disks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from korora.model.files import FileRecord

Change = Literal["added", "removed", "changed"]
_COMPARED: Final = ("kind", "mode", "owner", "group", "size", "target", "device", "xattrs", "blake3")


@dataclass(frozen=True, slots=True)
class FileChange:
    """`what`: the facts that differ, each with before and after."""

    change: Change
    volume: int
    path: bytes
    what: tuple[str, ...] = ()


def changes(
    before: Mapping[tuple[int, bytes], FileRecord], after: Iterable[FileRecord]
) -> Iterator[FileChange]:
    """In the order of `after`, then what is gone. What was not read differs from what was."""
    seen = set()
    for file in after:
        key = file.volume, file.path
        seen.add(key)
        if (old := before.get(key)) is None:
            yield FileChange("added", *key)
        elif what := tuple(_differing(old, file)):
            yield FileChange("changed", *key, what)
    for key in before:
        if key not in seen:
            yield FileChange("removed", *key)


def _differing(old: FileRecord, new: FileRecord) -> Iterator[str]:
    for name in _COMPARED:
        was, now = getattr(old, name), getattr(new, name)
        if was == now:
            continue
        match name:
            case "blake3":
                yield "content"
            case "mode":
                yield f"mode {was:04o} → {now:04o}"
            case "target":
                yield f"target {was.decode(errors='replace')!r} → {now.decode(errors='replace')!r}"
            case "xattrs":
                yield "xattrs " + ", ".join(sorted((was or {}).keys() ^ (now or {}).keys()) or ["changed"])
            case _:
                yield f"{name} {was} → {now}"
