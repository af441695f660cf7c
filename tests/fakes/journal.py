"""A journal in memory. A restart is a new journal over the same `Disk`."""

from __future__ import annotations

from dataclasses import dataclass, field

from korora.model.identity import SessionId, VmName
from korora.ports.journal import SessionRecord, VmRecord
from korora.protocol.merkle import nodes_of


@dataclass(slots=True)
class Disk:
    """What survives a restart."""

    vms: dict[VmName, VmRecord] = field(default_factory=dict)
    sessions: dict[SessionId, SessionRecord] = field(default_factory=dict)
    nonces: set[str] = field(default_factory=set)
    leaves: list[bytes] = field(default_factory=list)


class MemoryJournal:
    """Implements `ports.journal.Journal`."""

    def __init__(self, disk: Disk | None = None) -> None:
        self.disk = disk or Disk()

    def vm(self, name: VmName) -> VmRecord | None:
        return self.disk.vms.get(name)

    def vms(self) -> list[VmRecord]:
        return [self.disk.vms[name] for name in sorted(self.disk.vms)]

    def write_vm(self, record: VmRecord) -> None:
        self.disk.vms[record.name] = record

    def forget_vm(self, name: VmName) -> None:
        self.disk.vms.pop(name, None)

    def session(self, session: SessionId) -> SessionRecord | None:
        return self.disk.sessions.get(session)

    def sessions(self) -> list[SessionRecord]:
        return list(self.disk.sessions.values())

    def write_session(self, record: SessionRecord) -> None:
        self.disk.sessions[record.session] = record

    def spend_nonce(self, nonce: str, not_after: int) -> bool:
        fresh = nonce not in self.disk.nonces
        self.disk.nonces.add(nonce)
        return fresh

    def append_log(self, leaf: bytes) -> int:
        if leaf not in self.disk.leaves:
            self.disk.leaves.append(leaf)
        return self.disk.leaves.index(leaf)

    def log(self) -> list[bytes]:
        return list(self.disk.leaves)

    def log_size(self) -> int:
        return len(self.disk.leaves)

    def log_node(self, level: int, index: int) -> bytes:
        return nodes_of(self.disk.leaves)(level, index)

    def close(self) -> None:
        pass
