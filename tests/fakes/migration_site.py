"""Hosts that migrate in one process and one event loop: all of `migration` and `supervision` is real, and so
are relays, statements and receipts; hypervisors, vTPMs, TPMs and control channels are fakes whose world
outlives a daemon that dies.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, cast

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding

from fakes.contents import FakeContents
from fakes.faults import Daemon, Line, MemoryChannel, Plan, Port, PowerCutError, note_tasks
from fakes.guests_boots import FakeAppraiser
from fakes.hypervisor import FakeHypervisor, World
from fakes.inspector import FakeInspector
from fakes.journal import Disk, MemoryJournal
from fakes.moving_disks import FakeImages
from fakes.site import TestSite
from fakes.tpm_structures import PCRS, MadeByHand, SoftwareAk, name_of, private_key
from fakes.vtpm import FakeVtpmAgent, TpmWorld
from korora.adapters.channel.reception import TicketReception
from korora.adapters.premises.kept import LocalKeptDisks
from korora.adapters.premises.wiping import wiped
from korora.errors import KororaError, PeerError, RefusedError, ToolError
from korora.migration.recovery import settlement as recovery
from korora.migration.service import Migrations
from korora.migration.setting import Setting
from korora.model.authorization import Answer, Authorized, Denied
from korora.model.evidence import HostEvidence, Quote, WipeStep
from korora.model.identity import HostName, OperatorName, Secret, VmName, sha256
from korora.model.inspection_policy import InspectionPolicy
from korora.model.ownership import Status
from korora.model.plan import MigrationRequest, Mode
from korora.model.tpm import WrappedKey, WrappingKey
from korora.model.vm import RunState
from korora.policy.appraisal import Platform, Presented, Trusted, Untrusted
from korora.ports.clock import SystemClock
from korora.protocol import decision, dsse, key_wrap, statements
from korora.protocol.decision import PolicyDecision
from korora.protocol.dsse import KeyPair
from korora.protocol.frames import PREAMBLE_BYTES, parse_preamble
from korora.supervision.guests import Guests
from korora.supervision.inspection.examiner import Examiner
from korora.supervision.watch import Watches

VM = VmName("web")
DEFINITION = 'name = "web"\nmemory = "16M"\n'
APPROVER = KeyPair(ed25519.Ed25519PrivateKey.from_private_bytes(b"\x05" * 32))
OPERATOR = KeyPair(ed25519.Ed25519PrivateKey.from_private_bytes(b"\x04" * 32))
PKI = TestSite()
IDENTITIES = {name: PKI.host(name) for name in "abc"}
AKS = {name: SoftwareAk(private_key(10 + index)) for index, name in enumerate("abc")}
CLOCK = SystemClock()
PATIENCE_S = 60.0
Event = dict[str, Any]


class HostKey:
    def __init__(self, host: str) -> None:
        self._pair = KeyPair(IDENTITIES[host].key)

    @property
    def key_id(self) -> str:
        return self._pair.key_id

    @property
    def public(self) -> dsse.PublicKey:
        return self._pair.public_key()

    def sign(self, data: bytes) -> bytes:
        return self._pair.sign(data)


class WrappingTpm:
    """The part of a host TPM that a migration uses."""

    def __init__(self, host: str) -> None:
        self._ak = AKS[host]
        self.keys: dict[bytes, MadeByHand] = {}

    def create_wrapping_key(self, nonce: bytes, pcrs: Iterable[int]) -> WrappingKey:
        private = ec.generate_private_key(ec.SECP256R1())
        made = self.keys[nonce] = MadeByHand(nonce=nonce, private=private, ak=self._ak)
        assert set(pcrs) == set(PCRS)
        return made.key

    def open_wrapped(self, nonce: bytes, wrapped: WrappedKey, context: bytes) -> Secret:
        made = self.keys[nonce]
        x, y = (int.from_bytes(part) for part in (wrapped.ephemeral[:32], wrapped.ephemeral[32:]))
        point = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
        shared = Secret(made.private.exchange(ec.ECDH(), point))
        name = name_of(made.public)
        return key_wrap.opened(shared, wrapped, key_name=name, nonce=nonce, context=context)

    def forget_wrapping_key(self, nonce: bytes) -> None:
        self.keys.pop(nonce, None)


class StubAttester:
    def __init__(self, host: str) -> None:
        certificate = IDENTITIES[host].certificate.public_bytes(Encoding.DER)
        self._shown = Presented(b"EK " + host.encode(), AKS[host].public, b"enrolment", certificate)

    async def presented(self) -> Presented:
        return self._shown

    async def evidence(self, qualifying: bytes) -> HostEvidence:
        return HostEvidence(Quote(qualifying, b"signature"), PCRS, b"log")

    async def available(self) -> bool:
        return True


class StubPremises:
    def __init__(self) -> None:
        self.memory = 2**34
        self.storage = 2**40
        self.looked_at: list[str] = []
        self.absent: set[str] = set()
        self.refused: set[str] = set()

    async def file_digests(self, paths: Iterable[str]) -> dict[str, str]:
        return dict.fromkeys(self._seen(paths), "sha256:" + "0" * 64)

    async def disk_sizes(self, paths: Iterable[str]) -> dict[str, int]:
        return {path: 2**20 for path in self._seen(paths) if path not in self.absent}

    def _seen(self, paths: Iterable[str]) -> list[str]:
        seen = list(paths)
        self.looked_at += seen
        return seen

    async def disk_usage(self, paths: Iterable[str]) -> dict[str, int]:
        return {path: Path(path).stat().st_blocks * 512 for path in self._seen(paths)}

    async def room(self, folder: str) -> int:
        return self.storage

    async def wipe_file(self, path: str) -> WipeStep:
        return await asyncio.to_thread(wiped, Path(path))

    async def outside(self, read: Iterable[str], written: Iterable[str]) -> tuple[str, ...]:
        named = (*read, *written)
        return tuple(path for path in named if path.startswith("/etc/") or path in self.refused)

    def bridges(self) -> tuple[str, ...]:
        return ()

    def memory_available_bytes(self) -> int:
        return self.memory


class StubAuthorizer:
    """alice may migrate, as `says` it; bob may approve."""

    def __init__(self) -> None:
        self.says: Answer = Authorized("the test's rule")
        self.says_of_states: Answer | None = None  # once the other host has attested
        self.adopted: list[tuple[str, str]] = []

    def operator_key(self, operator: str) -> bytes | None:
        key = {"alice": OPERATOR, "bob": APPROVER}.get(operator)
        raw = None if key is None else key.public_key()
        return raw.public_bytes_raw() if isinstance(raw, ed25519.Ed25519PublicKey) else None

    def operator_of(self, account: str) -> OperatorName | None:
        return OperatorName(account) if account in {"alice", "bob"} else None

    def decide(self, request: MigrationRequest, now: float, peer_state: str | None = None) -> Answer:
        if request.operator == "bob" and request.procedure in {"approve", "govern"}:
            return Authorized("bob approves, and governs")
        if request.operator != "alice" or request.procedure != "migrate":
            return Denied("denied", f"no rule allows it to {request.operator}", "add a rule")
        return self.says if peer_state is None or self.says_of_states is None else self.says_of_states

    def check_policy(self, policy: str, request: MigrationRequest, author: OperatorName, now: float) -> None:
        if "unsound" in policy:
            raise RefusedError("the policy is not put in force", kind="unsound-policy")

    def adopt(self, name: str, policy: str) -> None:
        self.adopted.append((name, policy))
        self.says = Authorized(name)


@dataclass
class LabHost:
    """One host: what survives its daemons, and the daemon that lives now."""

    name: str
    site: Site
    directory: Path
    disk: Disk = field(default_factory=Disk)
    tpm: WrappingTpm = field(init=False)
    premises: StubPremises = field(default_factory=StubPremises)
    inspector: FakeInspector = field(default_factory=FakeInspector)
    policy: InspectionPolicy = field(default_factory=InspectionPolicy)
    authorizer: StubAuthorizer = field(default_factory=StubAuthorizer)
    contents: FakeContents = field(default_factory=FakeContents)
    change: Callable[[bytes], bytes] | None = None  # what it says on channels from now on, changed
    daemon: Daemon | None = None
    dies_unheard: bool = False  # as when the machine loses its power: its connections just fall silent

    def __post_init__(self) -> None:
        self.tpm = WrappingTpm(self.name)

    @property
    def up(self) -> bool:
        return self.daemon is not None and not self.daemon.dead

    async def start(self) -> None:
        """A new daemon over what the last one left."""
        assert not self.up
        self.sockets: list[socket.socket] = []
        self.lines: list[Line] = []
        daemon = self.daemon = Daemon(self.name, self.site.plan)
        daemon.on_death.append(self._hang_up)
        self.tpm.keys.clear()  # transient keys end with the connection to the TPM
        starting = daemon.start(self._live)
        await asyncio.wait({starting}, timeout=PATIENCE_S)
        if daemon.dead:
            raise PowerCutError(self.name)
        starting.result()

    async def come_up(self) -> None:
        """Unless it is up. It may die again at once."""
        if not self.up:
            await self.crash()
            with suppress(PowerCutError):
                await self.start()

    async def _live(self) -> None:
        daemon = self.daemon
        assert daemon is not None
        site, name = self.site, HostName(self.name)
        journal: Any = Port(daemon, "journal", MemoryJournal(self.disk), silent=_READS)
        machines = FakeHypervisor(self.name, site.world)
        hypervisor: Any = Port(daemon, "hypervisor", machines)
        self.machines = machines
        vtpms: Any = Port(daemon, "vtpms", FakeVtpmAgent(site.tpms))
        watches = Watches(FakeAppraiser(), CLOCK, site.process_ended, poll_s=3600)
        self.guests = Guests(hypervisor, vtpms, journal, self.directory / "vms", watches=watches, clock=CLOCK)
        self.reception = TicketReception()
        examiner = Examiner(name, journal, CLOCK, self.inspector, lambda: self.policy)
        self.setting = Setting(
            host=name,
            state=self.directory,
            guests=self.guests,
            hypervisor=hypervisor,
            vtpms=vtpms,
            tpm=cast(Any, Port(daemon, "tpm", self.tpm)),
            journal=journal,
            clock=CLOCK,
            authorizer=self.authorizer,
            attester=StubAttester(self.name),
            verify=site.verify,
            signer=HostKey(self.name),
            dial=self._dial,
            dial_data=self._dial_data,
            reception=self.reception,
            address_of=lambda host: f"address of {host}",
            premises=self.premises,
            images=FakeImages(),
            kept=LocalKeptDisks(self.directory / "kept"),
            examiner=examiner,
            incoming_limit=2,
            contents=self.contents,
        )
        self.migrations = Migrations(self.setting, pace=site.pace)
        await self.guests.recover()
        await self.migrations.start()

    async def crash(self) -> None:
        if self.daemon is not None:
            self.daemon.kill()
            await self.daemon.gone()

    async def do(self, work: Callable[[], Any]) -> Any:
        """As this daemon, from outside."""
        assert self.daemon is not None

        async def run() -> Any:
            done = work()
            return await done if asyncio.iscoroutine(done) else done

        return await self.daemon.start(run)

    def _hang_up(self) -> None:
        for line in [] if self.dies_unheard else self.lines:
            line.cut()
        for connection in self.sockets:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    async def _dial(self, host: HostName, address: str) -> MemoryChannel:
        assert self.daemon is not None
        try:
            self.daemon.before("dial")
        except ToolError as error:
            raise PeerError(error.message, kind="unreachable") from error
        other = self.site.hosts[address.removeprefix("address of ")]
        await asyncio.sleep(0)
        if not other.up or frozenset({self.name, other.name}) in self.site.parted:
            raise PeerError(f"host {host} cannot be reached", kind="unreachable")
        assert other.daemon is not None
        line, secret = Line(), secrets.token_bytes(32)
        own, theirs = (StubAttester(name)._shown.tls_certificate for name in (self.name, other.name))
        here = MemoryChannel(self.daemon, line, other.name, own, theirs, secret)
        there = MemoryChannel(other.daemon, line, self.name, theirs, own, secret)
        if self.change is not None:
            here.change = self.change
        if other.change is not None:
            there.change = other.change
        self.lines.append(line)
        other.lines.append(line)
        other.daemon.start(lambda: other._welcome(there))
        return here

    async def _welcome(self, channel: MemoryChannel) -> None:
        try:
            await self.migrations.welcome(cast(Any, channel))
        except (KororaError, OSError):
            pass
        finally:
            await channel.close()

    def _dial_data(self, address: str) -> socket.socket:
        """A real TCP connection; its other end is brought to the other daemon."""
        other = self.site.hosts[address.removeprefix("address of ")]
        if not other.up or not self.up:
            raise ConnectionRefusedError(f"{other.name} is down")
        with socket.create_server(("127.0.0.1", 0)) as server:
            here = socket.create_connection(server.getsockname())
            there, _ = server.accept()
        self.sockets.append(here)
        other.sockets.append(there)
        assert other.daemon is not None
        self.site.loop.call_soon_threadsafe(other.daemon.start, lambda: other._receive(there))
        return here

    async def _receive(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        preamble = b""
        while len(preamble) < PREAMBLE_BYTES:
            piece = await asyncio.get_running_loop().sock_recv(connection, PREAMBLE_BYTES - len(preamble))
            if not piece:
                connection.close()
                return
            preamble += piece
        connection.setblocking(True)
        with suppress(PeerError):
            self.reception.arrived(parse_preamble(preamble), connection)


def receipts_in(leaves: Sequence[bytes]) -> list[bytes]:
    """The leaves of a log that are no decisions."""
    return [leaf for leaf in leaves if decision.read(leaf) is None]


def decisions_in(leaves: Sequence[bytes]) -> list[PolicyDecision]:
    return [told for told in map(decision.read, leaves) if told is not None]


_READS = frozenset(
    {
        "vm",
        "vms",
        "session",
        "sessions",
        "log",
        "log_size",
        "log_node",
        "question",
        "questions",
        "count_questions",
    }
)
PACE = recovery.Pace(every_s=0.01, soon_s=0.3, silent_s=60.0)


class Site:
    """All hosts, and what never may happen among them."""

    def __init__(self, directory: Path, names: str = "ab") -> None:
        self.loop = asyncio.get_running_loop()
        note_tasks(self.loop)
        self.plan = Plan()
        self.world = World()
        self.tpms = TpmWorld()
        self.world.device_of = self.tpms.processes.get
        self.parted: set[frozenset[str]] = set()
        self.distrusted: set[str] = set()
        self.pace = PACE
        self._spawned: list[asyncio.Task[None]] = []
        self.hosts = {name: LabHost(name, self, directory / name) for name in names}

    def __getitem__(self, name: str) -> LabHost:
        return self.hosts[name]

    async def start(self, owner: str = "a", *, vtpm: bool = True) -> None:
        """All daemons up, and the VM running on its owner."""
        self.plan.quiet = True
        for host in self.hosts.values():
            await host.start()
        definition = DEFINITION if vtpm else DEFINITION + "[vtpm]\nenabled = false\n"
        await self[owner].do(lambda: self[owner].guests.run(definition))
        self.plan.quiet = False

    def verify(
        self, presented: Presented, evidence: HostEvidence, *, host: HostName, qualifying: bytes
    ) -> Trusted | Untrusted:
        if host in self.distrusted or evidence.quote.attest != qualifying:
            return Untrusted("pcr-mismatch", "it booted something else", "look at it")
        platform = Platform("good", evidence.pcrs, None, 0, 0)
        return Trusted(host, platform, "000b", sha256(presented.ek_certificate), 2**32)

    async def process_ended(self, pid: int) -> None:
        for guest in self.world.guests:
            if guest.pid == pid:
                await guest.dead.wait()

    # -- to act -----------------------------------------------------------------------------------------

    def request(
        self,
        source: str,
        destination: str,
        mode: Mode = Mode.LIVE,
        *,
        key: KeyPair = OPERATOR,
        **other: Any,
    ) -> bytes:
        now = int(time.time())
        request = MigrationRequest(
            OperatorName("alice"),
            "migrate",
            VM,
            HostName(source),
            HostName(destination),
            mode,
            secrets.token_hex(32),
            now,
            now + 600,
        )
        payload = statements.encode_request(replace(request, **other))
        return dsse.envelope(statements.REQUEST_TYPE, payload, [key])

    def part(self) -> None:
        """The network between all hosts is gone, until `recover`."""
        self.parted = {frozenset(pair) for pair in itertools.combinations(self.hosts, 2)}
        for host in self.hosts.values():
            for line in host.lines:
                line.cut()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """As nobody's daemon."""
        self._spawned.append(asyncio.create_task(work))

    def settle_hastily(self) -> None:
        """From the next start of a daemon on, silence is soon a person's question."""
        self.pace = replace(self.pace, silent_s=0.05)

    async def settle_patiently(self) -> None:
        """However slow this machine is, an outcome waits until the hosts have settled it."""
        self.pace = replace(self.pace, soon_s=60.0)
        for host in self.hosts.values():
            await host.crash()
            await host.start()

    async def migrate(self, source: str, destination: str, mode: Mode = Mode.LIVE) -> Event:
        """The outcome; an empty event when the source's daemon died before it could tell."""
        return await self.follow(source, await self.begin(source, destination, mode))

    async def begin(self, source: str, destination: str, mode: Mode = Mode.LIVE) -> str:
        envelope = self.request(source, destination, mode)
        migrations = self[source].migrations
        return cast(str, await self[source].do(lambda: migrations.begin(envelope, None)))

    async def follow(self, source: str, name: str) -> Event:
        daemon, migrations = self[source].daemon, self[source].migrations
        assert daemon is not None

        async def hear() -> Event:
            async for event in migrations.events(name):
                if event["event"] == "outcome":
                    return dict(event)
            return {}

        hearing = asyncio.create_task(hear())
        dying = asyncio.create_task(daemon.died.wait())
        done, _ = await asyncio.wait(
            {hearing, dying}, timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED
        )
        for task in (hearing, dying):
            task.cancel()
        assert done, f"no outcome; the last points were {self.plan.passed[-5:]}"
        return hearing.result() if hearing in done else {}

    async def recover(self) -> None:
        """Whatever was down comes up again, and all that is open comes to its end."""
        self.parted.clear()
        for host in self.hosts.values():
            await host.come_up()
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not await self._quiet():  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
        except TimeoutError:
            raise AssertionError(f"it does not settle: {self.standings()}") from None

    async def _quiet(self) -> bool:
        for host in self.hosts.values():
            await host.come_up()  # it may have died of a fault that came late
        for host in self.hosts.values():
            if not host.up:
                return False
            busy = host.migrations.settlement.busy
            telling = any(entry["outcome"] is None for entry in host.migrations.list())
            records = host.disk.vms.values()  # of every VM
            if busy or telling or any(Status(one.ownership) in recovery.OPEN for one in records):
                return False
        return True

    # -- to look ----------------------------------------------------------------------------------------

    @dataclass(frozen=True)
    class Standing:
        host: str
        status: Status
        epoch: int

    def standings_of(self, host: LabHost) -> list[Site.Standing]:
        return [
            self.Standing(host.name, Status(record.ownership), record.epoch)
            for record in host.disk.vms.values()
            if record.name == VM
        ]

    def standings(self) -> list[Site.Standing]:
        return [one for host in self.hosts.values() for one in self.standings_of(host)]

    def owner(self) -> str:
        owners = [one.host for one in self.standings() if one.status is Status.OWNER]
        assert len(owners) == 1, self.standings()
        return owners[0]

    def runs_only_on(self, owner: str) -> None:
        """Exactly there, whole, and nothing of it anywhere else."""
        assert not self.world.violations, self.world.violations
        assert self.world.running(VM) == [owner], (self.world.running(VM), self.standings())
        assert self.owner() == owner, self.standings()
        assert len(self.world.living(VM)) == 1, [guest.host for guest in self.world.living(VM)]
        self.holds_only(owner)

    def rests_only_on(self, owner: str) -> None:
        """A stopped VM: there, with its vTPM."""
        assert not self.world.living(VM)
        assert self.owner() == owner, self.standings()
        assert set(self.tpms.at_rest) == {self[owner].directory / "vms" / VM}
        self.holds_only(owner)

    def holds_only(self, owner: str) -> None:
        """No other host holds a directory, a vTPM, a key, a ticket or a lock of it."""
        here = self[owner].directory / "vms" / VM
        assert {path for path in self.tpms.processes if path != here} == set()
        assert {path for path in self.tpms.at_rest if path != here} == set()
        for host in self.hosts.values():
            assert host.name == owner or not (host.directory / "vms" / VM).exists(), host.name
            assert host.tpm.keys == {}, host.name
            assert host.reception._waiting == {}, host.name
            assert host.guests.counts()["moving"] == 0, host.name

    def guest_state(self, host: str) -> RunState:
        return next(guest.state for guest in self.world.living(VM) if guest.host == host)

    async def stop(self) -> None:
        for host in self.hosts.values():
            await host.crash()
        for guest in self.world.guests:
            guest.die()


Story = Callable[[Site], Awaitable[None]]


class Tell(Protocol):
    """Tell a story on a fresh site, with the VM running on host a."""

    def __call__(self, story: Story, *, hosts: str = "ab") -> None: ...
