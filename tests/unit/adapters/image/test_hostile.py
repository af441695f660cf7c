"""Images that would open other files, claim absurd sizes or are no files: refused in time."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import time
from pathlib import Path

import pytest

from fakes.disk_images import MIB, converted, disk_content, encrypted, measured, qemu_img, root_of
from fakes.failing_file import failing, skip_without_fuse
from korora.adapters.image.qemu_nbd import QemuImages
from korora.errors import ExitCode, IntegrityError, KororaError, ToolError, UsageError
from korora.model.image import Format, ImageFiles
from korora.wiring.images import looked_at

SECRET = b"the secret of this host " * 4096


def refused(path: Path, declared: Format | None = None, *allowed: Path) -> KororaError:
    """The error that reading it ends in; whatever it says, not the secret."""
    with pytest.raises(KororaError) as failed:
        measured(path, declared, *allowed)
    assert b"secret of this" not in (failed.value.message + failed.value.remedy).encode()
    return failed.value


def kinds(path: Path, declared: Format | None = None) -> set[str]:
    return {finding.kind for finding in looked_at(path, declared).disks[0].facts.findings}


def overlay(path: Path, backing: str, form: str | None) -> Path:
    """A qcow2 by hand: qemu-img itself no longer writes some of these."""
    extension = struct.pack(">II", 0xE2792ACA, len(form)) + form.encode().ljust(8, b"\0") if form else b""
    text = backing.encode()
    begin = 104 + len(extension) + 8
    header = struct.pack(
        ">4sIQIIQIIQQIIQ", b"QFI\xfb", 3, begin, len(text), 16, MIB, 0, 1, 0x30000, 0x10000, 1, 0, 0
    )
    header += struct.pack(">QQQII", 0, 0, 0, 4, 104)
    image = bytearray(0x40000)
    image[: len(header)] = header
    image[104 : 104 + len(extension)] = extension
    image[begin : begin + len(text)] = text
    image[0x10000:0x10008] = (0x20000).to_bytes(8, "big")
    for cluster in range(4):
        image[0x20000 + 2 * cluster : 0x20002 + 2 * cluster] = (1).to_bytes(2, "big")
    path.write_bytes(image)
    return path


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_bytes(SECRET)
    return path


# -- other files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backing", "form", "kind"),
    [
        ("/etc/shadow", "raw", "backing"),
        ("/usr/lib/os-release", "raw", "backing"),
        ("../../etc/shadow", "raw", "backing"),
        ("secret", "raw", "backing"),
        ("secret", None, "backing-format"),
        ('json:{"driver":"file","filename":"/etc/shadow"}', "raw", "backing-elsewhere"),
        ("nbd://127.0.0.1:1/x", "raw", "backing-elsewhere"),
        ("file:/etc/shadow", "raw", "backing-elsewhere"),
        ("/usr/lib/os-release", None, "backing"),
    ],
)
def test_a_backing_file_is_a_critical_finding_and_never_opened(
    backing: str, form: str | None, kind: str, tmp_path: Path, secret: Path
) -> None:
    path = overlay(tmp_path / "a.qcow2", backing, form)
    assert kind in kinds(path)
    assert refused(path).kind == "image-refused"


def test_a_backing_file_of_undeclared_format_is_not_read_though_it_is_allowed(
    tmp_path: Path, secret: Path
) -> None:
    path = overlay(tmp_path / "a.qcow2", "secret", None)
    assert refused(path, None, secret).kind == "image-refused"


def test_a_backing_file_deep_down_of_undeclared_format_is_not_read(tmp_path: Path, secret: Path) -> None:
    """QEMU would guess the lowest file's format, from bytes that a guest may have written."""
    middle = overlay(tmp_path / "middle.qcow2", "secret", None)
    top = overlay(tmp_path / "top.qcow2", "middle.qcow2", "qcow2")
    assert refused(top, None, middle, secret).kind == "image-refused"


def test_without_our_checks_the_sandbox_alone_keeps_the_hosts_files_out(tmp_path: Path, secret: Path) -> None:
    path = overlay(tmp_path / "a.qcow2", str(secret), "raw")
    with (
        pytest.raises(IntegrityError, match="No such file"),
        QemuImages().open(ImageFiles(path, Format.QCOW2)),
    ):
        raise AssertionError("it was opened")


def test_a_file_cannot_be_shown_in_the_place_of_the_image_itself(tmp_path: Path, secret: Path) -> None:
    path = overlay(tmp_path / "a.qcow2", ".image", "raw")
    hidden = secret.rename(tmp_path / ".image")
    assert refused(path, None, hidden).kind == "image-escape"


def test_a_data_file_is_a_critical_finding_and_read_when_allowed(tmp_path: Path) -> None:
    raw = tmp_path / "disk.raw"
    raw.write_bytes(disk_content())
    path = tmp_path / "a.qcow2"
    qemu_img("convert", "-O", "qcow2", "-o", f"data_file={tmp_path / 'data'}", raw, path)
    assert kinds(path) == {"data-file"}
    assert refused(path).kind == "image-refused"
    assert measured(path, None, tmp_path / "data").root == root_of(disk_content())


def test_a_data_file_without_a_folder_in_its_name_lies_beside_its_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = tmp_path / "disk.raw"
    raw.write_bytes(disk_content())
    monkeypatch.chdir(tmp_path)
    qemu_img("convert", "-O", "qcow2", "-o", "data_file=data", raw, tmp_path / "a.qcow2")
    monkeypatch.chdir("/")
    assert kinds(tmp_path / "a.qcow2") == {"data-file"}
    assert measured(tmp_path / "a.qcow2", None, tmp_path / "data").root == root_of(disk_content())


def test_storage_that_fails_where_an_image_begins_is_no_bug(tmp_path: Path) -> None:
    skip_without_fuse()
    path = tmp_path / "disk.raw"
    path.write_bytes(disk_content())
    with failing(path, 0):
        assert (refused(path).kind, refused(path).exit_code) == ("unreadable", ExitCode.TOOL)
        assert refused(path, Format.QCOW2).exit_code == ExitCode.TOOL


def test_what_is_damaged_or_too_large_is_not_to_be_mended_by_allowing_a_file(tmp_path: Path) -> None:
    large = tmp_path / "large.qcow2"
    qemu_img("create", "-f", "qcow2", "-o", "cluster_size=2M", large, "2P")
    assert "--allow" not in refused(large).remedy
    assert "--allow" in refused(overlay(tmp_path / "a.qcow2", "other", "raw")).remedy
    assert "--allow" not in refused(overlay(tmp_path / "b.qcow2", "nbd:host:1", "raw")).remedy


def test_a_raw_disk_with_a_qcow2_header_is_what_it_is_declared_to_be(tmp_path: Path, secret: Path) -> None:
    path = overlay(tmp_path / "disk.raw", str(secret), "raw")
    assert refused(path).kind == "format-unclear"
    assert measured(path, Format.RAW).root == root_of(path.read_bytes())
    assert refused(path, Format.QCOW2).kind == "image-refused"
    nameless = path.rename(tmp_path / "disk")
    assert refused(nameless).kind == "format-unclear"


@pytest.mark.parametrize(
    "entry", ['RW 8 FLAT "/etc/passwd" 0', 'RW 8 FLAT "../x" 0', 'RW\n8\nFLAT\n"/usr/lib/os-release"']
)
def test_a_vmdk_that_names_a_file_elsewhere_is_an_escape(entry: str, tmp_path: Path) -> None:
    path = tmp_path / "a.vmdk"
    text = (
        f'# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="monolithicFlat"\n{entry}\n'
    )
    path.write_text(text)
    assert refused(path).kind == "image-escape"
    # The same descriptor inside of a sparse image's header, in the image itself and in a part of another.
    inside = struct.pack("<4sIIQQQQ", b"KDMV", 1, 3, 0, 128, 1, 20).ljust(512, b"\0") + text.encode()
    path.write_bytes(inside.ljust(65536, b"\0"))
    assert refused(path).kind == "image-escape"
    path.rename(tmp_path / "part.vmdk")
    path.write_text(
        text.replace("monolithicFlat", "twoGbMaxExtentSparse").replace(entry, 'RW 8 SPARSE "part.vmdk"')
    )
    assert refused(path).kind == "image-escape"


def test_a_part_that_is_a_link_is_an_escape(tmp_path: Path, secret: Path) -> None:
    raw = tmp_path / "disk.raw"
    raw.write_bytes(disk_content())
    path = converted(raw, "a.vmdk", "vmdk", "-o", "subformat=monolithicFlat")
    (tmp_path / "a-flat.vmdk").unlink()
    (tmp_path / "a-flat.vmdk").symlink_to(secret)
    assert refused(path).kind == "image-escape"


def test_a_missing_part_is_an_error(tmp_path: Path) -> None:
    raw = tmp_path / "disk.raw"
    raw.write_bytes(disk_content())
    path = converted(raw, "a.vmdk", "vmdk", "-o", "subformat=monolithicFlat")
    (tmp_path / "a-flat.vmdk").unlink()
    assert isinstance(refused(path), UsageError)
    os.mkfifo(tmp_path / "a-flat.vmdk")
    assert refused(path).kind == "no-image"


# -- states ------------------------------------------------------------------------------------------------


def test_internal_snapshots_are_told_and_not_covered(tmp_path: Path) -> None:
    raw = tmp_path / "disk.raw"
    raw.write_bytes(disk_content())
    path = converted(raw, "a.qcow2", "qcow2")
    qemu_img("snapshot", "-c", "before\x1b[31m", path)
    facts = looked_at(path).disks[0].facts
    assert (facts.snapshots, {one.kind for one in facts.findings}) == (("before\x1b[31m",), {"snapshots"})
    assert measured(path).root == root_of(disk_content())


def test_an_encrypted_image_is_named_as_such_and_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.qcow2"
    encrypted(path)
    assert kinds(path) == {"encrypted"}
    assert refused(path).kind == "image-encrypted"


@pytest.mark.parametrize("size", [2**62, 2**63 - 1, 2**64 - 1, 2**51])
def test_a_qcow2_that_claims_exabytes_is_refused_at_once(size: int, tmp_path: Path) -> None:
    path = overlay(tmp_path / "a.qcow2", "", None)
    header = bytearray(path.read_bytes())
    header[8:20] = bytes(12)
    header[24:32] = size.to_bytes(8, "big")
    for entries in (1, size >> 29 & 0xFFFFFFFF, 2**32 - 1):
        header[36:40] = entries.to_bytes(4, "big")
        path.write_bytes(header)
        begun = time.monotonic()
        assert refused(path).kind in {"bad-image", "image-refused"}
        assert time.monotonic() - begun < 30


def test_a_sparse_raw_disk_as_large_as_a_file_can_be_is_quick(tmp_path: Path) -> None:
    path, size = tmp_path / "disk.raw", 2**63 - 512
    while True:
        try:
            with path.open("wb") as file:
                file.truncate(size)
            break
        except OSError:
            size = size // 2 // 512 * 512
    begun = time.monotonic()
    if size > 2**50:
        assert refused(path).kind == "image-refused"
    else:
        assert measured(path).disks[0].size == size
    assert time.monotonic() - begun < 60


def test_an_image_that_a_vm_has_open_is_in_use(tmp_path: Path) -> None:
    path = tmp_path / "a.qcow2"
    qemu_img("create", "-f", "qcow2", path, "8M")
    drive = f"if=none,file={path},format=qcow2,id=a"
    words = [
        "qemu-system-x86_64",
        "-machine",
        "none",
        "-nodefaults",
        "-display",
        "none",
        "-S",
        "-drive",
        drive,
    ]
    with subprocess.Popen([*words, "-qmp", "stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as vm:
        assert vm.stdout is not None
        assert "QMP" in json.loads(vm.stdout.readline())
        try:
            error = refused(path)
        finally:
            vm.kill()
    assert isinstance(error, ToolError)
    assert error.kind == "image-in-use"


def test_a_block_size_that_is_wrong_is_damage_and_no_lock(tmp_path: Path) -> None:
    """The word block has a lock in it."""
    raw = tmp_path / "disk.raw"
    raw.write_bytes(disk_content())
    path = converted(raw, "a.vdi", "vdi")
    with path.open("r+b") as file:
        file.seek(0x178)
        file.write((4096).to_bytes(4, "little"))
    assert refused(path).kind == "bad-image"


# -- no files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("declared", [None, *Format])
@pytest.mark.parametrize("what", ["pipe", "folder", "missing", "device", "socket"])
def test_what_is_no_file_is_no_image(what: str, declared: Format | None, tmp_path: Path) -> None:
    path = tmp_path / "disk.raw"
    if what == "pipe":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    elif what == "device":
        path = Path("/dev/zero")
    elif what == "socket":
        subprocess.run(
            ["python3", "-c", f"import socket; socket.socket(socket.AF_UNIX).bind({str(path)!r})"], check=True
        )
    assert refused(path, declared).kind == "no-image"


def test_an_empty_file_is_a_raw_disk_of_no_bytes_and_no_other_image(tmp_path: Path) -> None:
    path = tmp_path / "disk.raw"
    path.touch()
    assert measured(path).root == root_of(b"")
    for which in set(Format) - {Format.RAW}:
        assert isinstance(refused(path, which), KororaError)


def test_an_allowed_file_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    path = overlay(tmp_path / "a.qcow2", "pipe", "raw")
    os.mkfifo(tmp_path / "pipe")
    assert refused(path, None, tmp_path / "pipe").kind == "no-image"


def test_odd_names_are_names(tmp_path: Path) -> None:
    for name in ("a,b=c.raw", "-o.raw", "a b\n.raw", "json:{}.raw", "nbd:x:1.raw", "driver=qcow2.raw"):
        path = tmp_path / name
        path.write_bytes(disk_content(MIB * 5))
        assert measured(path).root == root_of(disk_content(MIB * 5))
