"""What a daemon's API answers, as values. Fields that a daemon does not send keep their defaults."""

from __future__ import annotations

from typing import Any

import msgspec

from korora.model.plan import Finding


class HostView(msgspec.Struct, frozen=True):
    """One host, as its daemon describes it."""

    name: str
    version: str = ""
    listen: str | None = None
    enrolled: bool | None = None
    hypervisor: dict[str, Any] | None = None  # model.vm.HypervisorFacts
    incoming: int | None = None  # migrations on their way in
    incoming_limit: int | None = None
    log_size: int | None = None


class VmView(msgspec.Struct, frozen=True):
    """One VM a host knows. `state` is a model.vm.RunState, `ownership` a state of protocol.ownership."""

    name: str
    state: str
    ownership: str = ""
    epoch: int = 0
    uuid: str = ""
    memory_bytes: int = 0
    cpus: int = 0
    vtpm: bool = False
    adopted: bool = False
    pid: int | None = None
    session: str | None = None
    peer: str | None = None
    definition: str | None = None


class AttestationView(msgspec.Struct, frozen=True):
    """A host's evidence over the verifier's nonce. Bytes are base64 on the wire."""

    host: str
    ek_certificate: bytes
    ak_public: bytes
    attest: bytes
    signature: bytes
    pcrs: dict[int, str]
    event_log: bytes


class Findings(msgspec.Struct, frozen=True):
    """Every precheck that failed; none means that the migration may be asked for."""

    findings: tuple[Finding, ...] = ()


class Started(msgspec.Struct, frozen=True):
    id: str


class ReceiptEntry(msgspec.Struct, frozen=True):
    """One receipt that a host keeps."""

    session: str
    path: str | None = None
    vm: str | None = None
    outcome: str | None = None


class LogView(msgspec.Struct, frozen=True):
    """A host's Merkle log: its leaves in order, and the tree head that the host signed."""

    leaves: tuple[bytes, ...] = ()
    head: Any = None
