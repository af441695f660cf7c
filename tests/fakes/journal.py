"""A journal in memory. A restart is a new journal over the same `Disk`."""

from __future__ import annotations

from dataclasses import dataclass, field

from korora.model.identity import SessionId, VmName
from korora.model.question import QuestionId
from korora.ports.journal import QuestionRecord, SessionRecord, VmRecord
from korora.protocol.merkle import nodes_of


@dataclass(slots=True)
class Disk:
    """What survives a restart."""

    vms: dict[VmName, VmRecord] = field(default_factory=dict)
    sessions: dict[SessionId, SessionRecord] = field(default_factory=dict)
    nonces: set[str] = field(default_factory=set)
    leaves: list[bytes] = field(default_factory=list)
    questions: dict[QuestionId, QuestionRecord] = field(default_factory=dict)


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

    def question(self, question: QuestionId) -> QuestionRecord | None:
        return self.disk.questions.get(question)

    def questions(self, stage: str) -> list[QuestionRecord]:
        return [record for record in self.disk.questions.values() if record.stage == stage]

    def count_questions(self, stage: str) -> int:
        return len(self.questions(stage))

    def write_question(self, record: QuestionRecord) -> None:
        self.disk.questions[record.id] = record

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
