"""A folder of ClamAV signatures: how many, and of what day.

Limit: counts what the files say (the header of a .cvd or .cld, the lines of a text file), not what clamd
loaded of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

from korora import named_file

KORORAS_OWN: Final = Path(str(files("korora.adapters.scanner"))) / "signatures"
"""Text signatures of test files, and of nothing else."""
_PACKED: Final = {".cvd", ".cld", ".cud"}
_TEXT: Final = {
    ".ndb",
    ".ndu",
    ".hdb",
    ".hsb",
    ".hdu",
    ".hsu",
    ".mdb",
    ".msb",
    ".ldb",
    ".ldu",
    ".cdb",
    ".yar",
    ".yara",
}
_HEADER_BYTES: Final = 512


@dataclass(frozen=True, slots=True)
class Signatures:
    """`dated`: Unix seconds of the newest; None if nobody says."""

    folder: Path
    count: int
    dated: int | None


def signatures(folder: Path) -> Signatures | None:
    """None when there are none, or they cannot be read."""
    try:
        found = [_counted(file) for file in sorted(folder.iterdir()) if file.suffix in _PACKED | _TEXT]
    except OSError:
        return None
    if not found:
        return None
    # When Korora was installed says nothing of its signatures' age.
    dated = None if folder == KORORAS_OWN else max(when for _, when in found)
    return Signatures(folder, sum(count for count, _ in found), dated)


def _counted(file: Path) -> tuple[int, int]:
    if file.suffix in _PACKED:
        with named_file.opened(file) as opened:
            return _header(opened.read(_HEADER_BYTES)) or (0, 0)
    return _lines(file), int(file.stat().st_mtime)


def _header(head: bytes) -> tuple[int, int] | None:
    """`ClamAV-VDB:build time:version:signatures:level:MD5:signature:builder:seconds`."""
    fields = head.decode("latin-1").strip().split(":")
    try:
        return int(fields[3]), int(fields[8])
    except (IndexError, ValueError):
        return None


def _lines(file: Path) -> int:
    with named_file.opened(file) as opened:
        if file.suffix in {".yar", ".yara"}:
            return sum(
                line.lstrip().startswith((b"rule ", b"private rule ", b"global rule ")) for line in opened
            )
        return sum(bool(line.strip()) and not line.startswith(b"#") for line in opened)
