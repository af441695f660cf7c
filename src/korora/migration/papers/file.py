"""The file on one migration: what its phases learn, for the statements, the outcome and the receipt.

A field is None until its phase is over.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from korora.migration.greeting.meeting import Meeting
from korora.model.crossing import Carried
from korora.model.evidence import CleanMemoryProof, WipeCertificate
from korora.model.identity import Digest
from korora.model.inspection import Inspection
from korora.model.plan import CryptographyRule, MigrationRequest
from korora.model.question import Said
from korora.model.storage import DiskContent
from korora.model.tpm import WrappingKey
from korora.protocol.receipt.document import Flags
from korora.protocol.statements import Move
from korora.supervision.boots.record import BootVerdict


@dataclass(slots=True)
class MigrationFile:
    """Monotonic times in seconds of this host's clock; envelopes as they were signed."""

    envelope: bytes
    request: MigrationRequest
    source_allowed_by: str | None = None
    said: Said | None = None  # by a person, to this request, on this host
    destination_allowed_by: str | None = None
    met: Meeting | None = None
    move: Move | None = None
    rule: CryptographyRule | None = None
    boot: BootVerdict | None = None
    prechecks: tuple[str, ...] = ()
    clean_memory: CleanMemoryProof | None = None
    wrapping: WrappingKey | None = None
    inspection: Inspection | None = None  # made for this move
    flags: Flags | None = None
    dossier: Digest | None = None
    files: dict[str, Digest] = field(default_factory=dict)
    disks: tuple[DiskContent, ...] = ()  # as this host measured those that moved
    sent: Carried | None = None
    received: Carried | None = None
    manifest: bytes | None = None
    accept: bytes | None = None
    release: bytes | None = None
    running: bytes | None = None
    wiped: WipeCertificate | None = None
    paused_at: float | None = None
    resumed_at: float | None = None
    begun_at: float = 0.0
    decisions_ms: float = 0.0  # that this host's rules took, with their log
    limits: list[str] = field(default_factory=list)

    @property
    def downtime_ms(self) -> float | None:
        """From the guest's pause, as this host saw it, to the news that it runs at the destination."""
        if self.paused_at is None or self.resumed_at is None:
            return None
        return round((self.resumed_at - self.paused_at) * 1000, 1)
