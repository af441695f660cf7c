"""What a daemon answers, as values. Bytes are base64 on the wire; fields not sent keep their defaults."""

from __future__ import annotations

from typing import Any

import msgspec

from korora.model.evidence import HostEvidence, Quote
from korora.model.plan import Finding

_GIVEN_AWAY = frozenset({"taken-over", "wiped"})  # of protocol.ownership.Status: there is proof of it


class ProblemView(msgspec.Struct, frozen=True):
    """What is wrong, and what mends it; of a host, a file of the site that its daemon cannot use now."""

    message: str
    remedy: str = ""


class HostView(msgspec.Struct, frozen=True):
    """One host, as its daemon describes it. `vms` counts them by state; `problems` refuse every migration."""

    name: str
    version: str = ""
    listen: str | None = None
    enrolled: bool | None = None
    tpm_ok: bool | None = None
    tpm_trouble: str | None = None
    hypervisor: dict[str, Any] | None = None  # model.vm.HypervisorFacts
    vms: dict[str, int] = {}
    incoming_limit: int | None = None
    log_size: int | None = None
    problems: tuple[ProblemView, ...] = ()


class BootView(msgspec.Struct, frozen=True):
    """What the appraisal of a VM's last measured boot said."""

    verdict: str
    reasons: tuple[str, ...] = ()
    secure_boot: bool | None = None


class VmView(msgspec.Struct, frozen=True):
    """One VM a host knows.

    `state` is a model.vm.RunState or `unresponsive`, `ownership` a protocol.ownership.Status; `owned` says
    whether this host may run it, `since` is in Unix seconds. `not_in_disks`: files that hold what it wrote
    while it was to move, and its disks do not; `disks_trouble`: why that cannot be said.
    """

    name: str
    state: str
    ownership: str = ""
    epoch: int = 0
    owned: bool = False
    moving: bool = False
    uuid: str = ""
    memory_bytes: int = 0
    cpus: int = 0
    firmware: str = ""
    vtpm: bool = False
    vtpm_lost: bool = False
    adopted: bool = False
    immovable: str = ""
    pid: int | None = None
    session: str | None = None
    peer: str | None = None
    reason: str = ""
    since: float | None = None
    boot: BootView | None = None
    definition: str | None = None
    not_in_disks: tuple[str, ...] = ()
    disks_trouble: ProblemView | None = None

    @property
    def gave_it_away(self) -> bool:
        """Whether this host has proof that the VM runs elsewhere."""
        return self.ownership in _GIVEN_AWAY


class AttestationView(msgspec.Struct, frozen=True):
    """A host's credentials and its evidence over the verifier's nonce; `certificate` is its TLS one, DER.

    `certificate` and `enrolment` are None before the host is enrolled.
    """

    host: str
    ek_certificate: bytes
    ek_public: bytes
    ak_public: bytes
    attest: bytes
    signature: bytes
    pcrs: dict[int, str]
    event_log: bytes
    certificate: bytes | None = None
    enrolment: bytes | None = None

    @property
    def evidence(self) -> HostEvidence:
        return HostEvidence(Quote(self.attest, self.signature), self.pcrs, self.event_log)


class ApplicantView(msgspec.Struct, frozen=True):
    """What a host that wants to be enrolled shows. `csr` is DER, for its TLS identity key."""

    ek_certificate: bytes
    ek_public: bytes
    ak_public: bytes
    csr: bytes


class Activated(msgspec.Struct, frozen=True):
    """The answer to a challenge."""

    secret: bytes


class Findings(msgspec.Struct, frozen=True):
    """Every precheck that failed; none means that the migration may be asked for."""

    findings: tuple[Finding, ...] = ()


class QuestionView(msgspec.Struct, frozen=True):
    """What waits for a person, or was answered. Times in Unix seconds."""

    id: str
    why: str
    stage: str
    operator: str
    procedure: str
    vm: str
    source: str
    destination: str
    mode: str
    reason: str
    asked_at: int
    times: int
    answer: str | None = None
    answered_by: str | None = None
    because: str | None = None
    until: int | None = None

    @property
    def matter(self) -> str:
        way = f"from {self.source} to {self.destination} ({self.mode})"
        return f"{self.operator} {self.procedure} {self.vm} {way}"


class MigrationView(msgspec.Struct, frozen=True):
    """One migration that began at a host. `outcome` is None while it runs."""

    id: str
    vm: str
    destination: str
    phase: str | None = None
    outcome: str | None = None


class Started(msgspec.Struct, frozen=True):
    id: str


class ReceiptEntry(msgspec.Struct, frozen=True):
    """One receipt that a host keeps; `path` is on that host."""

    session: str
    path: str | None = None
    vm: str | None = None
    outcome: str | None = None


class LogView(msgspec.Struct, frozen=True):
    """A host's Merkle log: its leaves in order, and the size and root that the host signed in `tree_head`."""

    host: str
    size: int
    root: str
    tree_head: str
    leaves: tuple[bytes, ...] = ()
