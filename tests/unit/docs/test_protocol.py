"""docs/PROTOCOL.md says what the code does: vectors, offers, domains, deadlines, limits, prechecks, kinds."""

from __future__ import annotations

import inspect
import re
from dataclasses import replace
from pathlib import Path

import pytest

from korora.adapters.channel import listener, tls
from korora.migration.crossing import outbound
from korora.migration.greeting import conversation, gate
from korora.migration.recovery import settlement as recovery
from korora.migration.setting import Setting
from korora.policy.precheck import PRECHECKS
from korora.protocol import handshake, messages
from korora.protocol.frames import PREAMBLE_MAGIC
from korora.supervision import signed

TEXT = (Path(__file__).parents[3] / "docs/PROTOCOL.md").read_text()


def hello(role: str, letter: bytes) -> messages.Hello:
    return messages.Hello(1, role, "ab"[role == "destination"], letter * 32, handshake.OFFER, b"", b"", b"")


def vector(name: str) -> str:
    found = re.search(rf"^{re.escape(name)}\s+([0-9a-f]{{64}})$", TEXT, re.MULTILINE)
    assert found is not None, name
    return found[1]


def test_the_vectors_of_the_session_come_out() -> None:
    source_hello, destination_hello = hello("source", b"s"), hello("destination", b"d")
    greeted = handshake.greeting(
        source_hello,
        messages.encode(source_hello),
        destination_hello,
        messages.encode(destination_hello),
    )
    fixed = replace(greeted, source_bytes=b"HELLO-S", destination_bytes=b"HELLO-D")
    binding = bytes(range(32))
    assert vector("greeting") == fixed.digest.hex()
    for role in ("source", "destination"):
        assert vector(f"qualifying data, {role}") == handshake.qualifying_data(role, fixed, binding).hex()
    assert vector("wrap nonce (see 4)") == handshake.wrap_nonce(fixed).hex()
    assert handshake.local_question(bytes(range(32))).hex() in TEXT


def test_the_vector_of_a_message_comes_out() -> None:
    head = re.search(r"^([0-9a-f]+) ‖ \"ab\" × 64", TEXT, re.MULTILINE)
    assert head is not None
    assert bytes.fromhex(head[1]) + b"ab" * 64 == messages.encode(messages.Query("ab" * 64))


@pytest.mark.parametrize("domain", ["QUOTE_DOMAIN", "WRAP_DOMAIN", "LOCAL_DOMAIN"])
def test_every_domain_is_written_out(domain: str) -> None:
    value: bytes = getattr(handshake, domain)
    assert value.endswith(b"\0")
    assert f'"{value[:-1].decode()}" ‖ 00' in TEXT
    assert f'"{handshake.BINDING_LABEL}"' in TEXT


def test_what_is_offered_is_written_out() -> None:
    offer = handshake.OFFER
    sentence = TEXT.split("Offered today:")[1].split("\n\n")[0]
    assert all(choice in sentence for choice in (*offer.aeads, *offer.digests, *offer.key_wraps))
    assert f"chunks of {', '.join(str(size // 1024) for size in offer.chunk_bytes)} KiB" in sentence
    assert f"{offer.max_streams} streams" in sentence


def test_deadlines_and_limits_are_those_in_force() -> None:
    pace = recovery.Pace()
    default = inspect.signature(tls.connect).parameters["deadline_s"].default
    for said in (
        f"{conversation.DEADLINE_S:.0f} s for an answer that needs no work",
        f"{conversation.WORK_DEADLINE_S:.0f} s for one that waits",
        f"{conversation.VISIT_DEADLINE_S:.0f} s for EVIDENCE",
        f"within {outbound.SWITCHOVER_DEADLINE_S:.0f} s",
        f"at most {signed.CLOCK_SKEW_S} s ahead",
        f"at most {gate.LONGEST_DAYS * 24} h",
        f"at most {messages.MAX_MESSAGE_BYTES >> 20} MiB",
        f"{listener._PATIENCE_S:.0f} s to send its first byte, then {default:.0f} s for TLS",
        f"At most {listener._STRANGERS} visitors",
        f"Every {pace.every_s:.0f} s",
        f"After {pace.silent_s:.0f} s of",
        f"waits {pace.soon_s:.0f} s",
    ):
        assert said in TEXT.replace("\n", " "), said
    assert f"0x{listener.TLS_HANDSHAKE_RECORD:02x}" in TEXT
    assert f"0x{PREAMBLE_MAGIC[0]:02x}" in TEXT
    architecture = (Path(__file__).parents[3] / "docs/ARCHITECTURE.md").read_text()
    stall = Setting.__dataclass_fields__["stall_deadline_s"].default
    assert f"one stall deadline ({stall:.0f} s)" in architecture


def test_no_precheck_is_left_out() -> None:
    said = TEXT.split("every precheck that failed")[1].split("One finding")[0].lower()
    words = {"cpu": "cpu model", "tpm": ", tpm,", "files": "firmware files", "name": "name,", "vtpm": "swtpm"}
    assert [check for check in PRECHECKS if words.get(check, check) not in said] == []
