"""The tables of severity and of a move are those of the documentation, and what is open is open."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fakes.vm_configurations import LIBVIRT, OVF, VIRTUALBOX, VMWARE, XEN
from korora.agents.integrity.configuration import comparing, moving, severity
from korora.agents.integrity.configuration.recognition import read
from korora.model.vm_settings import Component, ConfigurationFormat, Fact, Field, Part

PAGE = (Path(__file__).parents[5] / "docs" / "CONFIGURATION.md").read_text()


def test_the_documentation_has_every_row() -> None:
    for field, grave in severity.OF_VM.items():
        row = next(
            line for line in PAGE.splitlines() if re.match(rf"\| {grave} \| .*\b{re.escape(field)}\b", line)
        )
        assert row
    for part, grave in severity.ADDED.items():
        assert f"| {part} | {grave} | {severity.REMOVED[part]} |" in PAGE
    for (part, field), grave in severity.OF_DEVICE.items():
        assert f"| {part} | {field} | {grave} |" in PAGE
    for format_, pattern, grave in severity.OTHERS:
        assert f"| {format_} | `{pattern.replace('|', chr(92) + '|')}` | {grave} |" in PAGE
    for format_, patterns in moving.OTHERS.items():
        for pattern in patterns:
            assert f"| {format_} | `{pattern.replace('|', chr(92) + '|')}` |\n" in PAGE


def test_every_fact_that_is_compared_between_formats_is_named_there() -> None:
    section = PAGE[PAGE.index("### Between formats") : PAGE.index("## What is not told")].replace("\n", " ")
    for field in comparing.BETWEEN_FORMATS:
        assert field.value in section
    for kind in comparing.KINDS:
        assert kind in section


AFTER_A_MOVE = {
    ConfigurationFormat.LIBVIRT: (
        LIBVIRT.replace("</domain>", """<resource><partition>/machine</partition></resource>
        <seclabel type='dynamic' model='selinux'><label>a</label></seclabel></domain>""")
        .replace("</devices>", "<console tty='/dev/pts/1'><source path='/dev/pts/1'/></console></devices>")
        .replace("file='/var/lib", "index='3' file='/var/lib")
        .replace("<target dev='vda'", "<backingStore><source file='/base'/></backingStore><target dev='vda'")
        .replace("<source bridge='br0'", "<source portid='p1' bridge='br0'")
        .replace("</devices>", "<channel><target name='agent' state='connected'/></channel></devices>"),
        (
            ("id='7'", "id='8'"), (">/usr/bin/qemu", ">/opt/qemu"), ("web-1_VARS", "other_VARS"),
            (">/machine<", ">/other<"), ("<label>a<", "<label>b<"), ("virtio-disk0", "ua-0"),
            ("index='3'", "index='4'"), ("vnet3", "vnet4"), ("5901", "5902"),
            ("tty='/dev/pts/1", "tty='/dev/pts/2"), ("/base", "/new"), ("portid='p1", "portid='p2"),
            ("state='connected", "state='disconnected"),
        ),
    ),
    ConfigurationFormat.XEN: (
        XEN + "device_model_override = '/a'\n", (("override = '/a'", "override = '/b'"),),
    ),
    ConfigurationFormat.VMWARE: (
        VMWARE + "".join(f'{key} = "OLD{number}"\n' for number, key in enumerate((
            "vc.uuid", "nvram", "extendedConfigFile", "sched.swap.derivedName", "migrate.hostlog",
            "vmxstats.filename", "cleanShutdown", "softPowerOff", "numa.autosize.cookie",
            "vmotion.checkpointFBSize", "monitor.phys_bits_used",
        ))),
        (("56 4d 2a", "56 4d 2b"), *((f'"OLD{number}"', f'"NEW{number}"') for number in range(11))),
    ),
    ConfigurationFormat.VIRTUALBOX: (
        VIRTUALBOX.replace("<Clipboard", """<NVRAM path="a.nvram"/><GuestProperties>
        <GuestProperty
        name="/VirtualBox/GuestInfo/OS/Product" value="Linux"/><GuestProperty name="/mine" timestamp="7"/>
        </GuestProperties><AudioAdapter driver="ALSA"/><Clipboard""")
        .replace("</MediaRegistry>", "<Other><Image uuid='9' location='/base'/></Other></MediaRegistry>"),
        (
            ("2026-01-01", "2026-01-02"), ("4,47", "5,47"), ("a.nvram", "b.nvram"),
            ('value="Linux"', 'value="BSD"'), ("1.19-linux", "1.19-windows"), ('"7"', '"8"'),
            ("ALSA", "DirectSound"), ("/base", "/other"),
        ),
    ),
    ConfigurationFormat.OVF: (
        OVF.replace(
            "</VirtualSystem>",
            "<vbox:Machine xmlns:vbox='http://www.virtualbox.org/ovf/machine' lastStateChange='2026'/>"
            "</VirtualSystem>",
        ),
        (("lastStateChange='2026'", "lastStateChange='2027'"),),
    ),
}  # fmt: skip


@pytest.mark.parametrize("format_", AFTER_A_MOVE)
def test_every_setting_that_a_host_rewrites_is_expected_after_a_move(format_: ConfigurationFormat) -> None:
    text, edits = AFTER_A_MOVE[format_]
    before, used = read(text.encode()), set()
    for old, new in edits:
        assert old in text
        (change,) = comparing.changes(before, read(text.replace(old, new).encode()), moved=True)
        assert change.expected
        (plain,) = comparing.changes(before, read(text.replace(old, new).encode()))
        assert not plain.expected
        used |= {one for one in moving.OTHERS[format_] if re.fullmatch(one, change.what)}
    assert used == set(moving.OTHERS[format_])


def test_a_guest_that_is_not_confined_any_more_is_never_expected() -> None:
    text = LIBVIRT.replace("</domain>", "<seclabel type='dynamic' model='selinux'/></domain>")
    after = text.replace("seclabel type='dynamic'", "seclabel type='none'")
    (change,) = comparing.changes(read(text.encode()), read(after.encode()), moved=True)
    assert (change.severity, change.expected) == ("critical", False)


GRAVE = {
    ConfigurationFormat.LIBVIRT: (
        "domain/launchSecurity/@type", "domain/qemu:commandline/qemu:arg/@value", "domain/seclabel/@type",
        "domain/devices/disk[vda]/source/encryption/@format", "domain/description",
        "domain/devices/disk[vda]/backingStore/format/@type", "domain/os/loader/@secure",
    ),
    ConfigurationFormat.XEN: ("device_model_version",),
    ConfigurationFormat.VMWARE: ("isolation.tools.hgfs.disable", "annotation"),
    ConfigurationFormat.VIRTUALBOX: (
        "VirtualBox/Machine/ExtraData/ExtraDataItem[VBoxInternal%2fx]/@value",
        "VirtualBox/Machine/Hardware/Clipboard/@mode", "VirtualBox/Machine/Description",
    ),
    ConfigurationFormat.OVF: (
        "Envelope/VirtualSystem[a]/Info", "Envelope/VirtualSystem/vbox:Machine/Hardware/Clipboard/@mode",
        "Envelope/VirtualSystem/vbox:Machine/ExtraData/ExtraDataItem[VBoxInternal%2fx]/@value",
    ),
}  # fmt: skip


def test_every_row_of_settings_without_a_word_fits_one() -> None:
    for format_, pattern, grave in severity.OTHERS:
        fitting = [path for path in GRAVE[format_] if re.fullmatch(pattern, path)]
        assert fitting
        assert {severity.of_other(format_, path) for path in fitting} == {grave}
    assert severity.of_other(ConfigurationFormat.XEN, "on_crash") == "warning"


@pytest.mark.parametrize(
    ("address", "password", "is_open"),
    [
        (None, "none", True), ("0.0.0.0", "none", True), ("127.0.0.1", "none", False), ("::1", "none", False),  # noqa: S104
        ("127.0.0.1, 10.0.0.1", "none", True), ("0.0.0.0", "set", False), ("no network", "none", False),  # noqa: S104
        ("127.0.0.1.example", "none", True), (None, None, True),
    ],
)  # fmt: skip
def test_a_display_is_open_without_a_password_to_others(
    address: str | None, password: str | None, is_open: bool
) -> None:
    said = ((Field.ADDRESS, address), (Field.PASSWORD, password))
    facts = tuple(Fact(field, value) for field, value in said if value is not None)
    display = Component(Part.DISPLAY, "vnc", "vnc", facts)
    assert severity.is_open(display) == is_open
    assert severity.of_added(display) == ("critical" if is_open else "warning")
