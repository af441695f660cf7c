"""Statements: what is signed comes back, and nothing that was changed, moved or replayed does."""

from __future__ import annotations

import json
from dataclasses import replace

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from korora.errors import IntegrityError
from korora.model.crossing import Carried
from korora.model.evidence import BlobDigests, StreamRoot, VtpmIdentity
from korora.model.identity import Digest, HostName, OperatorName, SessionId, VmName
from korora.model.plan import MigrationRequest, Mode
from korora.model.storage import DisksAsked, StorageMode
from korora.protocol import dsse, statements
from korora.protocol.dsse import KeyPair
from korora.protocol.log import LogEntry
from korora.protocol.merkle import leaf_hash
from korora.protocol.statements import Accept, Decline, Manifest, Release, Running, move_of

HOST = KeyPair(ec.derive_private_key(11, ec.SECP256R1()))
OTHER = KeyPair(ec.derive_private_key(12, ec.SECP256R1()))
OPERATOR = KeyPair(ed25519.Ed25519PrivateKey.from_private_bytes(b"\3" * 32))
MOVE = move_of(VmName("web"), HostName("north"), HostName("south"), SessionId("ab" * 64), 2)
DIGEST = Digest("sha256:" + "0" * 64)
VTPM = VtpmIdentity("000b" + "1" * 64, {0: "aa" * 32, 10: "bb" * 32}, {"0x1c00002": "cc"}, DIGEST)
CARRIED = Carried(
    (StreamRoot(0, "forward", 9, 1000, DIGEST), StreamRoot(0, "return", 1, 10, DIGEST)),
    1010,
    1200,
    BlobDigests(DIGEST, DIGEST, DIGEST),
    VTPM,
)
REQUEST = MigrationRequest(
    OperatorName("alice"),
    "migrate",
    VmName("web"),
    HostName("north"),
    HostName("south"),
    Mode.LIVE,
    "0f" * 32,
    1_700_000_000,
    1_700_000_600,
)
MANIFEST = Manifest(move=MOVE, at=5, mode=Mode.LIVE, carried=CARRIED, files={"definition": DIGEST})
ALL: list[Manifest | Accept | Release | Running | Decline] = [
    MANIFEST,
    Accept(move=MOVE, at=6, manifest=DIGEST, carried=CARRIED),
    Release(move=MOVE, at=7, accept=DIGEST),
    Running(move=MOVE, at=8, release=DIGEST),
    Decline(move=MOVE, at=8, release=None, reason="the hypervisor refused"),
]


@pytest.mark.parametrize("statement", ALL, ids=lambda statement: type(statement).__name__)
def test_what_a_host_signed_comes_back(statement: Manifest) -> None:
    envelope = statements.signed(statement, HOST)
    assert statements.opened(envelope, type(statement), HOST.public_key()) == statement
    with pytest.raises(IntegrityError):
        statements.opened(envelope, type(statement), OTHER.public_key())


def test_a_statement_of_one_kind_is_never_taken_for_another() -> None:
    envelope = statements.signed(ALL[2], HOST)
    with pytest.raises(IntegrityError, match="release"):
        statements.opened(envelope, Running, HOST.public_key())


def _signed_as_manifest(change: dict[str, object]) -> bytes:
    text = json.dumps({**json.loads(msgspec.json.encode(MANIFEST)), **change}, separators=(",", ":"))
    return dsse.envelope(Manifest.TYPE, text.encode(), [HOST])


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"surprise": 1},
        {"at": -1},
        {"at": 1.5},
        {"mode": "teleport"},
        {"files": {"definition": "sha256:short"}},
        {"move": {**json.loads(msgspec.json.encode(MOVE)), "session": "AB" * 64}},
        {"move": {**json.loads(msgspec.json.encode(MOVE)), "epoch": 0}},
        {"carried": None},
    ],
)
def test_a_signed_statement_with_anything_odd_in_it_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(IntegrityError) as caught:
        statements.opened(_signed_as_manifest(change), Manifest, HOST.public_key())
    assert caught.value.kind == "malformed-statement"


@pytest.mark.parametrize(
    "other",
    [
        msgspec.structs.replace(MOVE, vm="db"),
        msgspec.structs.replace(MOVE, source="east"),
        msgspec.structs.replace(MOVE, destination="east"),
        msgspec.structs.replace(MOVE, session="cd" * 64),
        msgspec.structs.replace(MOVE, epoch=3),
    ],
)
def test_a_statement_of_another_move_is_refused(other: statements.Move) -> None:
    statements.check_move(MANIFEST, MOVE)
    with pytest.raises(IntegrityError) as caught:
        statements.check_move(MANIFEST, other)
    assert caught.value.kind == "wrong-statement"


def test_an_answer_to_another_statement_is_refused() -> None:
    statements.check_answers(statements.digest(b"manifest"), b"manifest", "manifest")
    with pytest.raises(IntegrityError, match="another manifest"):
        statements.check_answers(statements.digest(b"manifest"), b"other", "manifest")


def test_hosts_that_saw_the_same_agree_whatever_their_own_overhead() -> None:
    assert statements.differences(CARRIED, replace(CARRIED, wire_bytes=1, roots=CARRIED.roots[::-1])) == ()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"roots": CARRIED.roots[:1]}, "roots"),
        ({"roots": (*CARRIED.roots[:1], replace(CARRIED.roots[1], frames=2))}, "roots"),
        ({"payload_bytes": 1}, "1 arrived"),
        ({"blobs": None}, "blobs"),
        ({"vtpm": None}, "only one host"),
        ({"vtpm": replace(VTPM, ek_name="000b")}, "ek_name"),
        ({"vtpm": replace(VTPM, pcrs={0: "aa" * 32})}, "pcrs"),
        ({"vtpm": replace(VTPM, nv={})}, "nv"),
        ({"vtpm": replace(VTPM, permanent=Digest("sha256:" + "1" * 64))}, "permanent"),
    ],
)
def test_every_difference_is_said(change: dict[str, object], said: str) -> None:
    arrived = replace(CARRIED, **change)  # type: ignore[arg-type]
    assert any(said in sentence for sentence in statements.differences(CARRIED, arrived))


def test_two_roots_for_one_stream_are_a_difference() -> None:
    doubled = replace(CARRIED, roots=CARRIED.roots * 2)
    assert statements.differences(doubled, doubled)


def test_a_request_is_read_only_with_its_operators_signature() -> None:
    envelope = dsse.envelope(statements.REQUEST_TYPE, statements.encode_request(REQUEST), [OPERATOR])
    assert statements.peek_request(envelope) == REQUEST
    assert statements.open_request(envelope, {OPERATOR.key_id: OPERATOR.public_key()}) == REQUEST
    with pytest.raises(IntegrityError):
        statements.open_request(envelope, {HOST.key_id: HOST.public_key()})


def test_whether_only_changes_are_sent_is_signed_and_left_out_when_nobody_asked() -> None:
    asked = replace(REQUEST, disks=DisksAsked(("data",), incremental=True))
    envelope = dsse.envelope(statements.REQUEST_TYPE, statements.encode_request(asked), [OPERATOR])
    assert statements.peek_request(envelope) == asked
    assert b"incremental" not in statements.encode_request(REQUEST)


def test_whether_backing_images_are_kept_is_signed_and_left_out_when_nobody_asked() -> None:
    asked = replace(REQUEST, disks=DisksAsked(("data",), keep_backing=True))
    envelope = dsse.envelope(statements.REQUEST_TYPE, statements.encode_request(asked), [OPERATOR])
    assert statements.peek_request(envelope) == asked
    assert b"backing" not in statements.encode_request(REQUEST)


def test_a_request_says_how_disks_are_copied_only_where_it_is_not_left_open() -> None:
    assert not {"storage_mode", "replacement"} & json.loads(statements.encode_request(REQUEST)).keys()
    for mode in StorageMode:
        how = DisksAsked(storage_mode=mode, replacement="/srv/aside")
        asked = replace(REQUEST, disks=how)
        envelope = dsse.envelope(statements.REQUEST_TYPE, statements.encode_request(asked), [OPERATOR])
        assert statements.peek_request(envelope) == asked


@pytest.mark.parametrize(
    "change",
    [
        {"incremental": False},
        {"keep_backing": False},
        {"vm": "../etc"},
        {"operator": ""},
        {"source": "a b"},
        {"nonce": "0f"},
        {"mode": "sideways"},
        {"version": 2},
        {"not_after": "soon"},
        {"more": 1},
        {"storage_mode": "auto"},
        {"replacement": "here"},
        {"replacement": "/srv/new\nline"},
        {"replacement": "/" + "a" * 1024},
    ],
)
def test_a_request_with_anything_odd_in_it_is_refused(change: dict[str, object]) -> None:
    text = json.dumps({**json.loads(statements.encode_request(REQUEST)), **change}, separators=(",", ":"))
    envelope = dsse.envelope(statements.REQUEST_TYPE, text.encode(), [OPERATOR])
    with pytest.raises(IntegrityError):
        statements.peek_request(envelope)


def test_the_documented_vectors_come_out() -> None:
    key = KeyPair(ed25519.Ed25519PrivateKey.from_private_bytes(b"\1" * 32))
    asked = replace(REQUEST, nonce="00" * 32)
    request = dsse.envelope(statements.REQUEST_TYPE, statements.encode_request(asked), [key])
    assert statements.digest(request) == (
        "sha256:3429c23c15b0bfade4c59084ba3e7fbfe76b1286f813214aeac0cc00075909dd"
    )
    host = KeyPair(ec.derive_private_key(1, ec.SECP256R1()))
    release = statements.signed(Release(move=MOVE, at=1_700_000_100, accept=DIGEST), host)
    assert statements.digest(release) == (
        "sha256:dced17f03bffdcd7fb2963ca0ecc3c1ec15766245ec9ffe9a4574673e3e69ccf"
    )
    leaf = LogEntry(kind="receipt", vm="web", session="ab" * 64, digest=DIGEST).leaf()
    assert leaf_hash(leaf).hex() == "d5a7064281faf8546973cc432b00c6f6e1b0e80759fdd21fd23488f259d40320"
