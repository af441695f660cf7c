"""The synthetic boot: its log and its PCRs say the same, by an independent reading of the log."""

import hashlib
import struct
from dataclasses import replace

from korora.lab.measured_boot import HostSoftware, measured_boot
from korora.policy.event_log import EventType, parse
from korora.policy.measured_boot import contradictions, secure_boot
from korora.policy.reference_values import compared


def replayed(log: bytes) -> dict[int, str]:
    """A second, separate reader of the format."""
    pcr, kind, zero, size = struct.unpack_from("<II20sI", log)
    assert (pcr, kind, zero) == (0, EventType.EV_NO_ACTION, bytes(20))
    body = log[32 : 32 + size]
    assert body.startswith(b"Spec ID Event03\0")
    assert struct.unpack_from("<IHH", body, 24) == (1, 0x000B, 32)
    at, values = 32 + size, dict[int, bytes]()
    while at < len(log):
        pcr, _, count, algorithm = struct.unpack_from("<IIIH", log, at)
        assert (count, algorithm) == (1, 0x000B)
        digest = log[at + 14 : at + 46]
        (length,) = struct.unpack_from("<I", log, at + 46)
        at += 50 + length
        values[pcr] = hashlib.sha256(values.get(pcr, bytes(32)) + digest).digest()
    assert at == len(log)
    return {pcr: value.hex() for pcr, value in sorted(values.items())}


def test_the_log_replays_to_the_pcrs() -> None:
    boot = measured_boot(HostSoftware())
    assert replayed(boot.log()) == boot.pcrs()


def test_every_firmware_pcr_is_measured() -> None:
    assert set(range(8)) <= set(measured_boot(HostSoftware()).pcrs())


def test_the_same_software_measures_the_same() -> None:
    assert measured_boot(HostSoftware()) == measured_boot(HostSoftware())


def test_other_software_changes_the_pcrs_that_measure_it_and_no_other() -> None:
    usual = HostSoftware()
    changes = {
        frozenset({4, 8, 9}): replace(usual, kernel="vmlinuz of somebody else"),
        frozenset({7}): replace(usual, secure_boot=False),
        frozenset({0, 2}): replace(usual, firmware="Korora Lab Firmware 0.9"),
        frozenset({8}): replace(usual, command_line="init=/bin/sh"),
    }
    before = measured_boot(usual).pcrs()
    for pcrs, software in changes.items():
        after = measured_boot(software).pcrs()
        assert {pcr for pcr in before if before[pcr] != after[pcr]} == pcrs


def test_the_log_does_not_contradict_itself_and_says_secure_boot_is_on() -> None:
    log = parse(measured_boot(HostSoftware()).log())
    assert contradictions(log) == ()
    assert secure_boot(log) is True


def test_the_reference_values_trust_this_boot_and_no_other() -> None:
    boot, other = measured_boot(HostSoftware()), measured_boot(HostSoftware(firmware="another"))
    assert compared(boot.pcrs(), parse(boot.log()), boot.reference()) == "lab host"
    refused = compared(other.pcrs(), parse(other.log()), boot.reference())
    assert {mismatch.kind for mismatch in refused if not isinstance(mismatch, str)} == {"pcr-mismatch"}
