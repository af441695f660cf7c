"""What is written down of a disk, to hold it against later: a leaf for each chunk, a line for each file."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from korora.agents.integrity.disks.measuring import Leaves, read_leaves
from korora.errors import IntegrityError
from korora.model.files import FileRecord

FILES_MAX: Final = 10_000
"""Changed files that are told of one by one."""
_FILE_BYTES_MAX: Final = 2 << 30
_PIECE: Final = 1 << 20

Files = dict[tuple[int, bytes], FileRecord]


@dataclass(frozen=True, slots=True)
class Baseline:
    """Of one VM, in a folder (docs/INSPECTION.md). Reading raises IntegrityError(kind="bad-baseline")."""

    folder: Path

    def write_chunks(self, disk: str, kept: bytes) -> None:
        self._path(disk, "chunks").write_bytes(kept)

    def chunks(self, disk: str) -> Iterator[Leaves] | None:
        path = self._path(disk, "chunks")
        if not path.exists():
            return None
        try:
            return iter(list(read_leaves(path.read_bytes())))
        except ValueError as error:
            raise _bad(path, error) from error

    def write_files(self, disk: str, files: Iterable[FileRecord]) -> None:
        encoder, compressed = msgspec.json.Encoder(), zlib.compressobj(6)
        with self._path(disk, "files").open("wb") as out:
            for file in files:
                out.write(compressed.compress(encoder.encode(file) + b"\n"))
            out.write(compressed.flush())

    def files(self, disk: str) -> Files | None:
        path = self._path(disk, "files")
        if not path.exists():
            return None
        decoder = msgspec.json.Decoder(FileRecord)
        try:
            found = (decoder.decode(line) for line in _lines(path))
            return {(file.volume, file.path): file for file in found}
        except (ValueError, zlib.error, msgspec.MsgspecError) as error:
            raise _bad(path, error) from error

    def _path(self, disk: str, what: str) -> Path:
        return self.folder / f"baseline-{disk}.{what}"


def _lines(path: Path) -> Iterator[bytes]:
    unpacker, held, read = zlib.decompressobj(), b"", 0
    with path.open("rb") as packed:
        while not unpacker.eof and (data := unpacker.unconsumed_tail or packed.read(_PIECE)):
            held += unpacker.decompress(data, _PIECE)
            *lines, held = held.split(b"\n")
            read += sum(map(len, lines))
            if len(held) > _PIECE or read > _FILE_BYTES_MAX:
                raise ValueError("it is longer than a baseline")
            yield from lines
    if held or not unpacker.eof:
        raise ValueError("it is cut short")


def _bad(path: Path, error: Exception) -> IntegrityError:
    return IntegrityError(
        f"{path.name} is no baseline: {error}",
        kind="bad-baseline",
        remedy="inspect the VM anew; what it was before is not known",
    )
