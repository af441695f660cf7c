"""A digest that was broken off, put aside in a file, and taken up again.

Promise: what is taken up belongs to the same state of the same files, byte for byte as it was put aside, or
is not used. Limit: a checksum shows damage, not malice: keep the file where only its owner writes.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final

from blake3 import blake3

from korora import named_file
from korora.errors import UsageError
from korora.protocol.content_tree import ContentTree, Peak, chunks_of

_MAX_BYTES: Final = 4 << 20


def check(kept: Path) -> None:
    """UsageError(kind="bad-state") before hours of work, if nothing could be put aside there."""
    folder = kept.absolute().parent
    if kept.is_dir() or (kept.exists() and not kept.is_file()):
        raise _bad(kept, "it is no file")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise _bad(kept, f"nothing can be written to {folder}")


def put_aside(kept: Path, identity: dict[str, object], count: int, peaks: tuple[Peak, ...]) -> None:
    written = [(level, digest.hex()) for level, digest in peaks]
    state = {"identity": identity, "count": count, "peaks": written}
    new = kept.with_name(kept.name + ".new")
    new.write_text(json.dumps({"state": state, "sum": _sum(state)}))
    new.replace(kept)


def taken_up(kept: Path, identity: dict[str, object], size: int) -> ContentTree | None:
    """None when there is nothing, or it is of another state of the image. UsageError when it is damaged."""
    if not kept.exists():
        return None
    try:
        said = json.loads(_read(kept))
        state = said["state"]
        if said["sum"] != _sum(state):
            raise ValueError("its checksum is wrong")
        if state["identity"] != json.loads(json.dumps(identity)):
            return None
        if state["count"] > chunks_of(size):
            raise ValueError("it counts more chunks than there are")
        peaks = [(level, bytes.fromhex(digest)) for level, digest in state["peaks"]]
        return ContentTree(state["count"], peaks)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise _bad(
            kept, f"it is nothing that was put aside: {getattr(error, 'strerror', None) or error}"
        ) from error


def _read(kept: Path) -> bytes:
    return named_file.read(kept, _MAX_BYTES)


def _sum(state: object) -> str:
    return blake3(json.dumps(state, sort_keys=True).encode()).hexdigest()


def _bad(kept: Path, problem: str) -> UsageError:
    return UsageError(
        f"{kept} cannot keep a digest: {problem}", kind="bad-state", remedy="remove it, or name another file"
    )
