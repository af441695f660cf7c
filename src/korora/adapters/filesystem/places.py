"""Where on the disk the files of a volume lie. No content is read."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from korora.adapters.filesystem.contents import Contents, Read
from korora.adapters.filesystem.disk import words_of
from korora.adapters.filesystem.hashing import Digests
from korora.adapters.filesystem.holes import Holes, Run, no_holes
from korora.adapters.filesystem.volumes import Stretch
from korora.model.files import MAX_RUNS, FileRecord, Kind, Located, Problem

RUNS_AT_ONCE: Final = MAX_RUNS


class Places(Contents):
    """Takes the place of contents. `lies`: where the volume does, in order."""

    def __init__(self, volume: int, lies: Sequence[Stretch]) -> None:
        super().__init__((), volume)
        self._number = volume
        self._lies = lies
        self._begins = [offset for offset, _, _ in lies]

    def of_itself(self) -> Iterator[Located]:
        """Where the volume lies."""
        yield from self._told(b"", "other", ((place, length) for _, place, length in self._lies))

    def digested(self, read: Read, size: int, path: bytes, holes: Holes = no_holes) -> tuple[Digests, str]:
        return (None, None, None), ""

    def located(self, record: FileRecord, runs: Iterable[Run]) -> Iterator[Located | Problem]:
        try:
            yield from self._told(record.path, record.kind, self._on_the_disk(runs))
        except (OSError, RuntimeError, ValueError, TypeError, OverflowError) as error:
            path = record.path.decode("utf-8", "backslashreplace")[:2000]
            yield Problem(f"volume {record.volume}: {path}", f"where it lies: {words_of(error)}")

    def _told(self, path: bytes, kind: Kind, runs: Iterable[Run]) -> Iterator[Located]:
        held: list[Run] = []
        for run in runs:
            held.append(run)
            if len(held) == RUNS_AT_ONCE:
                yield Located(self._number, path, kind, tuple(held))
                held.clear()
        if held:
            yield Located(self._number, path, kind, tuple(held))

    def _on_the_disk(self, runs: Iterable[Run]) -> Iterator[Run]:
        for offset, length in runs:
            at = max(0, bisect_right(self._begins, offset) - 1)
            for begin, place, size in self._lies[at:]:
                if begin >= offset + length:
                    break
                first, end = max(begin, offset), min(begin + size, offset + length)
                if first < end:
                    yield place + first - begin, end - first
