"""An index made anew of the own copies that are there, beside the old one, which it then replaces.

Promise: a copy whose content has not its name is removed. While it is made the old index stays as it is; what
ends in between leaves that one. Limit: references are not in the copies, and are lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from korora.adapters.store.chunks import Chunks
from korora.adapters.store.fetching import KEPT_SHIFT
from korora.adapters.store.index import Index
from korora.model.stored import Found, Kind, Scope, Trouble
from korora.protocol.content_tree import CHUNK_BYTES
from korora.protocol.dedup.names import UNIT_BYTES, name_of, units

FOUND_AGAIN: Final = Path("found again")
_BESIDE: Final = ("-wal", "-shm")


def rebuilt(path: Path, chunks: Chunks, scope: Scope, now: int) -> list[Found]:
    """While `alone`. What was found on the way; nothing where there was neither an index nor a copy."""
    new = path.with_name(path.name + ".new")
    _remove(new)
    found: list[Found] = []
    with closing(Index(new, scope)) as index:
        origin = count = 0
        for name in list(chunks.names()):
            content = chunks.read(name)
            if content is None or len(content) > CHUNK_BYTES or name_of(content) != name:
                chunks.remove(name)
                found.append(Found(scope, Trouble.ROTTED, name.hex()))
                continue
            origin = origin or index.begin(Kind.KEPT, FOUND_AGAIN, 0, 0, now)
            base = index.add_kept(origin, name, len(content)) << KEPT_SHIFT
            index.add(origin, parts_of(base, name, content))
            count += 1
        if count or path.exists():
            found.append(Found(scope, Trouble.REBUILT, f"{count} own copies; references must be added again"))
        for one in found:
            index.notes.count(one.trouble)
        index.checkpoint()
    _remove(path, keep=True)
    new.replace(path)
    return found


def parts_of(
    base: int, name: bytes, chunk: bytes | bytearray | memoryview
) -> Iterator[tuple[bytes, int, int]]:
    """(name, place, length) of an own copy and of the units in it; `base`: where it begins."""
    yield name, base, len(chunk)
    for at, unit in units(chunk):
        if unit is not None:
            yield unit, base + at, min(UNIT_BYTES, len(chunk) - at)


def _remove(path: Path, *, keep: bool = False) -> None:
    """With what SQLite keeps beside it; `keep`: only that, for the file itself will be replaced."""
    for ending in _BESIDE if keep else ("", *_BESIDE):
        with suppress(FileNotFoundError):
            path.with_name(path.name + ending).unlink()
