"""The services behind the API, over a machine in memory; run as a program with a file, a daemon of them."""

from __future__ import annotations

import asyncio
import errno
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ed25519

from fakes.guests_boots import FakeAppraiser
from fakes.guests_world import FakeHypervisor, FakeVtpmAgent, World
from fakes.inspector import FakeInspector
from fakes.journal import MemoryJournal
from korora.adapters.premises.kept import LocalKeptDisks
from korora.errors import IntegrityError, KororaError, RefusedError, UsageError
from korora.model.authorization import Answer, Authorized, Denied
from korora.model.configuration import Endpoint, HostConfiguration, SiteTrust, parse_host_configuration
from korora.model.evidence import HostEvidence, Quote
from korora.model.identity import Digest, HostName, OperatorName, Secret, VmName, sha256
from korora.model.inspection_policy import InspectionPolicy
from korora.model.plan import Finding, Inquiry, MigrationRequest, Mode
from korora.model.question import Matter, Question, Said, Stage, Why
from korora.ports.clock import SystemClock
from korora.ports.tpm import Credential
from korora.supervision.guests import Guests
from korora.supervision.heat.watching import HeatWatch
from korora.supervision.inspection.examiner import Examiner
from korora.supervision.inspection.resolving import Resolver
from korora.supervision.inspection.service import Inspections
from korora.supervision.watch import Watches

Object = Mapping[str, Any]


QUESTION: Final = Question(
    Matter(OperatorName("alice"), "migrate", VmName("web"), HostName("a"), HostName("b"), Mode.LIVE),
    Why.SECOND_PERSON,
    "two persons",
    1,
)


class FakeMigrations:
    """Implements `host.services.Migrations`: one migration, whose events a test tells."""

    def __init__(self) -> None:
        self.begun: list[tuple[bytes, str | None]] = []
        self.asked_by: list[OperatorName | None] = []
        self.told: list[Object] = []
        self.news = asyncio.Event()
        self.breaks = False

    def begin(self, request_envelope: bytes, address: str | None) -> str:
        if request_envelope == b"replayed":
            raise RefusedError("this request was used before", kind="replayed", vm_runs_on="a")
        self.begun.append((request_envelope, address))
        return "m1"

    def list(self, by: OperatorName | None = None) -> Sequence[Object]:
        self.asked_by.append(by)
        return [{"id": "m1", "vm": "web"}] if self.begun else []

    def questions(self, by: OperatorName | None = None) -> Sequence[Question]:
        self.asked_by.append(by)
        return [QUESTION]

    def question(self, id: str, by: OperatorName | None = None) -> Question:  # noqa: A002
        self.asked_by.append(by)
        if id != QUESTION.id:
            raise UsageError(f"no question {id}", kind="unknown-question")
        return QUESTION

    def answer(self, envelope: bytes) -> Question:
        if envelope != b"signed":
            raise RefusedError("it is not signed", kind="own-request")
        return replace(QUESTION, stage=Stage.ANSWERED, said=Said(OperatorName("bob"), "yes", "", 9, envelope))

    def tell(self, event: Object) -> None:
        self.told.append(event)
        self.news.set()

    async def events(self, id: str, by: OperatorName | None = None) -> AsyncIterator[Object]:  # noqa: A002
        self.asked_by.append(by)
        self._known(id)
        seen = max(0, len(self.told) - 1)
        while True:
            for event in self.told[seen:]:
                seen += 1
                yield event
                if event["event"] == "outcome":
                    return
            if self.breaks:
                raise IntegrityError("the record of the migration is damaged")
            self.news.clear()
            await self.news.wait()

    async def cancel(self, id: str, by: OperatorName | None = None) -> None:  # noqa: A002
        self.asked_by.append(by)
        self._known(id)
        self.tell({"event": "outcome", "outcome": "cancelled"})

    async def check(self, asked: Inquiry) -> Sequence[Finding]:
        if asked.vm == "bug":
            raise ZeroDivisionError("secret detail")
        if asked.vm == "full-disk":
            raise OSError(errno.ENOSPC, "No space left on device", "/var/lib/korora/x")
        if asked.vm == "waited":
            raise TimeoutError
        return [Finding("memory", asked.destination, "128 MiB free, 512 MiB needed", "free some")]

    def _known(self, id: str) -> None:  # noqa: A002
        if id != "m1":
            raise UsageError(f"no migration {id!r}", kind="unknown-migration", remedy="list them")


@dataclass(frozen=True, slots=True)
class Shown:
    certificate: bytes | None
    enrolment: bytes | None
    ek_certificate: bytes
    ek_public: bytes
    ak_public: bytes
    evidence: HostEvidence


class FakeAttestation:
    def __init__(self) -> None:
        self.trouble: str | None = None

    async def present(self, nonce: bytes) -> Shown:
        evidence = HostEvidence(Quote(b"attest" + nonce, b"signature"), {0: "00" * 32}, b"log")
        return Shown(None, None, b"ek", b"ekpub", b"akpub", evidence)

    async def tpm_trouble(self) -> str | None:
        return self.trouble


@dataclass(frozen=True, slots=True)
class FakeApplicant:
    ek_certificate: bytes = b"ek"
    ek_public: bytes = b"ekpub"
    ak_public: bytes = b"akpub"
    csr: bytes = b"csr"


@dataclass(slots=True)
class FakeEnrolment:
    installed: tuple[bytes, bytes] | None = None

    def enrolled(self) -> bool:
        return self.installed is not None

    async def begin(self) -> FakeApplicant:
        return FakeApplicant()

    async def activate(self, credential: Credential) -> Secret:
        if credential.encrypted_secret != b"for this TPM":
            raise RefusedError("the credential is for another TPM", kind="credential")
        return Secret(b"told by " + credential.blob)

    async def finish(self, certificate: bytes, enrolment: bytes) -> None:
        self.installed = (certificate, enrolment)


@dataclass(frozen=True, slots=True)
class Entry:
    session: str
    path: str
    vm: str
    outcome: str


class FakeReceipts:
    def list(self) -> Sequence[Entry]:
        return [Entry("5e55", "/var/lib/korora/receipts/5e55.json", "web", "completed")]

    def read(self, session: str) -> bytes:
        if session != "5e55":
            raise UsageError(f"no receipt {session!r}", kind="unknown-receipt")
        return b'{ "payload":  "spaces stay" }'


@dataclass(frozen=True, slots=True)
class Contents:
    size: int
    root: Digest
    tree_head: str
    leaves: Sequence[bytes]


class FakeLog:
    leaves: Sequence[bytes] = (b"one", b"two")

    def size(self) -> int:
        return len(self.leaves)

    async def contents(self) -> Contents:
        return Contents(2, sha256(b"root"), "signed head", self.leaves)


class FakeOperators:
    def operator_of(self, account: str) -> OperatorName | None:
        return OperatorName("alice") if account == "nobody" else None


class FakeFiles:
    def __init__(self) -> None:
        self.broken: list[KororaError] = []

    def problems(self) -> Sequence[KororaError]:
        return self.broken


class FakeListener:
    """An AsyncService that writes down what happens to it."""

    def __init__(self, name: str, diary: list[str], *, fails: bool = False) -> None:
        self._name = name
        self._diary = diary
        self._fails = fails

    async def start(self) -> None:
        if self._fails:
            raise RefusedError(f"{self._name} has no certificate", kind="not-enrolled")
        self._diary.append(f"{self._name} starts")

    async def stop(self) -> None:
        self._diary.append(f"{self._name} stops")


RESOLVER: Final = ed25519.Ed25519PrivateKey.from_private_bytes(b"\x06" * 32)


class FakeAuthorizer:
    """carol may see and resolve flags; mallory is known, and may nothing."""

    def operator_key(self, operator: str) -> bytes | None:
        return RESOLVER.public_key().public_bytes_raw() if operator in {"carol", "mallory"} else None

    def operator_of(self, account: str) -> OperatorName | None:
        return None

    def decide(self, request: MigrationRequest, now: float, peer_state: str | None = None) -> Answer:
        if (request.operator, request.procedure) in {("carol", "resolve"), ("carol", "observe")}:
            return Authorized("the test's rule")
        return Denied("not-allowed", "no rule", "none")

    def check_policy(self, policy: str, request: MigrationRequest, author: OperatorName, now: float) -> None:
        raise NotImplementedError

    def adopt(self, name: str, policy: str) -> None:
        raise NotImplementedError


@dataclass(slots=True)
class FakeServices:
    configuration: HostConfiguration
    world: World = field(default_factory=World)
    journal: MemoryJournal = field(default_factory=MemoryJournal)
    migrations: FakeMigrations = field(default_factory=FakeMigrations)
    attestation: FakeAttestation = field(default_factory=FakeAttestation)
    enrolment: FakeEnrolment = field(default_factory=FakeEnrolment)
    receipts: FakeReceipts = field(default_factory=FakeReceipts)
    log: FakeLog = field(default_factory=FakeLog)
    operators: FakeOperators = field(default_factory=FakeOperators)
    files: FakeFiles = field(default_factory=FakeFiles)
    inspector: FakeInspector = field(default_factory=FakeInspector)
    policy: InspectionPolicy = field(default_factory=InspectionPolicy)
    guests: Guests = field(init=False)
    inspections: Inspections = field(init=False)
    heat: HeatWatch = field(init=False)
    kept: LocalKeptDisks = field(init=False)

    def __post_init__(self) -> None:
        clock = SystemClock()
        watches = Watches(FakeAppraiser(), clock, self.world.wait_for_end)
        hypervisor, agent = FakeHypervisor(self.world), FakeVtpmAgent(self.world)
        vms = self.configuration.state / "vms"
        self.guests = Guests(hypervisor, agent, self.journal, vms, clock=clock, watches=watches)
        self.kept = LocalKeptDisks(self.configuration.state / "kept")
        self.heat = HeatWatch(self.guests, clock, self.configuration.heat)
        name = self.configuration.name
        examiner = Examiner(name, self.journal, clock, self.inspector, lambda: self.policy)
        resolver = Resolver(name, FakeAuthorizer(), self.journal, clock)
        self.inspections = Inspections(self.guests, examiner, resolver)


@dataclass(frozen=True, slots=True)
class FakeWired:
    services: FakeServices
    listeners: Sequence[FakeListener] = ()


async def wire(configuration: HostConfiguration) -> FakeWired:
    return FakeWired(FakeServices(configuration))


def configuration_in(folder: Path) -> HostConfiguration:
    return HostConfiguration(
        name=HostName("a"),
        state=folder / "state",
        listen=Endpoint("127.0.0.1", 7443),
        api=folder / "api.sock",
        tpm="swtpm:",
        event_log=folder / "eventlog",
        authorization=folder / "authorization.toml",
        site=SiteTrust(folder / "ca.pem", (folder / "maker.pem",), folder / "reference.toml"),
    )


if __name__ == "__main__":
    from korora.host.daemon import run

    file = Path(sys.argv[1])
    sys.exit(run(parse_host_configuration(file.read_text(), file), wire))
