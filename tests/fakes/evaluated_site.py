"""The site of `fakes.receipts` as the command line finds it, and daemons of its hosts with a history."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from fakes import receipts
from fakes.cli_site import documents
from fakes.daemon import Answer, FakeDaemon
from fakes.site import TestSite
from korora.cli.diagnosis import Symptom
from korora.cli.evaluation.history import DECIDED
from korora.cli.main import answer
from korora.model.evidence import HostEvidence
from korora.model.identity import HostName, sha256
from korora.policy.appraisal import Platform, Presented, TrustAnchors, Trusted, Untrusted
from korora.policy.pcrs import PLATFORM_PCRS
from korora.policy.precheck import PRECHECKS
from korora.policy.reference_values import ReferenceState, ReferenceValues, rendered
from korora.protocol import log, merkle, messages, statements
from korora.protocol.decision import PolicyDecision
from korora.protocol.handshake import SOURCE, greeting
from korora.protocol.receipt import document
from korora.protocol.receipt.document import Limit, Ownership
from korora.protocol.statements import Accept, Manifest, Release, Running

CONFIGURATION = """
[site]
name = "test"
authority = "authority.pem"
manufacturers = ["authority.pem"]
reference_values = "reference.toml"
authorization = "authorization.toml"
[hosts.north]
api = "north.sock"
"""
POLICY = 'permit (principal == Operator::"alice", action == Action::"migrate", resource);\n'
EXAMPLES = """
[[example]]
operator = "alice"
vm = "web"
from = "north"
to = "south"
expect = "yes"
"""
CERTIFICATES = {"north": receipts.NORTH.certificate, "south": receipts.SOUTH.certificate}
KEYS = {"north": receipts.key_of(receipts.NORTH), "south": receipts.key_of(receipts.SOUTH)}


def write(folder: Path) -> None:
    """The configuration, with the anchors and operators of these receipts."""
    (folder / "korora.toml").write_text(CONFIGURATION)
    (folder / "authority.pem").write_bytes(receipts.SITE.certificate.public_bytes(Encoding.PEM))
    state = ReferenceState("good", {}, ignored=frozenset(PLATFORM_PCRS))
    (folder / "reference.toml").write_text(rendered(ReferenceValues((state,))))
    key = receipts.judge().operators[receipts.REQUEST.operator].hex()
    (folder / "authorization.toml").write_text(f'[operators.alice]\nkey = "{key}"\n')
    (folder / "policies").mkdir()
    (folder / "policies" / "web.cedar").write_text(POLICY)
    (folder / "examples.toml").write_text(EXAMPLES)


def other_authority(folder: Path) -> None:
    """The anchor is that of another site."""
    (folder / "authority.pem").write_bytes(TestSite().certificate.public_bytes(Encoding.PEM))


def appraise_receipt(
    presented: Presented,
    evidence: HostEvidence,
    *,
    host: HostName,
    qualifying_data: bytes,
    anchors: TrustAnchors,
    now: float,
) -> Trusted | Untrusted:
    """The quotes of these receipts are pretended; how real ones are judged has tests of its own."""
    return receipts.appraise(presented, evidence, host=host, qualifying_data=qualifying_data, now=now)


def appraise_live(
    presented: Presented,
    evidence: HostEvidence,
    *,
    host: HostName,
    qualifying_data: bytes,
    anchors: TrustAnchors,
    now: float,
) -> Trusted | Untrusted:
    """Every host that asks is in the one good state, for another year."""
    platform = Platform("good", {}, secure_boot=True, reset_count=0, restart_count=0)
    return Trusted(host, platform, "000b", sha256(b"ek"), int(now) + 365 * 86_400)


# -- the report ----------------------------------------------------------------------------------------------

Document = dict[str, Any]
CLOCK = Symptom("machine", "clock", True, "12:00 UTC")
NOT_BUILT = frozenset({"second-person"})


def prepared(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The site and a good receipt in this folder, and a machine on which all is well."""
    write(folder)
    (folder / "receipt.json").write_bytes(receipts.bundle(near_ideal()))
    monkeypatch.setenv("KORORA_CONFIG", str(folder / "korora.toml"))
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state"))
    monkeypatch.setattr("korora.cli.evidence.receipt.appraise_host", appraise_receipt)
    monkeypatch.setattr("korora.cli.evidence.host.appraise_host", appraise_live)
    monkeypatch.setattr("korora.cli.evaluation.site.examine", lambda _: [CLOCK])


def evaluated(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> Document:
    assert answer(["evaluate", *words, "--json"]) == code
    (document,) = documents(capsys.readouterr().out)
    assert isinstance(document, dict)
    return document


def verdicts(document: Document) -> dict[str, str]:
    return {one["id"]: one["verdict"] for one in document["criteria"]}


def evidence(document: Document) -> dict[tuple[str, str | None], Document]:
    return {
        (shown["fact"], shown["host"]): shown for one in document["criteria"] for shown in one["evidence"]
    }


# -- the migration -------------------------------------------------------------------------------------------


BESIDE: Final = {"definition": sha256(b"definition"), "dossier": sha256(b"dossier")}


def with_definition(told: receipts.Told | None = None, beside: Mapping[str, str] = BESIDE) -> Ownership:
    """The hand-over's chain, with what went beside the stream in its manifest."""
    told = told or receipts.Told()
    source, destination, move, at = KEYS["north"], KEYS["south"], told.move, receipts.AT
    manifest = statements.signed(
        Manifest(
            move=move,
            at=at,
            mode=told.request.mode,
            carried=told.sent,
            files=dict(beside),
        ),
        source,
    )
    accept = statements.signed(
        Accept(move=move, at=at, manifest=sha256(manifest), carried=told.arrived), destination
    )
    release = statements.signed(Release(move=move, at=at, accept=sha256(accept)), source)
    running = statements.signed(Running(move=move, at=at, release=sha256(release)), destination)
    return Ownership(manifest=manifest, accept=accept, release=release, running=running)


def near_ideal(**fields: Any) -> receipts.Told:
    """Both hosts tell of a migration that did everything this version can; `fields` differ from it."""
    best = {
        "prechecks": PRECHECKS,
        "ownership": with_definition(),
        "inspection": receipts.INSPECTION,
        "flags": receipts.FLAGS,
        "limits": (Limit.VTPM_IN_STREAM,),
        "wipe": msgspec.convert(
            {"steps": [{"what": "guest memory", "method": "m", "bytes": 1, "verified": True}], "limits": []},
            type(receipts.receipt(receipts.Told()).wipe),
        ),
    }
    return receipts.changed(**{**best, **fields})


def lasting(seconds: int) -> receipts.Told:
    """The operator's request is valid for so long."""
    request = replace(receipts.REQUEST, not_after=receipts.REQUEST.issued_at + seconds)
    return replace(near_ideal(), request=request)


def of_another_session(monkeypatch: pytest.MonkeyPatch, **fields: Any) -> tuple[str, bytes, list[bytes]]:
    """A second migration of the same VM: its session, its bundle, and what its log has."""
    hello = receipts.hello(SOURCE, "north", b"\x03" * 32)
    there = receipts.DESTINATION_HELLO
    greeted = greeting(hello, messages.encode(hello), there, messages.encode(there))
    move = msgspec.structs.replace(receipts.MOVE, session=greeted.session)
    with monkeypatch.context() as changed:
        changed.setattr(receipts, "GREETED", greeted)
        changed.setattr(receipts, "MOVE", move)
        told = replace(
            near_ideal(**{"ownership": with_definition(receipts.Told(move=move)), **fields}), move=move
        )
        return greeted.session, receipts.bundle(told), history(told)


# -- daemons -------------------------------------------------------------------------------------------------


def decisions(procedures: Sequence[str] = DECIDED, answer: str = "yes") -> list[bytes]:
    """The leaves of what the rules said of the migration."""
    return [
        PolicyDecision(
            vm="web",
            request="sha256:" + "b" * 64,
            session="" if number == 0 else receipts.MOVE.session,
            role="source",
            number=number,
            procedure=procedure,
            user="operator alice",
            agent="a",
            takes="t",
            makes="m",
            value="",
            answer=answer,  # type: ignore[arg-type]
            rule=procedure,
            clause="",
            protects="",
            at=receipts.AT,
        ).leaf()
        for number, procedure in enumerate(procedures)
    ]


def history(told: receipts.Told) -> list[bytes]:
    """The log of a host that made this migration."""
    return [*decisions(), document.leaf(receipts.envelope(told))]


def speaks(daemon: FakeDaemon, told: receipts.Told | None, leaves: list[bytes] | None = None) -> None:
    """Let the daemon of a host answer everything. Without `told` it made no migration."""
    name = daemon.name
    routes = daemon.routes
    routes["GET", "/v1/host"] = Answer(host_view(name))
    routes["POST", "/v1/attestation"] = Answer(attestation(name))
    routes["GET", "/v1/vms"] = Answer([])
    routes["GET", "/v1/questions"] = Answer([])
    if told is not None:
        routes["GET", f"/v1/receipts/{receipts.MOVE.session}"] = Answer(receipts.bundle(told))
    keeps(daemon, leaves if leaves is not None else history(told) if told is not None else [])


def host_view(name: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "version": "0.1.0",
        "enrolled": True,
        "tpm_ok": True,
        "hypervisor": {"accelerator": "kvm"},
        **more,
    }


def attestation(name: str) -> dict[str, Any]:
    certificate = CERTIFICATES[name].public_bytes(Encoding.DER)
    empty = dict.fromkeys(
        ("ek_certificate", "ek_public", "ak_public", "attest", "signature", "event_log", "enrolment"), ""
    )
    return {**empty, "host": name, "pcrs": {}, "certificate": base64.b64encode(certificate).decode()}


def keeps(daemon: FakeDaemon, leaves: list[bytes], signed: list[bytes] | None = None) -> None:
    """Let the daemon show these leaves, under a head over `signed` (the same, unless given)."""
    under = leaves if signed is None else signed
    head = log.signed_head(
        daemon.name, len(under), merkle.nodes_of(under), at=receipts.AT, key=KEYS[daemon.name]
    )
    daemon.routes["GET", "/v1/log"] = Answer(
        {
            "host": daemon.name,
            "size": len(leaves),
            "root": "sha256:" + merkle.root_of(leaves).hex(),
            "tree_head": head.decode(),
            "leaves": [base64.b64encode(leaf).decode() for leaf in leaves],
        }
    )
