"""Prechecks: every failure is found, all at once, and names host and remedy (S1)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from korora.model.facts import DestinationFacts, SourceFacts
from korora.model.identity import HostName, VmName
from korora.model.storage import DiskOrder
from korora.model.vm import Backing, Boot, Disk, Firmware, HypervisorFacts, Nic, VmDefinition
from korora.policy.precheck import precheck, precheck_disks

SOURCE, DESTINATION = HostName("a"), HostName("b")
GIB = 2**30

QEMU = HypervisorFacts(
    name="qemu",
    version="7.2.22",
    machines=("pc-q35-7.2", "q35"),
    cpu_models=("qemu64",),
    accelerator="kvm",
    accelerator_note="ran under KVM",
    capabilities=("events", "return-path", "pause-before-switchover"),
    swtpm_version="0.7.1",
    firmware=(),
)
VM = VmDefinition(
    name=VmName("web-1"),
    uuid="0b7c9e1e-6a49-4b5a-9b0b-1b8f6d9c2e11",
    memory_bytes=GIB,
    machine="pc-q35-7.2",
    accelerator="kvm",
    firmware=Firmware.UEFI,
    firmware_code="/fw/code.fd",
    boot=Boot("/k", "/i"),
    disks=(Disk("/d"),),
    nics=(Nic("br0", "52:54:00:00:00:01"),),
)
HERE = SourceFacts(
    host=SOURCE,
    hypervisor=QEMU,
    cpu_features={"sse2": True, "avx": False},
    files={"/fw/code.fd": "sha256:1", "/k": "sha256:2", "/i": "sha256:3"},
    disks={"/d": 100},
)
THERE = DestinationFacts(
    host=DESTINATION,
    hypervisor=QEMU,
    memory_available_bytes=2 * GIB,
    tpm_present=True,
    cpu_features={"sse2": True, "avx": True},
    files=dict(HERE.files),
    disks=dict(HERE.disks),
    bridges=("br0",),
    vms=("other",),
    incoming=1,
    incoming_limit=2,
)


def qemu(**changes: Any) -> HypervisorFacts:
    return replace(QEMU, **changes)


def test_a_fitting_destination_has_no_findings() -> None:
    assert precheck(VM, HERE, THERE) == []


@pytest.mark.parametrize(
    ("check", "changed"),
    [
        ("hypervisor", {"hypervisor": qemu(name="xen")}),
        ("hypervisor-version", {"hypervisor": qemu(version="6.2.0")}),
        ("machine-type", {"hypervisor": qemu(machines=("pc-q35-6.2",))}),
        ("accelerator", {"hypervisor": qemu(accelerator="tcg", accelerator_note="it hangs")}),
        ("cpu-model", {"hypervisor": qemu(cpu_models=("EPYC",))}),
        ("cpu-model", {"cpu_problem": "no guest can be made here", "cpu_features": {}}),
        ("cpu-features", {"cpu_features": {"sse2": False}}),
        ("cpu-features", {"cpu_features": {}}),
        ("memory", {"memory_available_bytes": GIB}),
        ("migration-capabilities", {"hypervisor": qemu(capabilities=("events",))}),
        ("swtpm", {"hypervisor": qemu(swtpm_version="")}),
        ("swtpm-version", {"hypervisor": qemu(swtpm_version="0.6.3")}),
        ("tpm", {"tpm_present": False}),
        ("firmware", {"files": {"/k": "sha256:2", "/i": "sha256:3"}}),
        ("firmware", {"files": HERE.files | {"/fw/code.fd": "sha256:9"}}),
        ("boot-file", {"files": HERE.files | {"/i": "sha256:9"}}),
        ("disk", {"disks": {}}),
        ("disk", {"disks": {"/d": 200}}),
        ("network", {"bridges": ("br1",)}),
        ("vm-name", {"vms": ("other", "web-1")}),
        ("incoming-limit", {"incoming": 2}),
        ("incoming-limit", {"incoming": 0, "incoming_limit": 0}),
    ],
)
def test_each_unfit_thing_gives_its_own_finding(check: str, changed: dict[str, Any]) -> None:
    found = precheck(VM, HERE, replace(THERE, **changed))
    assert [finding.check for finding in found] == [check]
    assert found[0].host == DESTINATION
    assert found[0].message
    assert found[0].remedy


@pytest.mark.parametrize(
    ("check", "left_out"),
    [("firmware", {"files": {"/k": "sha256:2", "/i": "sha256:3"}}), ("disk", {"disks": {}})],
)
def test_a_file_that_the_source_does_not_show_is_none_of_the_vm(check: str, left_out: dict[str, Any]) -> None:
    """Else a definition from elsewhere could name any file of the destination."""
    [finding] = precheck(VM, replace(HERE, **left_out), THERE)
    assert (finding.check, finding.host) == (check, HERE.host)


def test_a_file_outside_of_the_destinations_storage_is_one_finding_and_nothing_is_told_of_it() -> None:
    there = replace(THERE, outside=("/k", "/d", "/x"), files={}, disks={})
    vm = replace(VM, firmware=Firmware.BIOS, firmware_code=None, boot=Boot("/k"))
    findings = precheck(vm, HERE, there)
    assert [(finding.check, finding.host) for finding in findings] == [("storage", DESTINATION)] * 3
    assert all("storage" in finding.remedy for finding in findings)


def test_an_image_beneath_a_disk_on_shared_storage_must_be_there_and_as_large() -> None:
    over = replace(VM.disks[0], format="qcow2", backing=(Backing("/base", "raw"),))
    vm, here = replace(VM, disks=(over,)), replace(HERE, disks=HERE.disks | {"/base": 7})
    assert precheck(vm, here, replace(THERE, disks=THERE.disks | {"/base": 7})) == []
    for there in ({}, {"/base": 8}):
        [finding] = precheck(vm, here, replace(THERE, disks=THERE.disks | there))
        assert (finding.check, finding.host) == ("disk", DESTINATION)
        assert "/base" in finding.message


def test_an_image_over_which_a_disk_is_to_come_must_be_there() -> None:
    order = DiskOrder("root", "qcow2", 100, 0, keeps_backing=True)
    assert precheck_disks([order], ["/base"], replace(THERE, disks={"/base": 1})) == []
    [finding] = precheck_disks([order], ["/base"], THERE)
    assert (finding.check, finding.host) == ("backing", DESTINATION)
    assert "--keep-backing" in finding.remedy
    # Of what it may not have, `precheck` tells.
    assert precheck_disks([order], ["/base"], replace(THERE, outside=("/base",))) == []


def test_no_finding_tells_the_digest_of_the_destinations_file() -> None:
    there = replace(THERE, files=dict.fromkeys(THERE.files, "sha256:" + "5ec2e7"))
    found = precheck(VM, HERE, there)
    assert found
    assert not any("5ec2e7" in finding.message + finding.remedy for finding in found)


def test_all_failures_are_reported_at_once() -> None:
    bare = qemu(
        version="5.0",
        machines=(),
        cpu_models=(),
        accelerator="tcg",
        capabilities=(),
        swtpm_version="",
    )
    nothing = DestinationFacts(
        DESTINATION, bare, memory_available_bytes=0, tpm_present=False, vms=("web-1",), incoming=1
    )
    checks = {finding.check for finding in precheck(VM, HERE, nothing)}
    assert checks == {
        "hypervisor-version",
        "machine-type",
        "accelerator",
        "cpu-model",
        "memory",
        "migration-capabilities",
        "swtpm",
        "tpm",
        "firmware",
        "boot-file",
        "disk",
        "network",
        "vm-name",
        "incoming-limit",
    }


def test_missing_cpu_features_are_named() -> None:
    here = replace(HERE, cpu_features={"sse2": True, "avx2": True, "aes": True, "off": False})
    [finding] = precheck(VM, here, THERE)
    assert "aes, avx2" in finding.message
    assert "qemu64,-aes,-avx2" in finding.remedy


def test_a_stopped_vm_has_seen_no_cpu_feature_yet() -> None:
    assert precheck(VM, replace(HERE, cpu_features={}), replace(THERE, cpu_features={})) == []


def test_a_vm_under_tcg_may_move_to_a_host_with_kvm_and_back() -> None:
    under_tcg = replace(VM, accelerator="tcg")
    assert precheck(under_tcg, HERE, THERE) == []
    assert precheck(under_tcg, HERE, replace(THERE, hypervisor=qemu(accelerator="tcg"))) == []


def test_a_vm_without_vtpm_needs_no_swtpm() -> None:
    assert precheck(replace(VM, vtpm=False), HERE, replace(THERE, hypervisor=qemu(swtpm_version=""))) == []


def test_a_newer_destination_and_another_point_release_fit() -> None:
    for version in ("7.2.1", "10.0.2"):
        assert precheck(VM, HERE, replace(THERE, hypervisor=qemu(version=version))) == []


def test_the_source_must_be_able_to_send_as_well() -> None:
    [finding] = precheck(VM, replace(HERE, hypervisor=qemu(capabilities=())), THERE)
    assert (finding.check, finding.host) == ("migration-capabilities", SOURCE)


def test_facts_travel_in_a_message_unchanged() -> None:
    for facts in (HERE, THERE):
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(facts), type=type(facts)) == facts


def test_an_adopted_vm_without_hardware_stays_and_the_finding_tells_why() -> None:
    stays = replace(VM, adopted=True, immovable="its disk /d has another file behind it")
    found = precheck(stays, HERE, THERE)[0]
    assert (found.check, found.host) == ("adopted-hardware", HERE.host)
    assert stays.immovable in found.message
