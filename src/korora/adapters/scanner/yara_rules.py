"""Rules of YARA: a folder of sources, and what they compile to, kept in a private folder.

Promise: what is taken from the cache is what these very sources gave with this very YARA-X: it is named by
the digest of both, written whole or not at all, and read only from a folder that nobody else can write to.
Limit: one rule that does not compile is a reason to use none of them.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

from korora import named_file
from korora.adapters.scanner.yara_process import Worker, WorkerError
from korora.errors import ToolError

SUFFIXES: Final = {".yar", ".yara"}
SOURCES_MAX: Final = 10_000
SOURCES_MAX_BYTES: Final = 64 << 20
COMPILED_MAX_BYTES: Final = 512 << 20
COMPILED_WITHIN_S: Final = 300.0
KEPT_MAX: Final = 16
_DIGEST_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Sources:
    """Names and texts, in one order. `dated`: when the newest was changed."""

    texts: tuple[tuple[str, str], ...]
    dated: int


def read(folder: Path) -> Sources:
    """ToolError(kind="yara-rules") when there are none, too many, or they cannot be read."""
    texts, total, dated = [], 0, 0
    try:
        for file in _files(folder):
            content = named_file.beginning(file, SOURCES_MAX_BYTES)
            total += len(content)
            if total > SOURCES_MAX_BYTES:
                raise _unusable(f"{folder} has more than {SOURCES_MAX_BYTES >> 20} MiB of rules")
            texts.append((_shown(file.relative_to(folder)), content.decode()))
            dated = max(dated, int(file.stat().st_mtime))
    except OSError as error:
        raise _unusable(f"{error.filename or folder}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise _unusable(f"{_shown(file)} is not UTF-8") from error
    if not texts:
        raise _unusable(f"{folder} has no .yar or .yara file")
    return Sources(tuple(texts), dated)


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise _unusable(f"there is no folder {folder}")
    found = sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES and not path.is_dir())
    if len(found) > SOURCES_MAX:
        raise _unusable(f"{folder} has more than {SOURCES_MAX} files of rules")
    return found


def compiled(sources: Sources, cache: Path, within_s: float = COMPILED_WITHIN_S) -> bytes:
    """From the cache, or made in a process of its own. ToolError(kind="yara-rules") says why not."""
    plain = json.dumps(sources.texts).encode()
    digest = hashlib.sha256(f"yara-x {version('yara-x')}\n".encode() + plain).hexdigest()
    _make_private(cache)
    kept = _kept(cache / digest)
    if kept is None:
        kept = _made(plain, time.monotonic() + within_s)
        _keep(cache / digest, kept)
    return kept


def _made(plain: bytes, deadline: float) -> bytes:
    worker = Worker("compile")
    try:
        worker.give([plain], deadline)
        said = worker.line(deadline)
        if "error" in said:
            raise _unusable(f"rules do not compile: {said['error']}")
        if not 0 < said["size"] <= COMPILED_MAX_BYTES:
            raise _unusable("rules compile to more than can be kept")
        return worker.rest(said["size"], deadline)
    except WorkerError as error:
        raise _unusable(f"rules could not be compiled: {error}") from error
    finally:
        worker.end()


def _kept(path: Path) -> bytes | None:
    """None when it is not there, or not whole."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, compiled_rules = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    return compiled_rules if hashlib.sha256(compiled_rules).digest() == digest else None


def _keep(path: Path, compiled_rules: bytes) -> None:
    """Whole or not at all. A full disk costs the next run its time only."""
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(hashlib.sha256(compiled_rules).digest() + compiled_rules)
            Path(name).replace(path)
            _forget_oldest(path.parent)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError:
        return


def _forget_oldest(cache: Path) -> None:
    """Rules change, and nobody else would tidy up."""
    for old in sorted(cache.iterdir(), key=lambda kept: kept.stat().st_mtime)[:-KEPT_MAX]:
        old.unlink(missing_ok=True)


def _make_private(cache: Path) -> None:
    """Compiled rules are code: whoever could write them here could run his own."""
    try:
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = cache.stat()
    except OSError as error:
        raise _unusable(f"the cache {cache}: {error.strerror or error}") from error
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o022:
        raise _unusable(f"others can write to the cache {cache}", "name a folder of your own, mode 0700")


def _shown(path: Path) -> str:
    return str(path).encode("utf-8", "backslashreplace").decode()


def _unusable(why: str, remedy: str = "correct or remove the rules") -> ToolError:
    return ToolError(why, kind="yara-rules", remedy=remedy)
