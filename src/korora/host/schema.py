"""The API's own shapes (docs: /openapi.json). Binary fields are base64, nonces and digests hex.

Promise: an unknown key in a request is refused. Limit: shapes only; meaning is checked by the services.
"""

from __future__ import annotations

from base64 import b64decode
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, WithJsonSchema

from korora.model.identity import HostName, OperatorName, VmName
from korora.model.plan import Inquiry, Mode
from korora.model.question import Question
from korora.model.storage import DisksAsked
from korora.model.vm import RunState
from korora.supervision.live import VmStatus

_STRICT = ConfigDict(extra="forbid")

Nonce = Annotated[str, Field(pattern="^[0-9a-fA-F]{64}$", description="32 bytes")]


def _bytes(text: object) -> bytes:
    """Strictly: what is no base64 is no bytes."""
    if not isinstance(text, str):
        raise ValueError("must be base64 in a string")
    return b64decode(text, validate=True)


def _whole(text: str) -> str:
    """Half characters, which JSON can spell, are in nothing that anybody signed."""
    text.encode()
    return text


Envelope = Annotated[str, AfterValidator(_whole)]
"""The text of a DSSE envelope."""
Bytes = Annotated[bytes, BeforeValidator(_bytes), WithJsonSchema({"type": "string", "format": "byte"})]


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as facts: see korora.errors."""

    kind: str
    message: str
    remedy: str
    vm_runs_on: str | None
    exit_code: int


@dataclass(frozen=True, slots=True)
class FailureAnswer:
    error: Failure


@dataclass(frozen=True, slots=True)
class ProblemAnswer:
    """What is wrong, and what mends it: of a host, a file of the site without which every migration is
    refused."""

    message: str
    remedy: str


@dataclass(frozen=True, slots=True)
class HostAnswer:
    name: str
    version: str
    listen: str
    enrolled: bool
    tpm_ok: bool
    tpm_trouble: str | None
    hypervisor: dict[str, Any]  # model.vm.HypervisorFacts
    vms: dict[str, int]
    incoming_limit: int
    log_size: int
    problems: tuple[ProblemAnswer, ...]


@dataclass(frozen=True, slots=True)
class BootAnswer:
    """The last measured boot: see supervision.boots."""

    verdict: str
    reasons: tuple[str, ...]
    secure_boot: bool | None


@dataclass(frozen=True, slots=True)
class VmAnswer:
    """One VM. `state` is a model.vm.RunState, or `unresponsive`; `since` is Unix seconds; `not_in_disks`,
    `disks_trouble`: see supervision.live.VmStatus."""

    name: str
    state: str
    ownership: str
    epoch: int
    owned: bool
    moving: bool
    uuid: str
    memory_bytes: int
    cpus: int
    firmware: str
    vtpm: bool
    vtpm_lost: bool
    adopted: bool
    immovable: str
    pid: int | None
    session: str | None
    peer: str | None
    reason: str
    since: float | None
    boot: BootAnswer | None
    definition: str
    not_in_disks: tuple[str, ...]
    disks_trouble: ProblemAnswer | None


@dataclass(frozen=True, slots=True)
class CreateVm:
    __pydantic_config__ = _STRICT
    definition: str
    start: bool = False


@dataclass(frozen=True, slots=True)
class StopVm:
    __pydantic_config__ = _STRICT
    force: bool = False


@dataclass(frozen=True, slots=True)
class AdoptVm:
    """`qmp` is the path of a QMP socket on this host."""

    __pydantic_config__ = _STRICT
    qmp: str
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Disks(DisksAsked):
    __pydantic_config__ = _STRICT
    format: Literal["", "raw", "qcow2"] = ""


@dataclass(frozen=True, slots=True)
class Check:
    __pydantic_config__ = _STRICT
    vm: str
    destination: str
    mode: Mode = Mode.LIVE
    operator: str | None = None
    address: str | None = None
    disks: Disks = Disks()


@dataclass(frozen=True, slots=True)
class FindingAnswer:
    check: str
    host: str
    message: str
    remedy: str


@dataclass(frozen=True, slots=True)
class CheckAnswer:
    findings: list[FindingAnswer]


@dataclass(frozen=True, slots=True)
class Migrate:
    """`request` is the text of the DSSE envelope that the operator signed."""

    __pydantic_config__ = _STRICT
    request: Envelope
    address: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    __pydantic_config__ = _STRICT
    answer: Envelope
    """The signed answer, a DSSE envelope's text."""


@dataclass(frozen=True, slots=True)
class QuestionAnswer:
    """A question. `answer`, `answered_by` and `because` are None while nobody has answered."""

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
    answer: str | None
    answered_by: str | None
    because: str | None
    until: int | None

    @classmethod
    def of(cls, question: Question) -> QuestionAnswer:
        said = question.said
        return cls(
            id=question.id,
            why=question.why,
            stage=question.stage,
            **asdict(question.matter),
            reason=question.reason,
            asked_at=question.asked_at,
            times=question.times,
            answer=None if said is None else said.answer,
            answered_by=None if said is None else said.by,
            because=None if said is None else said.reason,
            until=None if said is None else said.until,
        )


@dataclass(frozen=True, slots=True)
class Resolve:
    """`resolution` is a DSSE envelope's text."""

    __pydantic_config__ = _STRICT
    resolution: Envelope


@dataclass(frozen=True, slots=True)
class MigrationStarted:
    id: str


@dataclass(frozen=True, slots=True)
class Attest:
    __pydantic_config__ = _STRICT
    nonce: Nonce


@dataclass(frozen=True, slots=True)
class AttestationAnswer:
    """Credentials (`certificate`: DER) and evidence of the host over the nonce."""

    host: str
    certificate: str | None
    enrolment: str | None
    ek_certificate: str
    ek_public: str
    ak_public: str
    attest: str
    signature: str
    pcrs: dict[int, str]
    event_log: str


@dataclass(frozen=True, slots=True)
class ApplicantAnswer:
    ek_certificate: str
    ek_public: str
    ak_public: str
    csr: str


@dataclass(frozen=True, slots=True)
class Activate:
    """TPM2_MakeCredential's output."""

    __pydantic_config__ = _STRICT
    blob: Bytes
    encrypted_secret: Bytes


@dataclass(frozen=True, slots=True)
class ActivateAnswer:
    secret: str


@dataclass(frozen=True, slots=True)
class FinishEnrolment:
    """`certificate` is PEM text; `enrolment` the text of the site's signed statement."""

    __pydantic_config__ = _STRICT
    certificate: str
    enrolment: str


@dataclass(frozen=True, slots=True)
class ReceiptAnswer:
    session: str
    path: str
    vm: str
    outcome: str


@dataclass(frozen=True, slots=True)
class LogAnswer:
    host: str
    size: int
    root: str
    tree_head: str
    leaves: list[str] = field(default_factory=list)


def inquiry_of(body: Check) -> Inquiry:
    operator = None if body.operator is None else OperatorName(body.operator)
    return Inquiry(
        VmName(body.vm),
        HostName(body.destination),
        body.mode,
        operator,
        body.address,
        body.disks,
    )


def vm_answer(status: VmStatus) -> VmAnswer:
    record, definition, boot, life = status.record, status.definition, status.boot, status.life
    trouble = status.disks_trouble
    return VmAnswer(
        name=record.name,
        state=status.state.value if isinstance(status.state, RunState) else "unresponsive",
        ownership=record.ownership,
        epoch=record.epoch,
        owned=status.owned,
        moving=status.moving,
        uuid=definition.uuid if definition else "",
        memory_bytes=definition.memory_bytes if definition else 0,
        cpus=definition.cpus if definition else 0,
        firmware=definition.firmware.value if definition else "",
        vtpm=bool(definition and definition.vtpm and not definition.adopted),
        vtpm_lost=status.vtpm_lost,
        adopted=bool(definition and definition.adopted),
        immovable=definition.immovable if definition else "",
        pid=status.pid,
        session=record.session,
        peer=record.peer,
        reason=life.reason if life else "",
        since=life.at if life else None,
        boot=BootAnswer(boot.word.value, boot.reasons, boot.secure_boot) if boot else None,
        definition=record.definition,
        not_in_disks=status.not_in_disks,
        disks_trouble=ProblemAnswer(trouble.message, trouble.remedy) if trouble else None,
    )


def as_object(value: Any) -> dict[str, Any]:
    """A frozen value of the model as a JSON object."""
    return asdict(value)
