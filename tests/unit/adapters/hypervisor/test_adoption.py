"""From a foreign command line to the same hardware elsewhere: closed, stable, and without the host's ends."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from korora.adapters.hypervisor.adoption.files import files_of, images_of
from korora.adapters.hypervisor.adoption.hardware import portable, ram_name
from korora.adapters.hypervisor.adoption.launch import adopted_arguments
from korora.adapters.hypervisor.adoption.options import parse_options
from korora.adapters.hypervisor.adoption.shapes import DEVICE, GLOBAL, MACHINE
from korora.adapters.hypervisor.command_line import Launch
from korora.errors import RefusedError
from korora.model.definition import definition_text, parse_definition
from korora.model.identity import VmName
from korora.model.vm import VmDefinition

FOREIGN = shlex.split(
    "-name web -machine q35,accel=kvm,smm=on -enable-kvm -cpu EPYC,+avx -m 512 -smp 2 -nographic -daemonize"
    " -kernel /k -append 'console=ttyS0 quiet' -object memory-backend-ram,id=m0,size=512M"
    " -chardev socket,id=c0,path=/run/swtpm.sock -tpmdev emulator,id=t0,chardev=c0 -device tpm-tis,tpmdev=t0"
    " -chardev socket,id=agent,path=/run/agent.sock,server=on -device virtio-serial-pci"
    " -device virtserialport,chardev=agent,name=org.qemu.guest_agent.0"
    " -drive file=/srv/a,,b.img,if=virtio -netdev tap,id=n0,ifname=tap7,script=no"
    " -device virtio-net-pci,netdev=n0"
    " -serial mon:stdio -qmp unix:/run/q.sock,server=on,wait=off -pidfile /run/p --no-reboot"
)
FORMATS = {"/srv/a,b.img": "qcow2"}
VM = VmDefinition(
    name=VmName("web"),
    uuid="0b7c9e1e-6a49-4b5a-9b0b-1b8f6d9c2e11",
    memory_bytes=512 * 2**20,
    machine="pc-q35-7.2",
    accelerator="tcg",
    adopted=True,
    hardware=portable(FOREIGN, FORMATS),
)
HERE = Launch(Path("/vms/web"), Path("/vms/web/vtpm.sock"), taps=(7,), incoming=True)


def test_what_belongs_to_the_host_stays_there() -> None:
    kept = " ".join(portable(FOREIGN, FORMATS))
    for gone in (
        "/run/",
        "tap7",
        "-qmp",
        "-pidfile",
        "-daemonize",
        "accel",
        "-name",
        "memory-backend-ram",
        "stdio",
    ):
        assert gone not in kept
    for stays in ("-cpu EPYC,+avx", "-smp 2", "smm=on", "tpm-tis", "org.qemu.guest_agent.0", "-no-reboot"):
        assert stays in kept


def test_a_drive_without_a_format_gets_the_one_that_qemu_found() -> None:
    assert "file=/srv/a,,b.img,if=virtio,format=qcow2" in portable(FOREIGN, FORMATS)
    with pytest.raises(RefusedError, match="format is not known"):
        portable(FOREIGN)


def test_ordinary_settings_and_random_sources_are_kept() -> None:
    words = shlex.split(
        "-device virtio-net-pci,netdev=n0,mac=52:54:00:00:00:01,addr=0x3"
        " -object rng-random,id=r,filename=/dev/urandom"
        " -global ICH9-LPC.disable_s3=1 -boot order=c,strict=on -smbios type=1,product=KVM/Standard"
        """ -device '{"driver":"virtio-rng-pci","rng":"r","addr":"0x5"}' """
    )
    assert set(words) <= set(portable(words))


@pytest.mark.parametrize("setting", ["num-queues=4", "queue-size=256", "mq=on", "host_mtu=9000"])
def test_the_settings_that_virtual_machine_managers_write_are_kept(setting: str) -> None:
    kind = "virtio-net-pci,netdev=n0" if setting.startswith(("mq", "host")) else "virtio-blk-pci,drive=d0"
    assert f"{kind},{setting}" in portable(["-device", f"{kind},{setting}"])


def test_no_list_of_settings_was_torn_by_a_line_break() -> None:
    assert not [key for key in (*DEVICE, *MACHINE, *GLOBAL) if key.endswith("-") or not key]


def test_every_file_that_the_arguments_open_is_named() -> None:
    words = [*FOREIGN, "-initrd", "/i", "-bios", "/b"]
    node = '{"driver":"qcow2","node-name":"n","file":{"driver":"file","filename":"/srv/c.qcow2"}}'
    kept = portable([*words, "-blockdev", node], FORMATS)
    assert files_of(kept).read == ("/k", "/i", "/b")
    assert files_of(kept).written == ("/srv/a,b.img", "/srv/c.qcow2")


def test_a_file_that_the_vm_cannot_write_is_one_that_it_reads() -> None:
    code = "if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/c.fd"
    leaf = '{"driver":"file","filename":"/srv/cd.iso"}'
    node = f'{{"driver":"raw","node-name":"n","read-only":true,"file":{leaf}}}'
    found = files_of(portable(["-drive", code, "-blockdev", node]))
    assert (found.read, found.written) == (("/usr/share/OVMF/c.fd", "/srv/cd.iso"), ())


def test_screening_twice_changes_nothing() -> None:
    assert portable(VM.hardware) == VM.hardware


def test_the_destinations_command_line_has_its_own_ends() -> None:
    args = adopted_arguments(VM, HERE)
    assert "socket,id=c0,path=vtpm.sock" in args
    assert "null,id=agent" in args
    assert "tap,id=n0,fd=7,vhost=off" in args
    assert "memory-backend-memfd,id=pc.ram,size=536870912,share=on" in args
    assert args.count("-machine") == 1
    assert "pc-q35-7.2,smm=on,memory-backend=pc.ram" in args
    assert "-sandbox" in args
    assert args[-2:] == ["-incoming", "defer"]


def test_the_memory_keeps_the_name_it_has_in_the_stream() -> None:
    assert ram_name(["-m", "1G"]) == "pc.ram"
    named = ["-M", "type=q35,memory-backend=m0", "-object", "memory-backend-file,id=m0,size=1G,mem-path=/x"]
    assert ram_name(portable(named)) == "m0"


@pytest.mark.parametrize(
    "argument",
    [
        "-device vfio-pci,host=01:00.0",
        "-device ivshmem-plain,memdev=m",
        '-device {"driver":"vhost-user-fs-pci"}',
        "-virtfs local,path=/,mount_tag=r",
        "-hda /disk.img",
        "-drive file=relative.img,format=raw",
        "-drive file=/a/../../etc/shadow,format=raw",
        "-drive file=/a,format=raw,backing.file=/etc/shadow",
        "-drive driver=nbd,host=x",
        "-drive if=pflash,format=raw,file=/vars.fd",
        '-blockdev {"driver":"nbd","node-name":"n"}',
        '-blockdev {"driver":"qcow2","node-name":"n","file":{"driver":"file","filename":"/a"},"backing":"b"}',
        '-blockdev {"driver":"raw","node-name":"n","file":{"driver":"ssh","path":"/a"}}',
        '-blockdev {"driver":"raw","node-name":"n","file":{"driver":"file","filename":"a"}}',
        "-blockdev [1]",
        "-blockdev {",
        "-tpmdev passthrough,id=t0,path=/dev/tpm0",
        "-netdev socket,id=n,connect=1.2.3.4:5",
        "-nic tap",
        "-object secret,id=s,file=/etc/shadow",
        "-fw_cfg name=opt/x,file=/etc/shadow",
        "-smbios file=/etc/shadow",
        "-chardev file,path=/etc/passwd",
        "-loadvm x",
        "-device virtio-net-pci,romfile=/etc/shadow",
        "-device virtio-net-pci,romfile=shadow",
        '-device {"driver":"virtio-net-pci","romfile":"/etc/shadow"}',
        '-device {"driver":"virtio-blk-pci","drive":"d","serial":{"a":"/etc/shadow"}}',
        "-device usb-kbd,bus=/dev/x",
        "-global virtio-net-pci.romfile=/etc/shadow",
        "-global virtio-net-pci.romfile=shadow",
        "-global driver=virtio-net-pci,property=romfile,value=shadow",
        "-boot splash=/etc/shadow",
        "-machine q35,kernel=/etc/shadow",
        "-machine q35,dumpdtb=out",
        "-fw_cfg name=opt/x,string=,file=/etc/shadow",
        "-fw_cfg name=opt/x,string=a,gen_id=o",
        "-fw_cfg name=opt/x",
        "-initrd /i,/etc/shadow",
        "-initrd /i /etc/shadow",
        "-kernel /k\x01",
        "-drive file=/a,format=vmdk",
        "-drive file=/a,format=raw,id=a/b",
        "-drive file=/a,format=raw,readonly=maybe",
        "-device virtio-net-pci,nonsense=1",
        "-device virtio-net-pci,x,,romfile=shadow",
        "-device virtio-net-pci,mac=shadow",
        "-device virtio-net-pci,mq=shadow",
        "-device virtio-blk-pci,drive=json:{}",
        "-device usb-kbd,pcap=out",
        "-device usb-kbd,display=x",
        "-device scsi-generic,drive=d",
        "-device virtio-gpu-gl-pci",
        '-device {"driver":"virtio-net-pci","romfile":{}}',
        '-device {"driver":"virtio-net-pci","romfile":"","romfile":"shadow"}',
        '-device {"driver":["virtio-net-pci"]}',
        '-blockdev {"driver":"raw","file":"json:{}"}',
        '-blockdev {"driver":"raw","file":{"driver":"file","filename":"/\\u0000"}}',
        '-blockdev {"driver":"raw","file":{"driver":"file","filename":"/\\ud800"}}',
        '-blockdev {"driver":"raw","file":{"driver":"file","filename":["/a"]}}',
        '-blockdev {"driver":"raw","cache":1,"file":{"driver":"file","filename":"/a"}}',
        '-blockdev {"driver":"file","filename":"/a","filename":"/etc/shadow"}',
        '-blockdev {"a":' + "[" * 4000,
        "-tpmdev emulator,id=t0,chardev=c0,path=x",
        "-netdev user,id=n,,smb=x",
        "-chardev null,id=n,,logfile=x",
        "-serial chardev:a/b",
        "-cpu EPYC,foo=bar",
        "-cpu EPYC,vendor=a/b",
        "-cpu EPYC,",
        "-cpu EPYC" + ",vendor=1" * 400 + ",!",  # never answered, if a pattern could read it in two ways
        "-rtc base=utc,clock=sundial",
        "-boot splash=picture",
        "-vga /x",
        "-uuid x",
        "-smp 2,x=1",
        "-watchdog-action explode",
        "-global isa-fdc.nonsense=1",
        "-global a.b=1,c.d=2",
        "-machine q35,memory-encryption=x",
        "-machine q35,nonsense=on",
        "-object rng-random,id=r,filename=/etc/shadow",
        "-object rng-random,id=r,filename=/dev/sda",
        "-object iothread,id=i,thread-pool=/x",
        "-smbios type=11,path=/etc/shadow",
        "-readconfig /x",
        "-plugin /x.so",
        "-kernel ../../k",
        "/disk.img",
    ],
)
def test_what_is_not_known_to_be_portable_is_refused_by_name(argument: str) -> None:
    words = argument.split(" ", 1)
    with pytest.raises(RefusedError) as caught:
        portable([*FOREIGN, *words], FORMATS)
    assert caught.value.kind == "adopted-hardware"
    assert words[0] in caught.value.message


def test_what_is_refused_is_told_with_the_setting_and_why() -> None:
    with pytest.raises(RefusedError) as caught:
        portable(["-device", "virtio-net-pci,nonsense=1", "-device", "usb-kbd,mq=shadow"])
    assert "nonsense is not known to open no file" in caught.value.message
    assert "mq has a value of another kind" in caught.value.message
    assert caught.value.remedy


def test_a_managers_command_line_is_portable() -> None:
    """As libvirt 9 writes the hardware of a small q35 guest."""
    words = shlex.split(
        "-machine pc-q35-7.2,usb=off,dump-guest-core=off,memory-backend=pc.ram,kernel_irqchip=split,hpet=off"
        " -cpu EPYC-Rome,x2apic=on,hv-time=on,hv-spinlocks=0x1fff,hv-vendor-id=KVMKVMKVM,-svm"
        " -smp 2,sockets=2,cores=1,threads=1 -uuid c3a0b7f0-0d2e-4a36-8a15-6d7f2a0c9b11 -nodefaults"
        " -rtc base=utc,driftfix=slew -global kvm-pit.lost_tick_policy=delay -no-shutdown"
        " -global ICH9-LPC.disable_s3=1 -global driver=cfi.pflash01,property=secure,value=on -boot strict=on"
        """ -device '{"driver":"pcie-root-port","port":16,"chassis":1,"id":"pci.1","bus":"pcie.0","""
        """"multifunction":true,"addr":"0x2"}'"""
        """ -device '{"driver":"qemu-xhci","p2":15,"p3":15,"id":"usb","bus":"pci.2","addr":"0x0"}'"""
        """ -blockdev '{"driver":"file","filename":"/srv/a.qcow2","node-name":"libvirt-1-storage","""
        """"auto-read-only":true,"discard":"unmap","cache":{"direct":true,"no-flush":false}}'"""
        """ -blockdev '{"node-name":"libvirt-1-format","read-only":false,"driver":"qcow2","""
        """"file":"libvirt-1-storage","backing":null,"cache":{"direct":true,"no-flush":false}}'"""
        """ -device '{"driver":"virtio-blk-pci","bus":"pci.4","addr":"0x0","drive":"libvirt-1-format","""
        """"id":"virtio-disk0","bootindex":1,"write-cache":"on","serial":"WD-1 2"}'"""
        " -device virtio-net-pci,host_mtu=9000,netdev=n0,id=net0,mac=52:54:00:12:34:56,bus=pci.1,romfile="
        " -device VGA,id=video0,vgamem_mb=16,bus=pcie.0,addr=0x1"
        " -device isa-serial,chardev=s0,id=serial0,index=0"
        " -device virtio-balloon-pci,id=balloon0,bus=pci.5,addr=0x0 -fw_cfg name=opt/org.a/b,string=x"
        " -smbios type=1,manufacturer=A/B,uuid=c3a0b7f0-0d2e-4a36-8a15-6d7f2a0c9b11"
        " -smbios type=11,value=a,value=b"
    )
    kept = portable(words)
    assert portable(kept) == kept
    assert [option for option in kept if option in {"-device", "-blockdev", "-smbios", "-global"}] == [
        option for option in words if option in {"-device", "-blockdev", "-smbios", "-global"}
    ]
    assert files_of(kept).written == ("/srv/a.qcow2",)
    assert [(image.path, image.format) for image in images_of(kept)] == [("/srv/a.qcow2", "qcow2")]


def test_the_images_of_drives_have_the_formats_of_their_drives() -> None:
    words = ["-drive", "file=/a,format=raw", "-drive", "file=/b,format=qcow2"]
    assert [(image.path, image.format) for image in images_of(words)] == [("/a", "raw"), ("/b", "qcow2")]


def test_a_setting_that_is_written_twice_arrives_nowhere() -> None:
    """Which of the two counts is QEMU's to say."""
    twice = (*VM.hardware, "-device", "virtio-net-pci,addr=0x1,addr=0x2")
    with pytest.raises(RefusedError):
        adopted_arguments(replace(VM, hardware=twice), HERE)


def test_hardware_that_was_changed_on_the_way_starts_nothing() -> None:
    for changed in (
        (),
        (*VM.hardware, "-netdev", "user,id=n,smb=/etc"),
        (*VM.hardware, "-netdev", "user,id=n,,smb=/etc"),
        (*VM.hardware, "-chardev", "null,id=n,,logfile=/etc/passwd"),
        (*VM.hardware, "-fw_cfg", "opt/x,string=,file=/etc/shadow"),
        (*VM.hardware, "-device", "virtio-net-pci,romfile=/etc/shadow"),
        (*VM.hardware, "-chardev", "file,id=x,path=/etc/passwd"),
        (*VM.hardware, "-qmp", "tcp::1"),
    ):
        with pytest.raises(RefusedError):
            adopted_arguments(replace(VM, hardware=changed), HERE)


def test_a_card_on_no_bridge_is_refused_at_the_start() -> None:
    with pytest.raises(RefusedError, match="on no bridge"):
        adopted_arguments(VM, replace(HERE, taps=()))


def test_hardware_travels_in_the_definition() -> None:
    assert parse_definition(definition_text(VM)) == VM


@given(st.lists(st.text(max_size=40), max_size=8))
def test_no_command_line_does_more_than_be_refused(arguments: list[str]) -> None:
    try:
        kept = portable(arguments)
    except RefusedError:
        return
    assert portable(kept) == kept


_words = st.text(st.characters(codec="ascii", exclude_characters="=\0"), min_size=1, max_size=12)


@given(st.dictionaries(st.from_regex(r"[a-z-]{1,8}", fullmatch=True).filter(lambda k: k != "driver"), _words))
def test_options_read_back_as_they_were_written(values: dict[str, str]) -> None:
    written = ",".join(["virtio", *(f"{key}={value.replace(',', ',,')}" for key, value in values.items())])
    found = parse_options(written)
    assert (found.kind, found.values) == ("virtio", values)
    assert str(found) == written
