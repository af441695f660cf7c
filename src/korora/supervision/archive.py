"""What this host keeps as proof: receipts as files, and the log in the journal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from korora.errors import KororaError, UsageError
from korora.model.identity import Digest, HostName
from korora.ports.clock import Clock
from korora.ports.journal import Journal
from korora.protocol import log, merkle
from korora.protocol.dsse import SigningKey
from korora.protocol.receipt import document as receipt

_SESSION = re.compile(r"[0-9a-f]{128}")


@dataclass(frozen=True, slots=True)
class ReceiptEntry:
    session: str
    path: str
    vm: str
    outcome: str


@dataclass(frozen=True, slots=True)
class Receipts:
    """Receipt bundles, by session, in one folder."""

    folder: Path

    def list(self) -> Sequence[ReceiptEntry]:
        """The newest last; a file that is no receipt says so as its outcome."""
        if not self.folder.is_dir():
            return []
        paths = sorted(self.folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
        return [_entry(path) for path in paths]

    def read(self, session: str) -> bytes:
        """UsageError(kind="unknown-receipt") when there is none of this session."""
        path = self.folder / f"{session}.json"
        if not _SESSION.fullmatch(session) or not path.is_file():
            raise UsageError(
                f"there is no receipt of session {session[:32]}",
                kind="unknown-receipt",
                remedy="korora log show",
            )
        return path.read_bytes()


@dataclass(frozen=True, slots=True)
class LogContents:
    size: int
    root: Digest
    tree_head: str
    leaves: Sequence[bytes]


class HostLog:
    """The host's Merkle log, with a head signed when asked (RefusedError not-enrolled before it can)."""

    def __init__(self, host: HostName, journal: Journal, clock: Clock, signer: SigningKey) -> None:
        self._host = host
        self._journal = journal
        self._clock = clock
        self._signer = signer

    def size(self) -> int:
        return self._journal.log_size()

    async def contents(self) -> LogContents:
        size = self._journal.log_size()
        root = Digest("sha256:" + merkle.root(size, self._journal.log_node).hex())
        at = int(self._clock.now())
        head = log.signed_head(self._host, size, self._journal.log_node, at=at, key=self._signer)
        return LogContents(size, root, head.decode(), self._journal.log()[:size])


def _entry(path: Path) -> ReceiptEntry:
    try:
        told = receipt.peek(bytes(receipt.parse_bundle(path.read_bytes()).receipt))
    except (KororaError, OSError):
        return ReceiptEntry(path.stem, str(path), "", "unreadable")
    return ReceiptEntry(told.session, str(path), told.vm, "completed")
