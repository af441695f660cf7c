"""Receipts before a judge: an honest one passes, also years later; a changed one never does."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from fakes import receipts
from fakes.receipts import AT, CARRIED, NORTH, OPERATOR, REQUEST, SITE, SOUTH, STRANGER, Told, changed, key_of
from fakes.site import TestSite
from korora.errors import IntegrityError
from korora.model.evidence import CleanMemoryProof, Quote, WipeCertificate, WipeStep
from korora.model.identity import Digest, HostName, OperatorName, VmName
from korora.model.plan import Mode
from korora.model.storage import ALL, Beneath, DiskContent, DisksAsked
from korora.model.tpm import WrappingKey
from korora.protocol import dsse
from korora.protocol.receipt import document
from korora.protocol.receipt.case import Judge
from korora.protocol.receipt.document import Limit
from korora.protocol.receipt.verification import CHECKS, verify_bundle

HONEST = receipts.bundle()
FAKE_DIGEST = Digest("sha256:" + "9" * 64)


def failed(told: Told, judge: Judge | None = None) -> set[str]:
    checks = verify_bundle(receipts.bundle(told), judge or receipts.judge())
    return {check.name for check in checks if not check.ok}


def test_an_honest_receipt_passes_every_check() -> None:
    checks = verify_bundle(HONEST, receipts.judge())
    assert [check.name for check in checks] == list(CHECKS)
    assert all(check.ok for check in checks), checks


def test_an_old_receipt_stays_good_when_its_certificates_have_expired() -> None:
    assert failed(Told(), receipts.judge(now=AT + 20 * 365 * 86400)) == set()


def test_no_byte_of_a_bundle_can_change_unnoticed() -> None:
    judge = receipts.judge()
    places = random.Random(7).sample(range(len(HONEST)), 120)
    for place in places:
        for flip in (0x01, 0x80):
            tampered = bytearray(HONEST)
            tampered[place] ^= flip
            assert not all(check.ok for check in verify_bundle(bytes(tampered), judge)), place


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    children = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    if not children and not isinstance(value, dict | list):
        yield path
    for key, child in children:
        yield from _leaves(child, (*path, key))


def _with_other(value: Any, path: tuple[Any, ...]) -> Any:
    """The same JSON with one value replaced by another of its kind."""
    copy = json.loads(json.dumps(value))
    inside = copy
    for key in path[:-1]:
        inside = inside[key]
    old = inside[path[-1]]
    match old:
        case bool():
            inside[path[-1]] = not old
        case int():
            inside[path[-1]] = old + 1
        case str():
            inside[path[-1]] = ("B" if old[:1] == "A" else "A") + old[1:]
        case None:
            inside[path[-1]] = "A"
    return copy


def test_no_field_of_the_receipt_can_change_without_both_signatures() -> None:
    whole = json.loads(HONEST)
    payload = json.loads(dsse.parse(receipts.envelope(Told())).payload)
    judge = receipts.judge()
    for path in _leaves(payload):
        forged = json.dumps(_with_other(payload, path), separators=(",", ":"), ensure_ascii=False).encode()
        whole["receipt"]["payload"] = msgspec.json.decode(msgspec.json.encode(forged))
        checks = verify_bundle(json.dumps(whole, separators=(",", ":")).encode(), judge)
        assert not all(check.ok for check in checks), path


def test_no_field_around_the_receipt_can_change_unnoticed() -> None:
    whole, judge = json.loads(HONEST), receipts.judge()
    for path in _leaves(whole):
        forged = json.dumps(_with_other(whole, path), separators=(",", ":"), ensure_ascii=False).encode()
        assert not all(check.ok for check in verify_bundle(forged, judge)), path


def test_noise_is_one_failed_check() -> None:
    for noise in (b"", b"{}", b"[" * 9999, b"\xff", HONEST[:-1], HONEST + b" ", b'{"version":1}'):
        assert [check.name for check in verify_bundle(noise, receipts.judge()) if not check.ok] == ["bundle"]


@pytest.mark.parametrize(
    ("told", "finds"),
    [
        (Told(request=replace(REQUEST, vm=VmName("db"))), "request"),
        (Told(request=replace(REQUEST, destination=HostName("east"))), "request"),
        (Told(request=replace(REQUEST, mode=Mode.OFFLINE)), "request"),
        (Told(request=replace(REQUEST, operator=OperatorName("mallory"))), "request"),
        (Told(request=replace(REQUEST, issued_at=AT + 5000, not_after=AT + 6000)), "request"),
        (Told(operator=key_of(NORTH)), "request"),
        (changed(vm="db"), "request"),
        (changed(epoch=3), "ownership"),
        (changed(session="ab" * 64), "session"),
        (changed(binding=b"\0" * 32), "source-attestation"),
        (changed(mode=Mode.OFFLINE), "arrival"),
        (changed(completed_at=AT + 10_000_000), "time"),
        (changed(completed_at=AT - 5000), "time"),
        (changed(completed_at=253_402_300_799), "signatures"),
        (changed(clean_memory=CleanMemoryProof("st_blocks", 9, 9, clean=False)), "clean-memory"),
        (changed(clean_memory=None), "clean-memory"),
        (changed(limits=()), "vtpm-key"),
        (changed(wrapping=WrappingKey(b"noise", b"", Quote(b"", b""))), "vtpm-key"),
        (changed(wipe=WipeCertificate((), ())), "wipe"),
        (changed(wipe=WipeCertificate((WipeStep("memory", "none", 0, verified=False),))), "wipe"),
        (changed(wipe=WipeCertificate((WipeStep("memory", "none", 0, False, "it was busy"),))), "wipe"),
        (Told(arrived=replace(CARRIED, roots=CARRIED.roots[:1])), "arrival"),
        (Told(arrived=replace(CARRIED, payload_bytes=1)), "arrival"),
        (Told(arrived=replace(CARRIED, blobs=None)), "vtpm-identity"),
        (Told(arrived=replace(CARRIED, vtpm=replace(receipts.VTPM, ek_name="000b"))), "vtpm-identity"),
        (Told(sent=replace(CARRIED, vtpm=None), arrived=replace(CARRIED, vtpm=None)), "vtpm-identity"),
        (Told(source=STRANGER), "signatures"),
        (Told(destination=SITE.host("south", names=("other",))), "signatures"),
        (Told(source=NORTH, destination=NORTH), "signatures"),
        (Told(move=msgspec.structs.replace(receipts.MOVE, epoch=7)), "ownership"),
    ],
)
def test_a_story_that_both_hosts_sign_is_still_found_false(told: Told, finds: str) -> None:
    assert finds in failed(told)


def _receipt_with(**parts: Any) -> Told:
    honest = receipts.receipt(Told())
    return changed(
        **{name: msgspec.structs.replace(getattr(honest, name), **change) for name, change in parts.items()}
    )


@pytest.mark.parametrize(
    ("told", "finds"),
    [
        (_receipt_with(source_host={"hello": b"noise"}), "session"),
        (_receipt_with(source_host={"hello": receipts.GREETED.destination_bytes}), "session"),
        (_receipt_with(source_host={"allowed_by": ""}), "allowed"),
        (_receipt_with(source_host={"evidence": receipts.evidence("destination")}), "source-attestation"),
        (_receipt_with(destination_host={"tls_certificate": b"noise"}), "signatures"),
        (_receipt_with(ownership={"accept": b"{}"}), "ownership"),
        (_receipt_with(ownership={"running": receipts.receipt(Told()).ownership.release}), "ownership"),
        (
            changed(rule=replace(receipts.receipt(Told()).rule, aead="NONE")),
            "session",
        ),
        (
            changed(ownership=receipts.ownership(Told(move=msgspec.structs.replace(receipts.MOVE, vm="db")))),
            "ownership",
        ),
    ],
)
def test_a_part_of_another_migration_is_found(told: Told, finds: str) -> None:
    assert finds in failed(told)


def test_what_could_not_be_proved_passes_only_when_it_is_admitted() -> None:
    admitted = (Limit.MEMORY_NOT_PROVED, Limit.VTPM_IN_STREAM, Limit.NOT_INSPECTED)
    assert failed(changed(clean_memory=None, limits=admitted)) == set()
    bare = Told(sent=replace(CARRIED, vtpm=None, blobs=None), arrived=replace(CARRIED, vtpm=None, blobs=None))
    assert failed(replace(bare, change=changed(limits=(Limit.NO_VTPM, Limit.NOT_INSPECTED)).change)) == set()


def test_a_stopped_vm_whose_disks_moved_had_no_memory_and_one_that_ran_had() -> None:
    beyond = receipts.receipt(Told()).rule.streams
    roots = tuple(replace(root, stream=beyond) for root in CARRIED.roots)
    admitted = (Limit.NO_MEMORY, Limit.VTPM_IN_STREAM, Limit.NOT_INSPECTED)
    told = changed(clean_memory=None, limits=admitted)
    stopped = replace(CARRIED, roots=roots)
    assert failed(replace(told, sent=stopped, arrived=stopped)) == set()
    both = replace(CARRIED, roots=(*CARRIED.roots, *roots))
    assert failed(replace(told, sent=both, arrived=both)) == {"clean-memory"}


def test_a_stranger_as_operator_or_authority_is_found() -> None:
    nobody = replace(receipts.judge(), operators={})
    assert failed(Told(), nobody) == {"request"}
    other_site = replace(receipts.judge(), authority=TestSite("another site").certificate)
    assert {"signatures", "ownership", "source-log", "destination-log"} <= failed(Told(), other_site)


def test_a_receipt_that_is_in_neither_log_is_found() -> None:
    signed = receipts.envelope(Told())
    forged = document.bundle(
        signed,
        receipts.proof("north", key_of(NORTH), b"something else", 3),
        receipts.proof("south", key_of(NORTH), document.leaf(signed), 3),
    )
    found = {check.name for check in verify_bundle(forged, receipts.judge()) if not check.ok}
    assert found == {"source-log", "destination-log"}


def test_the_proofs_stand_in_order_and_none_is_missing() -> None:
    parts = document.parse_bundle(HONEST)
    for logs in (parts.logs[::-1], parts.logs[:1], (), parts.logs * 2):
        forged = msgspec.json.encode(msgspec.structs.replace(parts, logs=logs))
        assert not all(check.ok for check in verify_bundle(forged, receipts.judge()))


def test_other_dsse_tools_find_the_envelope_in_the_file() -> None:
    envelope = json.loads(HONEST)["receipt"]
    assert envelope["payloadType"] == document.RECEIPT_TYPE
    assert len(envelope["signatures"]) == 2


def test_one_hosts_signature_is_not_enough() -> None:
    alone = document.signed(receipts.receipt(Told()), key_of(NORTH))
    with pytest.raises(IntegrityError):
        document.opened(alone, [key_of(NORTH).public_key(), key_of(SOUTH).public_key()])
    with pytest.raises(IntegrityError):
        document.opened(alone, [key_of(NORTH).public_key(), key_of(NORTH).public_key()])


def test_two_hosts_can_say_in_what_they_disagree() -> None:
    one = receipts.receipt(Told())
    assert document.disagreements(one, one) == ()
    assert document.disagreements(one, msgspec.structs.replace(one, bytes_sent=1, epoch=9)) == (
        "epoch",
        "bytes_sent",
    )


def test_the_operators_key_decides_not_the_name() -> None:
    assert "request" in failed(
        Told(operator=OPERATOR), replace(receipts.judge(), operators={OperatorName("alice"): b"\1" * 32})
    )


DISKS = (DiskContent("data", 2**20, Digest("blake3:" + "1" * 64)),)


@pytest.mark.parametrize("asked", [("data",), (ALL,)])
def test_a_receipt_of_a_move_with_disks_holds(asked: tuple[str, ...]) -> None:
    told = Told(request=replace(REQUEST, disks=DisksAsked(asked)), sent_disks=DISKS, arrived_disks=DISKS)
    found = {check.name: check for check in verify_bundle(receipts.bundle(told), receipts.judge())}
    assert all(check.ok for check in found.values())
    assert "content tree of data" in found["arrival"].detail


@pytest.mark.parametrize(
    ("asked", "sent", "arrived", "broken"),
    [
        (("data",), DISKS, (), "arrival"),
        (("data",), DISKS, (replace(DISKS[0], root=Digest("blake3:" + "2" * 64)),), "arrival"),
        (("data",), DISKS, (replace(DISKS[0], size=2**21),), "arrival"),
        ((), DISKS, DISKS, "request"),
        (("data",), (), (), "request"),
        ((ALL,), (), (), "request"),
        (("root", "data"), DISKS, DISKS, "request"),
    ],
)
def test_disks_that_are_not_the_same_or_were_not_asked_for_break_it(
    asked: tuple[str, ...], sent: tuple[DiskContent, ...], arrived: tuple[DiskContent, ...], broken: str
) -> None:
    told = Told(request=replace(REQUEST, disks=DisksAsked(asked)), sent_disks=sent, arrived_disks=arrived)
    assert failed(told) == {broken}


@pytest.mark.parametrize("beneath", Beneath)
@pytest.mark.parametrize("keep", [True, False])
def test_what_lay_beneath_a_disk_was_kept_just_where_the_operator_asked_for_it(
    keep: bool, beneath: Beneath
) -> None:
    asked = replace(REQUEST, disks=DisksAsked(("data",), keep_backing=keep))
    disks = (replace(DISKS[0], beneath=beneath),)
    told = Told(request=asked, sent_disks=disks, arrived_disks=disks)
    other = {Beneath.NOTHING: None, Beneath.KEPT: not keep, Beneath.FLATTENED: keep}[beneath]
    assert failed(told) == ({"request"} if other else set())


def test_two_hosts_that_tell_otherwise_of_what_lay_beneath_a_disk_are_found_out() -> None:
    there = (replace(DISKS[0], beneath=Beneath.FLATTENED),)
    told = Told(request=replace(REQUEST, disks=DisksAsked(("data",))), sent_disks=DISKS, arrived_disks=there)
    assert failed(told) == {"arrival"}
