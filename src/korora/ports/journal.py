"""What a host must not forget. Every `write` is on stable storage when it returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from korora.model.identity import HostName, SessionId, VmName
from korora.model.question import QuestionId


@dataclass(frozen=True, slots=True)
class VmRecord:
    """A VM this host knows. `definition` is the TOML text; `ownership` is a state of protocol.ownership."""

    name: VmName
    definition: str
    ownership: str
    epoch: int
    session: SessionId | None = None  # the migration that the ownership state belongs to
    peer: HostName | None = None
    qmp_socket: str | None = None  # of a VM that was adopted here


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """What recovery needs of one migration: `detail` is the migration's own JSON, opaque to the journal."""

    session: SessionId
    vm: VmName
    role: str  # "source" | "destination"
    peer: HostName
    phase: str
    outcome: str | None
    detail: bytes


@dataclass(frozen=True, slots=True)
class QuestionRecord:
    """A question; `stage` is a model.question.Stage, `detail` its JSON, opaque to the journal."""

    id: QuestionId
    stage: str
    detail: bytes


class Journal(Protocol):
    """Methods raise ToolError(kind="journal…") when the storage fails; nothing of that write is kept then."""

    def vm(self, name: VmName) -> VmRecord | None: ...

    def vms(self) -> list[VmRecord]:
        """All, by name."""
        ...

    def write_vm(self, record: VmRecord) -> None: ...

    def forget_vm(self, name: VmName) -> None:
        """No error when it is not there."""
        ...

    def session(self, session: SessionId) -> SessionRecord | None: ...

    def sessions(self) -> list[SessionRecord]:
        """All, in the order in which they were first written."""
        ...

    def write_session(self, record: SessionRecord) -> None: ...

    def spend_nonce(self, nonce: str, not_after: int) -> bool:
        """Remember a request's nonce durably, for ever. False when it was spent before (S5)."""
        ...

    def question(self, question: QuestionId) -> QuestionRecord | None: ...

    def questions(self, stage: str) -> list[QuestionRecord]:
        """Those of this stage, in the order in which they were first written."""
        ...

    def count_questions(self, stage: str) -> int: ...

    def write_question(self, record: QuestionRecord) -> None: ...

    def append_log(self, leaf: bytes) -> int:
        """Append to the Merkle log; returns the leaf's index. A leaf that is there already keeps its index,
        so that a step repeated after a crash leaves one trace."""
        ...

    def log(self) -> list[bytes]:
        """All leaves, in order."""
        ...

    def log_size(self) -> int: ...

    def log_node(self, level: int, index: int) -> bytes:
        """A complete subtree's hash, as `protocol.merkle` asks for it. KeyError when it is not complete."""
        ...

    def close(self) -> None: ...
