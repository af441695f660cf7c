"""What one host saw of a VM's crossing."""

from __future__ import annotations

from dataclasses import dataclass

from korora.model.evidence import BlobDigests, StreamRoot, VtpmIdentity


@dataclass(frozen=True, slots=True)
class Carried:
    """Both hosts' must agree. Blobs and identity are None for a VM whose vTPM is not in Korora's custody."""

    roots: tuple[StreamRoot, ...]
    payload_bytes: int
    wire_bytes: int
    blobs: BlobDigests | None
    vtpm: VtpmIdentity | None
