"""A secret that changed is told to have changed; neither what it was nor what it is now is ever shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from fakes.vm_configurations import LIBVIRT, OVF, VIRTUALBOX, VMWARE, XEN
from korora.agents.integrity.configuration.comparing import changes, words
from korora.agents.integrity.configuration.hiding import HIDDEN, shown, shown_text
from korora.agents.integrity.configuration.recognition import read
from korora.cli.main import app
from korora.model.vm_settings import Field

OLD, NEW = "hunter2old", "hunter3new"
ARGUMENT = "value='-no-hpet'/>"


def argument(*words: str) -> tuple[str, str, str]:
    """Of libvirt's emulator, before the one that is there."""
    more = "".join(f"<qemu:arg value='{word}'/>" for word in words)
    return LIBVIRT, ARGUMENT, f"{ARGUMENT}{more}"


def device(element: str) -> tuple[str, str, str]:
    return LIBVIRT, "</devices>", f"{element}</devices>"


def line(text: str, more: str) -> tuple[str, str, str]:
    return text, text, f"{text}\n{more}\n"


PLACES: dict[str, tuple[str, str, str]] = {
    "a secret object": argument("-object", "secret,id=s,data=SECRET"),
    "a secret object with blanks": argument("-object", "secret,id=s,data=of words SECRET and words"),
    "a secret object in JSON": argument("-object", '{"qom-type":"secret","id":"s","data":"SECRET"}'),
    "a password of iSCSI": argument("-iscsi", "user=u,password=SECRET"),
    "a drive with a key": argument("-drive", "file=rbd:pool/image:id=admin:key=SECRET,if=virtio"),
    "a drive with a password": argument("-drive", "file=https://user:SECRET@host/x,if=virtio"),
    "a firmware's file": argument("-fw_cfg", "name=opt/com.coreos/config,string=SECRET"),
    "a credential by SMBIOS": argument("-smbios", "type=11,value=io.systemd.credential:root=SECRET"),
    "a display's password": device("<graphics type='vnc' port='-1' passwd='SECRET'/>"),
    "a cookie": (
        LIBVIRT,
        "</devices>",
        "<disk type='network' device='disk'><driver type='raw'/><source protocol='https' name='x'>"
        "<cookies><cookie name='c'>SECRET</cookie></cookies></source><target dev='vdx'/></disk></devices>",
    ),
    "a disk with a password in its address": (
        LIBVIRT,
        "/var/lib/images/web-1.qcow2",
        "https://user:SECRET@host/web-1.qcow2",
    ),
    "an environment": (
        LIBVIRT,
        "<qemu:arg value='-no-hpet'/>",
        "<qemu:arg value='-no-hpet'/><qemu:env name='X' value='SECRET'/>",
    ),
    "the kernel's command line": (LIBVIRT, "ro quiet", "ro quiet systemd.set_credential=root:SECRET"),
    "a description": (LIBVIRT, "</memory>", "</memory><description>password: SECRET</description>"),
    "a firmware's entry": (
        LIBVIRT,
        "</memory>",
        "</memory><sysinfo type='fwcfg'><entry name='opt/com.coreos/config'>SECRET</entry></sysinfo>",
    ),
    "a display of VMware": line(VMWARE, 'RemoteDisplay.vnc.key = "SECRET"'),
    "encryption of VMware": line(VMWARE, 'encryption.bundle = "SECRET"'),
    "keys of VMware": line(VMWARE, 'dataFileKey = "SECRET"'),
    "what cloud-init reads on VMware": line(VMWARE, 'guestinfo.userdata = "SECRET"'),
    "facts that cloud-init reads on VMware": line(VMWARE, 'guestinfo.metadata = "SECRET"'),
    "a display of Xen": line(XEN, 'spicepasswd = "SECRET"'),
    "arguments of Xen": line(XEN, 'device_model_args = [ "-object", "secret,id=s,data=SECRET" ]'),
    "a property that is a password": (
        OVF,
        "</VirtualSystem>",
        '<ProductSection><Info>x</Info><Property ovf:key="admin" ovf:type="string" ovf:password="true"'
        ' ovf:value="SECRET"/></ProductSection></VirtualSystem>',
    ),
    "what cloud-init reads of OVF": (
        OVF,
        "</VirtualSystem>",
        '<ProductSection><Info>x</Info><Property ovf:key="user-data" ovf:type="string" ovf:value="SECRET"/>'
        "</ProductSection></VirtualSystem>",
    ),
    "an account of VirtualBox": (
        VIRTUALBOX,
        "<ExtraData>",
        '<ExtraData><ExtraDataItem name="VBoxAuthSimple/users/joe" value="SECRET"/>',
    ),
}


def texts(place: str) -> tuple[str, str, str]:
    """Without it, and with one secret, and with another."""
    text, old, new = PLACES[place]
    assert old in text
    one, other = (text.replace(old, new.replace("SECRET", secret), 1) for secret in (OLD, NEW))
    return text, one, other


@pytest.mark.parametrize("place", PLACES)
def test_a_secret_that_changes_comes_or_goes_is_told_and_never_shown(place: str) -> None:
    without, one, other = (read(text.encode()) for text in texts(place))
    assert not without.unparsed
    assert not one.unparsed
    for before, after in ((one, other), (without, one), (one, without)):
        found = list(changes(before, after))
        assert found
        told = json.dumps([(words(each), each.before, each.after, each.what, each.paths) for each in found])
        assert OLD not in told
        assert NEW not in told


@pytest.mark.parametrize("place", PLACES)
def test_the_command_line_shows_no_secret(tmp_path: Path, place: str) -> None:
    _, one, other = texts(place)
    files = [tmp_path / "one", tmp_path / "other"]
    for file, text in zip(files, (one, other), strict=True):
        file.write_text(text)
    for command in (["diff", *files], ["digest", files[0]]):
        for more in ([], ["--json"]):
            done = CliRunner().invoke(app, ["config", *map(str, command), *more])
            assert done.exit_code in {0, 5}, done.output
            assert OLD not in done.output
            assert NEW not in done.output


SECRETS = st.text(st.characters(codec="ascii", categories=("L", "N"), include_characters="+/"), min_size=8)


@given(SECRETS)
def test_whatever_the_secret_is_nothing_of_it_is_shown(secret: str) -> None:
    for text in (
        f"-object secret,id=s,data={secret}",
        f"-iscsi user=u,password={secret}",
        f"-chardev x -fw_cfg name=x,string={secret}",
    ):
        assert shown(text, Field.ARGUMENTS) == HIDDEN
    for text in (f"https://u:{secret.replace('/', '')}@h/x", f"my password: {secret}", f"a_token={secret}"):
        assert shown(text) == HIDDEN
    assert shown_text("line 7", f'encryption.keySafe = "{secret}') == HIDDEN
    assert shown_text("domain/devices/graphics/@passwd", secret) == HIDDEN


@pytest.mark.parametrize(
    "text",
    [
        "/var/lib/images/web-1.qcow2",
        "bridge br0, MAC address 52:54:00:12:34:56, model virtio",
        "vnc, address 127.0.0.1, password set",
        "root=/dev/vda1 ro quiet",
        "https://host/x.iso",
        "nbd://127.0.0.1:10809/disk",
    ],
)
def test_what_is_no_secret_is_shown(text: str) -> None:
    assert shown(text) == text


def test_arguments_that_hold_no_secret_are_shown() -> None:
    assert shown("-no-hpet -s -global isa-debug.x=1", Field.ARGUMENTS) == "-no-hpet -s -global isa-debug.x=1"
