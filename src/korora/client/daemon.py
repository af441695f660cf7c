"""One daemon, one method per thing it can be asked. Shapes are in `views` and `events`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import quote

from korora.client.events import Event, MigrationOutcome, parse_event
from korora.client.inspections import (
    Failed,
    FlagsView,
    Inspected,
    Looking,
    Verified,
    parse_inspection_event,
    unexpected,
)
from korora.client.transport import Transport
from korora.client.views import (
    Activated,
    ApplicantView,
    AttestationView,
    Findings,
    HostView,
    LogView,
    MigrationView,
    QuestionView,
    ReceiptEntry,
    Started,
    VmView,
)
from korora.model.evidence import WipeStep
from korora.model.flag import Flag
from korora.model.heat import CELLS, VmHeat
from korora.model.inspection import Inspection
from korora.model.kept import KeptDisk
from korora.model.plan import Finding, Inquiry

# A guest may take its time to boot under emulation, or to shut down.
_SLOW_S = 300.0
# Whole disks are overwritten, and read back.
_WIPED_WITHIN_S = 24 * 3600.0
# The daemon tells of a running migration about once a second; so long a silence means that it is stuck.
_SILENCE_S = 120.0
# Ten thousand flags, or as many changed files, with long names.
_FOUND_MAX_BYTES = 128 * 1024 * 1024

Last = TypeVar("Last", Inspected, Verified)


class Daemon:
    """The daemon of host `host`, at a unix socket. Every method blocks and raises KororaError."""

    def __init__(self, api: Path, host: str) -> None:
        self.host_name = host
        self._transport = Transport(api, host)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._transport.close()

    # -- the host -------------------------------------------------------------------------------------

    def host(self, *, deadline_s: float = 30.0) -> HostView:
        return self._transport.call("GET", "/v1/host", HostView, deadline_s=deadline_s)

    def attestation(self, nonce: bytes) -> AttestationView:
        """Evidence of the host over this nonce (32 bytes). Unverified: appraising is the caller's."""
        body = {"nonce": nonce.hex()}
        return self._transport.call("POST", "/v1/attestation", AttestationView, body=body, deadline_s=60.0)

    def begin_enrolment(self) -> ApplicantView:
        """What the site's authority needs in order to challenge this host's TPM."""
        return self._transport.call("POST", "/v1/enrolment/begin", ApplicantView, deadline_s=60.0)

    def activate(self, blob: bytes, encrypted_secret: bytes) -> bytes:
        """Answer a challenge (TPM2_MakeCredential's output): the secret, if the TPM holds EK and AK."""
        body = {"blob": blob, "encrypted_secret": encrypted_secret}
        answer = self._transport.call("POST", "/v1/enrolment/activate", Activated, body=body, deadline_s=60.0)
        return answer.secret

    def finish_enrolment(self, certificate: str, enrolment: str) -> None:
        """Install the certificate (PEM) and the authority's signed statement; used from now on."""
        body = {"certificate": certificate, "enrolment": enrolment}
        self._transport.order("POST", "/v1/enrolment/finish", body)

    # -- VMs ------------------------------------------------------------------------------------------

    def vms(self) -> list[VmView]:
        return self._transport.call("GET", "/v1/vms", list[VmView])

    def vm(self, name: str) -> VmView:
        """UsageError(kind="unknown-vm") when the host knows none of that name."""
        return self._transport.call("GET", f"/v1/vms/{_segment(name)}", VmView)

    def define(self, definition: str, *, start: bool) -> VmView:
        """Give the host a VM by its TOML text. On failure the host knows it no more than before."""
        body = {"definition": definition, "start": start}
        return self._transport.call("POST", "/v1/vms", VmView, body=body, deadline_s=_SLOW_S)

    def start(self, name: str) -> VmView:
        path = f"/v1/vms/{_segment(name)}/start"
        return self._transport.call("POST", path, VmView, body={}, deadline_s=_SLOW_S)

    def stop(self, name: str, *, force: bool = False) -> VmView:
        """Ask the guest to shut down; `force` ends it at once."""
        path = f"/v1/vms/{_segment(name)}/stop"
        return self._transport.call("POST", path, VmView, body={"force": force}, deadline_s=_SLOW_S)

    def heat(self, name: str, cells: int = CELLS) -> VmHeat:
        """What is popular on its disks, each of them in at most so many cells."""
        return self._transport.call("GET", f"/v1/vms/{_segment(name)}/heat?cells={cells}", VmHeat)

    def kept(self) -> list[KeptDisk]:
        """What the host keeps of the disks of VMs that left it."""
        return self._transport.call("GET", "/v1/kept", list[KeptDisk])

    def drop_kept(self, vm: str) -> list[WipeStep]:
        """Wipe what it keeps of this VM's. UsageError(kind="nothing-kept")."""
        return self._transport.call(
            "DELETE", f"/v1/kept/{_segment(vm)}", list[WipeStep], deadline_s=_WIPED_WITHIN_S
        )

    def adopt(self, qmp: str, name: str | None = None) -> VmView:
        """Supervise a QEMU that somebody else started, by its QMP socket (a path on that host)."""
        body = {"qmp": qmp, "name": name}
        return self._transport.call("POST", "/v1/vms/adopt", VmView, body=body, deadline_s=60.0)

    # -- migrations -----------------------------------------------------------------------------------

    def check(self, asked: Inquiry) -> tuple[Finding, ...]:
        """Run both hosts' prechecks. Nothing moves."""
        body = asdict(asked)
        return self._transport.call("POST", "/v1/checks", Findings, body=body, deadline_s=120.0).findings

    def migrate(self, request: str, address: str | None = None) -> str:
        """Ask for a migration by a signed request (a DSSE envelope's text). Returns the migration's id."""
        body = {"request": request, "address": address}
        return self._transport.call("POST", "/v1/migrations", Started, body=body, deadline_s=60.0).id

    def migrations(self) -> list[MigrationView]:
        """Those that began there and that whoever asks may watch."""
        return self._transport.call("GET", "/v1/migrations", list[MigrationView])

    def events(self, migration: str, *, silence_s: float = _SILENCE_S) -> Iterator[Event]:
        """Everything the migration says until its outcome, which is the last.

        ConnectionLostError when the stream ends without one: the migration may still go on.
        """
        path = f"/v1/migrations/{_segment(migration)}/events"
        for line in self._transport.lines(path, deadline_s=silence_s):
            if not line.strip():
                continue
            event = parse_event(line)
            yield event
            if isinstance(event, MigrationOutcome):
                return
        raise self._transport.lost("it ended before it told the migration's outcome")

    def cancel(self, migration: str) -> None:
        """Ask to cancel. The outcome still comes by `events`; past the commit it may be `completed`."""
        self._transport.order("DELETE", f"/v1/migrations/{_segment(migration)}")

    # -- questions ------------------------------------------------------------------------------------

    def questions(self) -> list[QuestionView]:
        return self._transport.call("GET", "/v1/questions", list[QuestionView])

    def question(self, question: str) -> QuestionView:
        return self._transport.call("GET", f"/v1/questions/{_segment(question)}", QuestionView)

    def answer(self, answer: str) -> QuestionView:
        """Answer by a signed statement (a DSSE envelope's text)."""
        return self._transport.call("POST", "/v1/questions/answers", QuestionView, body={"answer": answer})

    # -- to look into VMs -----------------------------------------------------------------------------

    def inspect(self, vm: str) -> Iterator[Looking | Inspected]:
        """What is told while it looks; last an Inspected. Its error is raised."""
        return self._looking(f"/v1/vms/{_segment(vm)}/inspection", Inspected)

    def verify(self, vm: str) -> Iterator[Looking | Verified]:
        """The same against the VM's baseline; last a Verified."""
        return self._looking(f"/v1/vms/{_segment(vm)}/verification", Verified)

    def inspection(self, vm: str) -> Inspection:
        """The last report. UsageError(kind="unknown-inspection") when there is none."""
        return self._transport.call("GET", f"/v1/vms/{_segment(vm)}/inspection", Inspection)

    def flags(self) -> FlagsView:
        return self._transport.call("GET", "/v1/flags", FlagsView, deadline_s=60.0)

    def original(self, vm: str, flag: str) -> bytes:
        """The bag, as a tar. UsageError(kind="no-original") when none is kept."""
        return self._transport.read(
            f"/v1/vms/{_segment(vm)}/flags/{_segment(flag)}/original", deadline_s=60.0
        )

    def resolve(self, resolution: str) -> Flag:
        """Hand in a signed word on a flag (a DSSE envelope's text)."""
        return self._transport.call("POST", "/v1/flags/resolutions", Flag, body={"resolution": resolution})

    def _looking(self, path: str, last: type[Last]) -> Iterator[Looking | Last]:
        """To the `last`, which a host may make long: of many files each has its name in it."""
        for line in self._transport.lines(path, deadline_s=_SILENCE_S, method="POST", limit=_FOUND_MAX_BYTES):
            if not line.strip():
                continue
            event = parse_inspection_event(line)
            if isinstance(event, Failed):
                raise event.error.as_error()
            if not isinstance(event, (Looking, last)):
                raise unexpected(type(event).__name__)
            yield event
            if not isinstance(event, Looking):
                return
        raise self._transport.lost("it ended before it told what was found")

    # -- evidence -------------------------------------------------------------------------------------

    def receipts(self) -> list[ReceiptEntry]:
        return self._transport.call("GET", "/v1/receipts", list[ReceiptEntry])

    def receipt(self, session: str) -> bytes:
        """The receipt's DSSE envelope, as the host keeps it."""
        return self._transport.read(f"/v1/receipts/{_segment(session)}")

    def log(self) -> LogView:
        return self._transport.call("GET", "/v1/log", LogView, deadline_s=120.0)


def _segment(text: str) -> str:
    return quote(text, safe="")
