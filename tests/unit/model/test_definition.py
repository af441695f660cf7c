"""The VM definition: what is accepted, what is refused and by which name; one canonical form."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from korora.errors import UsageError
from korora.model.definition import definition_digest, definition_text, parse_definition
from korora.model.identity import VmName
from korora.model.vm import Backing, Boot, Disk, Firmware, Nic, VmDefinition

SMALL = 'name = "web-1"\nmemory = "512M"\n'
OVER = SMALL + '[[disks]]\npath = "/a"\nformat = "qcow2"\n[[disks.backing]]\npath = "/b"\n'
BENEATH = "".join(f'[[disks.backing]]\npath = "/b{number}"\nformat = "qcow2"\n' for number in range(17))
FULL = """
name = "web-1"
uuid = "0B7C9E1E-6A49-4B5A-9B0B-1B8F6D9C2E11"
memory = "2G"
cpus = 2
cpu = "Skylake-Server,-hle,+aes"
machine = "pc-q35-7.2"
accelerator = "tcg"
[firmware]
kind = "uefi"
secure_boot = true
code = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd"
variables = "/usr/share/OVMF/OVMF_VARS_4M.ms.fd"
[boot]
kernel = "/srv/vmlinuz"
initrd = "/srv/initrd"
command_line = 'console=ttyS0 a="b"'
[vtpm]
enabled = false
[[disks]]
name = "root"
path = "/srv/disk,with comma.raw"
format = "raw"
[[disks]]
path = "/srv/data.qcow2"
format = "qcow2"
[[networks]]
bridge = "br0"
mac = "52:54:00:AA:bb:cc"
"""


def test_a_small_definition_gets_the_documented_defaults() -> None:
    found = parse_definition(SMALL)
    assert found.memory_bytes == 512 * 2**20
    assert (found.cpus, found.cpu_model, found.machine, found.accelerator) == (1, "qemu64", "q35", "auto")
    assert found.firmware is Firmware.BIOS
    assert found.vtpm
    assert not found.adopted


def test_every_key_is_read() -> None:
    found = parse_definition(FULL)
    assert found.uuid == "0b7c9e1e-6a49-4b5a-9b0b-1b8f6d9c2e11"
    assert found.firmware is Firmware.UEFI
    assert found.secure_boot
    assert found.boot == Boot("/srv/vmlinuz", "/srv/initrd", 'console=ttyS0 a="b"')
    assert found.disks == (
        Disk("/srv/disk,with comma.raw", "raw", "root"),
        Disk("/srv/data.qcow2", "qcow2", "disk1"),
    )
    assert found.nics == (Nic("br0", "52:54:00:aa:bb:cc"),)
    assert not found.vtpm


def test_what_lies_beneath_a_disk_is_read_from_the_nearest_to_the_last() -> None:
    beneath = 'format = "qcow2"\n[[disks.backing]]\npath = "/c"\nformat = "raw"'
    [disk] = parse_definition(OVER + beneath).disks
    assert disk == Disk("/a", "qcow2", "disk0", (Backing("/b", "qcow2"), Backing("/c", "raw")))


def test_a_uuid_that_is_not_written_follows_from_the_name() -> None:
    assert parse_definition(SMALL).uuid == parse_definition(SMALL).uuid
    assert parse_definition(SMALL).uuid != parse_definition(SMALL.replace("web-1", "web-2")).uuid


def test_the_digest_does_not_depend_on_how_the_definition_was_written() -> None:
    rewritten = '# a comment\nmemory = 536870912\nname = "web-1"\ncpus = 1\n'
    assert definition_digest(parse_definition(SMALL)) == definition_digest(parse_definition(rewritten))


def test_the_digest_changes_with_each_setting() -> None:
    texts = [SMALL, SMALL + "cpus = 2", SMALL + 'cpu = "max"', SMALL + "[vtpm]\nenabled = false", FULL]
    assert len({definition_digest(parse_definition(text)) for text in texts}) == len(texts)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("name = \n", "line 1"),
        ('name = "a"\nmemory = "1G"\nmemory = "2G"\n', "line 3"),
        ("", "`name` is missing"),
        ('name = "a"', "`memory` is missing"),
        ('name = "../etc"\nmemory = "1G"', "'../etc' is not a usable name"),
        ("name = 7", "`name` is a number"),
        (SMALL + "colour = 1", "'colour'"),
        (SMALL + "[firmware]\nsecureboot = true", "'firmware.secureboot'"),
        (SMALL + '[[disks]]\npath = "/a"\nformat = "vmdk"', "`disks[0].format`"),
        (SMALL + '[[disks]]\npath = "/a"\n[[disks]]\npath = "b"', "`disks[1].path`"),
        (SMALL + '[[disks]]\npath = "/a"\ncache = "none"', "'disks[0].cache'"),
        (SMALL + '[[disks]]\npath = "/a/../../etc/shadow"', "`disks[0].path`"),
        (SMALL + '[[disks]]\npath = "/a\\u0000b"', "`disks[0].path`"),
        (
            SMALL + '[[disks]]\npath = "/a"\nname = "x"\n[[disks]]\npath = "/b"\nname = "x"',
            "`disks` name one",
        ),
        (SMALL + '[[disks]]\npath = "/a"\n[[disks]]\npath = "/a"', "one path twice"),
        (OVER, "`disks[0].backing[0].format` is missing"),
        (OVER.replace('"qcow2"', '"raw"') + 'format = "raw"', "`disks[0].backing` lies beneath a raw image"),
        (OVER + 'format = "raw"\n[[disks.backing]]\npath = "/c"\nformat = "raw"', "beneath a raw image"),
        (OVER + 'format = "qcow2"\n[[disks.backing]]\npath = "/b"\nformat = "raw"', "one path twice"),
        (OVER + 'format = "raw"\n[[disks]]\npath = "/b"', "`disks` write to an image that lies beneath"),
        (OVER + 'format = "qcow2"\n' + BENEATH, "`disks[0].backing` has 18 entries"),
        (SMALL + "disks = 3", "`disks` is a number"),
        (SMALL + "disks = [3]", "`disks[0]` is a number"),
        (SMALL + "boot = true", "`boot` is true or false"),
        (SMALL + '[[networks]]\nbridge = "br0"', "`networks[0].mac` is missing"),
        (SMALL + '[[networks]]\nbridge = "br0"\nmac = "53:54:00:00:00:01"', "`networks[0].mac`"),
        (SMALL + '[[networks]]\nbridge = "a-name-too-long-for-linux"\nmac = "52:54:00:00:00:01"', "bridge"),
        (SMALL + "cpus = 0", "`cpus`"),
        (SMALL + "cpus = true", "`cpus`"),
        (SMALL + "cpus = 1.5", "`cpus`"),
        (SMALL + 'cpu = "qemu64,migratable=no -device x"', "`cpu`"),
        (SMALL + 'machine = "q35,smm=on"', "`machine`"),
        (SMALL + 'accelerator = "hvf"', "`accelerator`"),
        (SMALL + 'uuid = "7"', "`uuid`"),
        ('name = "a"\nmemory = "1X"', "`memory`"),
        ('name = "a"\nmemory = "999999999T"', "`memory`"),
        ('name = "a"\nmemory = 4096', "`memory`"),
        ('name = "a"\nmemory = -5', "`memory`"),
        ('name = "a"\nmemory = true', "`memory`"),
        (SMALL + "[firmware]\nsecure_boot = true", "firmware.secure_boot"),
        (SMALL + '[firmware]\ncode = "/x"', "firmware.code"),
        (SMALL + '[boot]\ninitrd = "/x"', "boot.kernel"),
        (SMALL + '[boot]\nkernel = "/k"\ninitrd = "/x,/etc/shadow"', "boot.initrd"),
        (SMALL + '[boot]\nkernel = "/k"\ninitrd = "/x /y"', "boot.initrd"),
        (SMALL + "[boot]\ncommand_line = '" + "a" * 3000 + "'\nkernel='/k'", "boot.command_line"),
        ("x" * 100_000, "longer than"),
        ("a = " + "[" * 5000, "not valid TOML"),
    ],
)
def test_a_bad_definition_is_refused_by_the_name_of_what_is_wrong(text: str, named: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_definition(text, "web.toml")
    assert named in caught.value.message
    assert "web.toml" in caught.value.message
    assert caught.value.remedy


_paths = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=30).map(lambda t: "/" + t)
_disks = st.builds(
    lambda name, form, depth, last: Disk(
        f"/disk {name}", form, name, (*_middle(name, depth), *last) if form == "qcow2" else ()
    ),
    st.from_regex(r"[a-z][a-z0-9_-]{0,30}", fullmatch=True),
    st.sampled_from(["raw", "qcow2"]),
    st.integers(0, 3),
    st.sampled_from([(), (Backing("/base", "raw"),)]),
)


def _middle(name: str, depth: int) -> list[Backing]:
    return [Backing(f"/{number} beneath {name}", "qcow2") for number in range(depth)]


_definitions = st.builds(
    VmDefinition,
    name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", fullmatch=True).map(VmName),
    uuid=st.uuids().map(str),
    memory_bytes=st.integers(16, 2**24).map(lambda mib: mib * 2**20),
    cpus=st.integers(1, 255),
    cpu_model=st.sampled_from(["qemu64", "max", "EPYC,-svm"]),
    boot=st.builds(
        Boot,
        kernel=_paths.filter(lambda p: ".." not in p),
        command_line=st.text(st.characters(exclude_categories=["C"]), max_size=200),
    ),
    vtpm=st.booleans(),
    disks=st.lists(_disks, max_size=3, unique_by=lambda disk: disk.name).map(tuple),
    adopted=st.booleans(),
)


@given(_definitions)
def test_the_canonical_text_reads_back_as_the_same_definition(definition: VmDefinition) -> None:
    assert parse_definition(definition_text(definition)) == definition


def test_why_an_adopted_vm_does_not_move_is_kept_and_said_of_no_other() -> None:
    stays = replace(parse_definition(SMALL), adopted=True, immovable='-virtfs "x" (not portable)')
    assert parse_definition(definition_text(stays)) == stays
    for wrong in (replace(stays, adopted=False), replace(stays, hardware=("-usb",))):
        with pytest.raises(UsageError, match="immovable"):
            parse_definition(definition_text(wrong))


@given(st.text(max_size=300))
def test_no_text_raises_anything_but_a_usage_error(text: str) -> None:
    with contextlib.suppress(UsageError):
        parse_definition(text)


def test_a_key_of_endless_parts_is_refused_at_once() -> None:
    """tomllib takes the square of their number in time, and 64 KiB have 32,000 of them."""
    for text in (
        "a" + ".a" * 30_000 + " = 1",
        "[a" + ".a" * 30_000 + "]",
        "x = {a" + ".a" * 30_000 + " = 1}",
    ):
        with pytest.raises(UsageError) as refused:
            parse_definition(text)
        assert refused.value.kind == "bad-definition"
        assert "parts" in refused.value.message
