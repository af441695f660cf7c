"""QEMU's arguments: closed, explicit about formats, and the same hardware on both sides of a move."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from korora.adapters.hypervisor.command_line import (
    Launch,
    arguments,
    block_device,
    firmware_files,
    socket_path,
)
from korora.errors import UsageError
from korora.model.identity import VmName
from korora.model.vm import Backing, Boot, Disk, Firmware, Nic, VmDefinition

HERE = Path("/state/vms/web")
VM = VmDefinition(
    name=VmName("web"),
    uuid="0b7c9e1e-6a49-4b5a-9b0b-1b8f6d9c2e11",
    memory_bytes=512 * 2**20,
    machine="pc-q35-7.2",
    accelerator="tcg",
    disks=(Disk("/d,readonly=off", "raw", "root"), Disk("/q", "qcow2", "data")),
    nics=(Nic("br0", "52:54:00:00:00:01"), Nic("br1", "52:54:00:00:00:02")),
)
LAUNCH = Launch(HERE, HERE / "vtpm.sock", taps=(7, 9))


def values(args: list[str], option: str) -> list[str]:
    return [args[at + 1] for at, word in enumerate(args) if word == option]


def test_the_guest_is_sandboxed_and_starts_paused_without_defaults() -> None:
    args = arguments(VM, LAUNCH)
    assert {"-S", "-nodefaults", "-no-user-config"} <= set(args)
    [sandbox] = values(args, "-sandbox")
    assert sandbox == "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


def test_both_sides_of_a_move_have_the_same_devices_in_the_same_order() -> None:
    fresh = arguments(VM, LAUNCH)
    arriving = arguments(VM, replace(LAUNCH, directory=Path("/elsewhere"), taps=(20, 21), incoming=True))
    assert values(fresh, "-device") == values(arriving, "-device")
    assert values(fresh, "-machine") == values(arriving, "-machine")
    assert arriving[-2:] == ["-incoming", "defer"]
    assert "-incoming" not in fresh


def test_a_boot_starts_a_new_event_log_and_an_arrival_goes_on_with_it() -> None:
    for incoming, append in ((False, "append=off"), (True, "append=on")):
        [log] = [
            v
            for v in values(arguments(VM, replace(LAUNCH, incoming=incoming)), "-chardev")
            if "eventlog" in v
        ]
        assert append in log


def test_every_disk_says_its_format_and_a_qcow2_opens_no_other_file() -> None:
    raw, qcow2 = map(json.loads, values(arguments(VM, LAUNCH), "-blockdev"))
    assert (raw["driver"], raw["file"]["filename"]) == ("raw", "/d,readonly=off")
    assert (qcow2["driver"], qcow2["backing"]) == ("qcow2", None)
    assert raw["file"]["locking"] == "on"


def test_what_lies_beneath_a_disk_is_said_in_full_and_only_read() -> None:
    beneath = (Backing("/middle", "qcow2"), Backing("/base", "raw"))
    graph = block_device(Disk("/top", "qcow2", "root", beneath))
    middle = cast("dict[str, Any]", graph["backing"])
    assert (middle["driver"], middle["file"]["filename"], middle["read-only"]) == ("qcow2", "/middle", True)
    base = middle["backing"]
    assert (base["driver"], base["file"]["filename"], base["read-only"]) == ("raw", "/base", True)
    assert "backing" not in base
    assert graph["node-name"] == "root-node"


def test_cards_get_their_taps_in_order() -> None:
    nets = values(arguments(VM, LAUNCH), "-netdev")
    assert nets == ["tap,id=net0,fd=7,vhost=off", "tap,id=net1,fd=9,vhost=off"]


def test_too_few_taps_are_a_bug_and_not_a_guest_with_fewer_cards() -> None:
    with pytest.raises(ValueError, match="zip"):
        arguments(VM, replace(LAUNCH, taps=(7,)))


def test_a_vtpm_without_its_socket_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        arguments(VM, replace(LAUNCH, vtpm_socket=None))
    assert caught.value.kind == "no-vtpm"
    assert "-tpmdev" not in arguments(replace(VM, vtpm=False), replace(LAUNCH, vtpm_socket=None))


def test_secure_boot_guards_the_variable_store_by_smm() -> None:
    uefi = replace(VM, firmware=Firmware.UEFI, secure_boot=True)
    args = arguments(replace(uefi, accelerator="kvm"), LAUNCH)
    assert values(args, "-machine") == ["pc-q35-7.2,memory-backend=mem,smm=on"]
    assert "driver=cfi.pflash01,property=secure,value=on" in values(args, "-global")
    code, variables = values(args, "-drive")
    assert "readonly=on" in code
    assert variables.endswith("file=variables.fd")


def test_emulated_ram_is_never_a_whole_number_of_64_pages() -> None:
    for accelerator, short in (("tcg", 8192), ("kvm", 0)):
        args = arguments(replace(VM, accelerator=accelerator), LAUNCH)
        size = VM.memory_bytes - short
        assert f"memory-backend-memfd,id=mem,size={size},share=on" in values(args, "-object")
        assert values(args, "-m") == [f"{size // 1024}K"]
        assert (size % (64 * 4096) == 0) is (accelerator == "kvm")


def test_an_emulated_uefi_guest_has_whole_mib_below_4_gib() -> None:
    uefi = replace(VM, firmware=Firmware.UEFI, accelerator="tcg")
    (machine,) = values(arguments(uefi, LAUNCH), "-machine")
    assert machine.endswith(f",max-ram-below-4g={511 * 2**20}")
    (machine,) = values(arguments(replace(uefi, memory_bytes=4 * 2**30), LAUNCH), "-machine")
    assert "max-ram" not in machine


def test_a_comma_in_a_firmware_path_stays_in_the_path() -> None:
    uefi = replace(VM, firmware=Firmware.UEFI, firmware_code="/fw,if=none/code.fd")
    assert any(v.endswith("file=/fw,,if=none/code.fd") for v in values(arguments(uefi, LAUNCH), "-drive"))


def test_a_bios_guest_has_no_firmware_files() -> None:
    assert firmware_files(VM) is None
    assert "-drive" not in arguments(VM, LAUNCH)


def test_direct_kernel_boot_passes_the_command_line_as_one_argument() -> None:
    booted = replace(VM, boot=Boot("/k", "/i", "console=ttyS0 init=/bin/sh -- -kernel /evil"))
    args = arguments(booted, LAUNCH)
    assert values(args, "-append") == ["console=ttyS0 init=/bin/sh -- -kernel /evil"]
    assert args.count("-kernel") == 1


def test_a_long_socket_path_is_named_from_within_the_place_or_refused() -> None:
    deep = Path("/" + "d" * 120)
    assert socket_path(deep / "vtpm" / "s", deep) == "vtpm/s"
    assert socket_path(Path("/run/s"), deep) == "/run/s"
    with pytest.raises(UsageError) as caught:
        socket_path(deep / "s", Path("/run"))
    assert caught.value.kind == "socket-path"
    with pytest.raises(UsageError):
        socket_path(deep / "s", None)
