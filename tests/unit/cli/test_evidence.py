"""`korora receipt` and `korora log`: the honest passes, the changed exits with 5, the missing with 2."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from fakes import receipts
from fakes.cli_site import documents
from fakes.daemon import Answer, FakeDaemon, serving
from korora.cli.main import answer
from korora.model.evidence import HostEvidence
from korora.policy.appraisal import Presented, TrustAnchors, Trusted, Untrusted
from korora.policy.pcrs import PLATFORM_PCRS
from korora.policy.reference_values import ReferenceState, ReferenceValues, rendered
from korora.protocol import log, merkle

Captured = pytest.CaptureFixture[str]

CONFIGURATION = """
[site]
authority = "authority.pem"
manufacturers = ["authority.pem"]
reference_values = "reference.toml"
authorization = "authorization.toml"
[hosts.north]
api = "north.sock"
"""
LEAVES = [
    log.LogEntry(kind="receipt", vm=f"web-{number}", session="0" * 128, digest="sha256:" + "a" * 64).leaf()
    for number in range(7)
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A site that trusts the hosts of fakes.receipts, and the receipt of their migration."""
    (tmp_path / "korora.toml").write_text(CONFIGURATION)
    (tmp_path / "authority.pem").write_bytes(receipts.SITE.certificate.public_bytes(Encoding.PEM))
    state = ReferenceState("any", {}, ignored=frozenset(PLATFORM_PCRS))
    (tmp_path / "reference.toml").write_text(rendered(ReferenceValues((state,))))
    key = receipts.judge().operators[receipts.REQUEST.operator].hex()
    (tmp_path / "authorization.toml").write_text(f'[operators.alice]\nkey = "{key}"\n')
    (tmp_path / "receipt.json").write_bytes(receipts.bundle())
    monkeypatch.setenv("KORORA_CONFIG", str(tmp_path / "korora.toml"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr("korora.cli.evidence.receipt.appraise_host", _appraise)
    return tmp_path


def _appraise(
    presented: Presented,
    evidence: HostEvidence,
    *,
    host: Any,
    qualifying_data: bytes,
    anchors: TrustAnchors,
    now: float,
) -> Trusted | Untrusted:
    """The quotes of these receipts are pretended; how real ones are judged has tests of its own."""
    return receipts.appraise(presented, evidence, host=host, qualifying_data=qualifying_data, now=now)


# -- receipts ----------------------------------------------------------------------------------------------


def test_an_honest_receipt_is_verified_check_by_check(folder: Path, capsys: Captured) -> None:
    assert answer(["receipt", "verify", str(folder / "receipt.json")]) == 0
    captured = capsys.readouterr()
    assert "✗" not in captured.out
    assert captured.out.count("✓") > 10
    assert captured.err == ""


def test_a_verified_receipt_is_an_object_for_scripts(folder: Path, capsys: Captured) -> None:
    assert answer(["receipt", "verify", str(folder / "receipt.json"), "--json"]) == 0
    (document,) = documents(capsys.readouterr().out)
    assert document["verified"] is True
    assert document["error"] is None
    assert all(check["ok"] for check in document["checks"])


@pytest.mark.parametrize("place", [0, 1000, -10])
def test_a_receipt_with_a_changed_byte_is_an_integrity_violation(
    folder: Path, place: int, capsys: Captured
) -> None:
    data = bytearray((folder / "receipt.json").read_bytes())
    data[place] ^= 1
    (folder / "receipt.json").write_bytes(data)
    assert answer(["receipt", "verify", str(folder / "receipt.json"), "--json"]) == 5
    captured = capsys.readouterr()
    (document,) = documents(captured.out)
    assert document["verified"] is False
    assert document["error"]["kind"] == "verification-failed"
    assert "does not hold" in captured.err


def test_an_operator_who_is_not_known_fails_by_name(folder: Path, capsys: Captured) -> None:
    (folder / "others.toml").write_text(f'[operators.bob]\nkey = "{"0" * 64}"\n')
    words = ["receipt", "verify", str(folder / "receipt.json"), "--operators", str(folder / "others.toml")]
    assert answer(words) == 5
    assert "no key is known of the operator 'alice'" in capsys.readouterr().out


def test_a_receipt_is_read_without_any_configuration(
    folder: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KORORA_CONFIG")
    assert answer(["receipt", "show", str(folder / "receipt.json")]) == 0
    out = capsys.readouterr().out
    for told in ("not verified", "web (epoch 2)", "north to south, live", "alice", "120 ms", "swap"):
        assert told in out
    assert "endorsement key ✓  PCRs ✓  NV ✓" in out


def test_all_of_a_receipt_is_given_to_scripts(folder: Path, capsys: Captured) -> None:
    assert answer(["receipt", "show", str(folder / "receipt.json"), "--json"]) == 0
    (document,) = documents(capsys.readouterr().out)
    assert document["verified"] is None
    assert document["receipt"]["timings"]["downtime_ms"] == 120
    assert document["request"]["operator"] == "alice"
    assert document["accept"]["carried"]["vtpm"]["ek_name"] == receipts.VTPM.ek_name


@pytest.mark.parametrize("content", [b"", b"garbage", b"{}", b"\xff", b"[" * 5000, b"\0" * 100])
def test_what_is_no_receipt_cannot_be_shown_and_does_not_hold(
    folder: Path, content: bytes, capsys: Captured
) -> None:
    file = folder / "other.json"
    file.write_bytes(content)
    assert answer(["receipt", "show", str(file), "--json"]) == 2
    captured = capsys.readouterr()
    assert documents(captured.out)[-1]["error"]["kind"] == "not-a-receipt"
    assert str(file) in captured.err
    assert "korora receipt list" in captured.err
    assert answer(["receipt", "verify", str(file), "--json"]) == 5
    assert documents(capsys.readouterr().out)[-1]["verified"] is False


@pytest.mark.parametrize("verb", ["show", "verify"])
def test_a_receipt_that_is_not_there_is_usage(verb: str, capsys: Captured) -> None:
    assert answer(["receipt", verb, "/nowhere/receipt.json"]) == 2
    assert "/nowhere/receipt.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("authority.pem", b"no pem", "holds no certificate"),
        ("authority.pem", None, "there is no such file"),
        ("reference.toml", b"version = 7\nstate = []", "version 7"),
        ("authorization.toml", b"[operators.alice]\nkey = 'short'", "is not 32 bytes"),
    ],
)
def test_trust_anchors_that_cannot_be_used_are_usage_and_name_the_file(
    folder: Path, name: str, content: bytes | None, told: str, capsys: Captured
) -> None:
    path = folder / name
    path.unlink() if content is None else path.write_bytes(content)
    assert answer(["receipt", "verify", str(folder / "receipt.json")]) == 2
    err = capsys.readouterr().err
    assert str(path) in err
    assert told in err


@pytest.mark.parametrize("key", ["authority", "manufacturers", "reference_values", "authorization"])
def test_a_missing_trust_anchor_is_named(folder: Path, key: str, capsys: Captured) -> None:
    kept = [line for line in CONFIGURATION.splitlines() if not line.startswith(f"{key} =")]
    (folder / "korora.toml").write_text("\n".join(kept))
    assert answer(["receipt", "verify", str(folder / "receipt.json")]) == 2
    assert f"add {key} to [site]" in capsys.readouterr().err


# -- logs ----------------------------------------------------------------------------------------------------


@pytest.fixture
def north(folder: Path) -> Iterator[FakeDaemon]:
    with serving(FakeDaemon("north", folder / "north.sock")) as daemon:
        daemon.routes["POST", "/v1/attestation"] = lambda _: Answer(_attestation())
        yield daemon


def _attestation() -> dict[str, Any]:
    import base64

    certificate = receipts.NORTH.certificate.public_bytes(Encoding.DER)
    empty = dict.fromkeys(
        ("ek_certificate", "ek_public", "ak_public", "attest", "signature", "event_log"), ""
    )
    return {**empty, "host": "north", "pcrs": {}, "certificate": base64.b64encode(certificate).decode()}


def keeps(
    daemon: FakeDaemon, leaves: list[bytes], signed: list[bytes] | None = None, name: str = "north"
) -> None:
    """Let the daemon show these leaves, under a head over `signed` (the same, unless given)."""
    import base64

    node = merkle.nodes_of(signed or leaves)
    size = len(signed or leaves)
    head = log.signed_head(name, size, node, at=receipts.AT, key=receipts.key_of(receipts.NORTH))
    shown = {
        "host": "north",
        "size": len(leaves),
        "root": "sha256:" + merkle.root_of(leaves).hex(),
        "tree_head": head.decode(),
        "leaves": [base64.b64encode(leaf).decode() for leaf in leaves],
    }
    daemon.routes["GET", "/v1/log"] = Answer(shown)


def test_a_log_that_grows_is_verified_again_and_again(north: FakeDaemon, capsys: Captured) -> None:
    for size in (0, 1, 3, 3, 7):
        keeps(north, LEAVES[:size])
        assert answer(["log", "verify", "--json"]) == 0, size
    first, *_, last = documents(capsys.readouterr().out)
    assert [check["ok"] for check in first["checks"]] == [True, True, None]
    assert last["checks"][-1] == {
        "name": "history", "ok": True, "detail": "it begins with the 3 entries that were seen before",
    }  # fmt: skip


@pytest.mark.parametrize("later", [LEAVES[1:], LEAVES[:2], LEAVES[::-1], []])
def test_a_log_that_was_rewritten_is_found_out(
    north: FakeDaemon, later: list[bytes], capsys: Captured
) -> None:
    keeps(north, LEAVES[:4])
    assert answer(["log", "verify"]) == 0
    keeps(north, later)
    for _ in range(2):  # the false head is not remembered
        assert answer(["log", "verify", "--json"]) == 5
    document = documents(capsys.readouterr().out.splitlines()[-1])[0]
    assert document["checks"][-1]["name"] == "history"
    assert document["checks"][-1]["ok"] is False


@pytest.mark.parametrize(("kept", "code"), [(LEAVES, 6), (LEAVES[1:], 5)], ids=["whole", "rewritten"])
def test_a_silent_host_keeps_no_other_log_from_being_verified(
    folder: Path, north: FakeDaemon, kept: list[bytes], code: int, capsys: Captured
) -> None:
    keeps(north, LEAVES)
    assert answer(["log", "verify", "north"]) == 0
    keeps(north, kept)
    silent = f'[hosts.away]\naddress = "10.0.0.9:7700"\napi = "{folder}/away.sock"\n\n'
    before = (folder / "korora.toml").read_text()
    (folder / "korora.toml").write_text(before.replace("[hosts.north]", f"{silent}[hosts.north]"))
    capsys.readouterr()
    assert answer(["log", "verify", "--json"]) == code
    away, there = documents(capsys.readouterr().out)
    assert (away["host"], away["verified"], bool(away["error"]["remedy"])) == ("away", None, True)
    assert (there["host"], there["verified"]) == ("north", code == 6)
    assert answer(["log", "verify"]) == code


def test_entries_that_do_not_give_the_signed_root_are_found_out(north: FakeDaemon, capsys: Captured) -> None:
    keeps(north, LEAVES[:3], signed=LEAVES[:4])
    assert answer(["log", "verify"]) == 5
    assert "✗ entries" in capsys.readouterr().out


def test_a_head_of_another_log_is_found_out(north: FakeDaemon, capsys: Captured) -> None:
    keeps(north, LEAVES, name="south")
    assert answer(["log", "verify"]) == 5
    assert "✗ tree head" in capsys.readouterr().out


def test_a_host_without_a_certificate_cannot_vouch_for_its_log(north: FakeDaemon, capsys: Captured) -> None:
    keeps(north, LEAVES)
    north.routes["POST", "/v1/attestation"] = lambda _: Answer({**_attestation(), "certificate": None})
    assert answer(["log", "verify"]) == 5
    assert "not enrolled" in capsys.readouterr().out


def test_a_memory_that_was_damaged_is_not_taken_for_none(
    north: FakeDaemon, folder: Path, capsys: Captured
) -> None:
    keeps(north, LEAVES)
    assert answer(["log", "verify"]) == 0
    (kept,) = (folder / "state").rglob("north.json")
    kept.write_text("garbage")
    assert answer(["log", "verify"]) == 5
    assert str(kept) in capsys.readouterr().err


def test_a_log_is_shown_with_entries_that_nobody_knows(north: FakeDaemon, capsys: Captured) -> None:
    keeps(north, [*LEAVES, b"\x1b[2Jstrange"])
    assert answer(["log", "show"]) == 0
    out = capsys.readouterr().out
    assert "web-6" in out
    assert b"\x1b[2Jstrange".hex() in out
    assert answer(["log", "show", "--json"]) == 0
    (document,) = documents(capsys.readouterr().out)
    assert document["entries"][0]["vm"] == "web-0"


def test_the_receipts_of_all_hosts_are_listed(north: FakeDaemon, capsys: Captured) -> None:
    entry = {"session": "5e55", "path": "/n/5e55.json", "vm": "web", "outcome": "completed"}
    north.routes["GET", "/v1/receipts"] = Answer([entry])
    assert answer(["receipt", "list", "--json"]) == 0
    assert documents(capsys.readouterr().out) == [[{"host": "north", **entry}]]
