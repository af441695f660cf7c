"""What the API needs of the rest of the daemon, as protocols. The wiring below builds what fits them.

All bytes are as their formats define them (DER, TPM structures, DSSE envelopes); the API encodes them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol

from korora.errors import KororaError
from korora.model.configuration import HostConfiguration
from korora.model.evidence import HostEvidence
from korora.model.flag import Flag
from korora.model.heat import VmHeat
from korora.model.identity import Digest, OperatorName, Secret
from korora.model.inspection import Inspection
from korora.model.plan import Finding, Inquiry
from korora.model.question import Question
from korora.ports.kept_disks import KeptDisks
from korora.ports.tpm import Credential
from korora.supervision.guests import Guests
from korora.supervision.inspection.service import FlagsTold


class AsyncService(Protocol):
    """Something that runs beside the API, such as the listener for other hosts."""

    async def start(self) -> None:
        """Serve from now on. On failure nothing is left."""
        ...

    async def stop(self) -> None:
        """Accept nothing more, end what can be ended safely, and return. VMs go on."""
        ...


class Migrations(Protocol):
    """All migrations of this host. Unknown ids are UsageError(kind="unknown-migration").

    `by`: the operator who asks, who sees and does what the policies let him (RefusedError otherwise); None
    for the machine's administrator, whom nothing here could keep from it.
    """

    def begin(self, request_envelope: bytes, address: str | None) -> str:
        """Start one in the background; returns its id. RefusedError when it may not even begin."""
        ...

    def list(self, by: OperatorName | None = None) -> Sequence[Mapping[str, Any]]: ...

    def events(self, id: str, by: OperatorName | None = None) -> AsyncIterator[Mapping[str, Any]]:  # noqa: A002
        """From the last progress on to the outcome, which is the last; any number of watchers."""
        ...

    async def cancel(self, id: str, by: OperatorName | None = None) -> None: ...  # noqa: A002

    def questions(self, by: OperatorName | None = None) -> Sequence[Question]:
        """What waits for a person, and what persons have answered and no request has used yet."""
        ...

    def question(self, id: str, by: OperatorName | None = None) -> Question:  # noqa: A002
        """UsageError(kind="unknown-question")."""
        ...

    def answer(self, envelope: bytes) -> Question:
        """Take a person's signed answer. RefusedError, IntegrityError when it cannot be taken."""
        ...

    async def check(self, asked: Inquiry) -> Sequence[Finding]: ...


class Presented(Protocol):
    """What a host shows a verifier. `certificate` and `enrolment` are None before it is enrolled."""

    @property
    def certificate(self) -> bytes | None: ...
    @property
    def enrolment(self) -> bytes | None: ...
    @property
    def ek_certificate(self) -> bytes: ...
    @property
    def ek_public(self) -> bytes: ...
    @property
    def ak_public(self) -> bytes: ...
    @property
    def evidence(self) -> HostEvidence: ...


class Attestation(Protocol):
    async def present(self, nonce: bytes) -> Presented:
        """Quote over the nonce (32 bytes), for whoever asks locally."""
        ...

    async def tpm_trouble(self) -> str | None:
        """Why the TPM cannot be used; None when it answers."""
        ...


class Applicant(Protocol):
    """What a host that wants to be enrolled shows. `csr` is PEM, for its TLS identity key."""

    @property
    def ek_certificate(self) -> bytes: ...
    @property
    def ek_public(self) -> bytes: ...
    @property
    def ak_public(self) -> bytes: ...
    @property
    def csr(self) -> bytes: ...


class Enrolment(Protocol):
    def enrolled(self) -> bool: ...

    async def begin(self) -> Applicant: ...

    async def activate(self, credential: Credential) -> Secret:
        """The credential's secret, which only the TPM that holds both EK and AK can tell."""
        ...

    async def finish(self, certificate: bytes, enrolment: bytes) -> None:
        """Install the site's certificate (PEM) and its signed enrolment; the listener uses them at once."""
        ...


class ReceiptEntry(Protocol):
    @property
    def session(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def vm(self) -> str: ...
    @property
    def outcome(self) -> str: ...


class Receipts(Protocol):
    def list(self) -> Sequence[ReceiptEntry]: ...

    def read(self, session: str) -> bytes:
        """The DSSE envelope as it is kept. UsageError(kind="unknown-receipt")."""
        ...


class LogContents(Protocol):
    """The Merkle log. `tree_head` is the host's signed statement of size and root, as text."""

    @property
    def size(self) -> int: ...
    @property
    def root(self) -> Digest: ...
    @property
    def tree_head(self) -> str: ...
    @property
    def leaves(self) -> Sequence[bytes]: ...


class Log(Protocol):
    def size(self) -> int: ...

    async def contents(self) -> LogContents: ...


class Operators(Protocol):
    def operator_of(self, account: str) -> OperatorName | None:
        """Who uses this account of the machine."""
        ...


class SiteFiles(Protocol):
    """The files by which the site's administrator says whom to trust and what to allow."""

    def problems(self) -> Sequence[KororaError]:
        """Why those that cannot be used now cannot. Without whom to trust, every migration is refused;
        of what to allow, what was said before stays in force.
        """
        ...


class Inspections(Protocol):
    """Looking into this host's VMs, and the flags that they have. Unknown VMs are UsageError(unknown-vm).

    `by` as for migrations: an operator does what policies let him (observe, resolve).
    """

    def inspect(self, vm: str) -> AsyncIterator[Mapping[str, Any]]:
        """Events: {"told": words} while it looks, and last {"inspection": model.inspection.Inspection,
        "flags": the flags that are open}. Given up when the iterator is closed."""
        ...

    def verify(self, vm: str) -> AsyncIterator[Mapping[str, Any]]:
        """As `inspect`, against the VM's baseline: last {"verification": model.inspection.Verification}.

        UsageError(kind="no-baseline") for a VM that was never inspected.
        """
        ...

    def report(self, vm: str) -> Inspection | None:
        """The last one, here or on the host that the VM came from."""
        ...

    def flags(self, by: OperatorName | None = None) -> FlagsTold:
        """Of all VMs here. One whose record cannot be read keeps no other's from being told."""
        ...

    def original(self, vm: str, flag: str, by: OperatorName | None = None) -> bytes:
        """The bag (RFC 8493, as a tar) in which the original is kept. UsageError(kind="unknown-flag",
        "no-original")."""
        ...

    def resolve(self, envelope: bytes) -> Flag:
        """Take a person's signed word on a flag (`protocol.flag.Resolution`), durably and into the log.

        RefusedError not-allowed, expired-resolution, replayed-resolution, not-restored, moving;
        UsageError unknown-flag, no-reason; IntegrityError signature.
        """
        ...


class Heat(Protocol):
    """What is popular on the disks of this host's VMs."""

    async def heat(self, vm: str, cells: int) -> VmHeat:
        """Each disk in at most `cells` cells. UsageError unknown-vm."""
        ...


class Services(Protocol):
    """Everything that the API speaks to."""

    @property
    def configuration(self) -> HostConfiguration: ...
    @property
    def guests(self) -> Guests: ...
    @property
    def migrations(self) -> Migrations: ...
    @property
    def attestation(self) -> Attestation: ...
    @property
    def enrolment(self) -> Enrolment: ...
    @property
    def inspections(self) -> Inspections: ...
    @property
    def heat(self) -> Heat: ...
    @property
    def kept(self) -> KeptDisks: ...
    @property
    def receipts(self) -> Receipts: ...
    @property
    def log(self) -> Log: ...
    @property
    def operators(self) -> Operators: ...
    @property
    def files(self) -> SiteFiles: ...
