"""Real images of every format, hostile ones too, read by QEMU in its sandbox."""

from __future__ import annotations

import json
import os
import random
import subprocess
import tempfile
from pathlib import Path

import pytest

from korora.adapters.image.qemu_nbd import QemuImages
from korora.adapters.image.sandbox import Sandbox
from korora.errors import IntegrityError, KororaError, RefusedError, ToolError, UsageError
from korora.model.image import Format, ImageFiles
from korora.wiring.images import differing, digested, looked_at

MIB = 1 << 20
FORMATS = {
    "qcow2": ["-O", "qcow2"],
    "zlib.qcow2": ["-c", "-O", "qcow2"],
    "zstd.qcow2": ["-c", "-O", "qcow2", "-o", "compression_type=zstd"],
    "vmdk": ["-O", "vmdk"],
    "stream.vmdk": ["-O", "vmdk", "-o", "subformat=streamOptimized"],
    "split.vmdk": ["-O", "vmdk", "-o", "subformat=twoGbMaxExtentSparse"],
    "vdi": ["-O", "vdi"],
    "vhd": ["-O", "vpc", "-o", "force_size=on"],
    "vhdx": ["-O", "vhdx"],
}
SECRET = b"a secret of the host "


def run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=120)


def encrypted(path: Path) -> None:
    """QEMU measures first how fast it hashes, and gives up now and then: it is asked again."""
    options = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10"
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "--object", "secret,id=s,data=pass"]
    whole = [*command, "-o", options, str(path), "8M"]
    for _ in range(50):
        if subprocess.run(whole, capture_output=True, check=False, timeout=120).returncode == 0:
            return
    run(*whole)


def quiet(_: object) -> None:
    pass


def root_of(path: Path, declared: Format | None = None, *allowed: Path) -> str:
    return digested(looked_at(path, declared, allowed), quiet).root


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One content in all formats: content, holes, and a last chunk that is not whole."""
    folder = tmp_path_factory.mktemp("disks")
    chance = random.Random(1)
    with (folder / "disk.raw").open("wb") as file:
        file.write(chance.randbytes(3 * MIB + 4096))
        file.seek(7 * MIB + 512)
        file.write(chance.randbytes(MIB))
        file.truncate(12 * MIB + 1536)
    for suffix, words in FORMATS.items():
        run("qemu-img", "convert", "-f", "raw", *words, folder / "disk.raw", folder / f"disk.{suffix}")
    return folder


def test_one_content_has_one_root_in_every_format(disks: Path) -> None:
    raw = root_of(disks / "disk.raw")
    assert {suffix: root_of(disks / f"disk.{suffix}") for suffix in FORMATS} == dict.fromkeys(FORMATS, raw)


def test_a_changed_byte_changes_the_root_and_is_found(disks: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.raw"
    content = bytearray((disks / "disk.raw").read_bytes())
    content[7 * MIB + 600] ^= 1
    other.write_bytes(content)
    assert root_of(other) != root_of(disks / "disk.raw")
    found = list(differing(looked_at(disks / "disk.qcow2"), looked_at(other), quiet))
    assert [(one.offset, one.length) for one in found] == [(7 * MIB, MIB)]


def test_extents_are_without_gaps_and_ranges_come_in_their_order(disks: Path) -> None:
    content = (disks / "disk.raw").read_bytes()
    ranges = [(at, min(4096, len(content) - at)) for at in range(0, len(content), 4096)]
    for suffix, form in (("raw", Format.RAW), ("qcow2", Format.QCOW2)):
        with QemuImages().open(ImageFiles(disks / f"disk.{suffix}", form)) as image:
            assert image.size == len(content)
            extents = list(image.extents())
            assert b"".join(image.each(ranges, bytes)) == content
        assert [one.offset for one in extents] == [0, *(one.end for one in extents[:-1])]
        assert extents[-1].end == len(content)
        assert all(not any(content[one.offset : one.end]) for one in extents if one.zero)
        assert any(one.zero for one in extents)


# -- images that name other files ----------------------------------------------------------------------------


def overlay(path: Path, backing: str, form: str = "raw") -> Path:
    run("qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", backing, "-F", form, path, "8M")
    return path


def test_an_overlay_is_read_with_the_very_file_that_is_allowed(disks: Path, tmp_path: Path) -> None:
    base = tmp_path / "base.raw"
    base.write_bytes((disks / "disk.raw").read_bytes()[: 8 * MIB])
    for name in ("base.raw", str(base)):
        image = overlay(tmp_path / "top.qcow2", name)
        with pytest.raises(RefusedError, match="another file"):
            root_of(image)
        with pytest.raises(RefusedError):
            root_of(image, None, disks / "disk.raw")
        assert root_of(image, None, base) == root_of(base)


def test_a_chain_is_read_with_all_of_its_files(disks: Path, tmp_path: Path) -> None:
    base = tmp_path / "base.raw"
    base.write_bytes((disks / "disk.raw").read_bytes()[: 8 * MIB])
    middle = overlay(tmp_path / "middle.qcow2", "base.raw")
    top = overlay(tmp_path / "top.qcow2", "middle.qcow2", "qcow2")
    assert root_of(top, None, base, middle) == root_of(base)
    with pytest.raises(KororaError):
        root_of(top, None, middle)


@pytest.mark.parametrize("backing", ["/etc/shadow", "json:{}", "nbd://127.0.0.1:1/x", "../../etc/shadow"])
def test_a_backing_file_of_the_host_is_never_read(tmp_path: Path, backing: str) -> None:
    image = tmp_path / "top.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", image, "8M")
    run("qemu-img", "rebase", "-u", "-f", "qcow2", "-b", backing, "-F", "raw", image)
    assert looked_at(image).disks[0].facts.critical
    with pytest.raises(RefusedError) as caught:
        root_of(image)
    assert caught.value.kind == "image-refused"


def test_a_data_file_and_snapshots_and_encryption_are_named(tmp_path: Path) -> None:
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", f"data_file={tmp_path}/d,data_file_raw=on",
        tmp_path / "data.qcow2", "8M")  # fmt: skip
    with pytest.raises(RefusedError, match="another file"):
        root_of(tmp_path / "data.qcow2")
    run("qemu-img", "create", "-q", "-f", "qcow2", tmp_path / "snap.qcow2", "8M")
    run("qemu-img", "snapshot", "-c", "before", tmp_path / "snap.qcow2")
    assert looked_at(tmp_path / "snap.qcow2").disks[0].facts.snapshots == ("before",)
    assert root_of(tmp_path / "snap.qcow2").startswith("blake3:")
    encrypted(tmp_path / "luks.qcow2")
    with pytest.raises(RefusedError) as caught:
        root_of(tmp_path / "luks.qcow2")
    assert caught.value.kind == "image-encrypted"


def test_a_vmdk_that_names_a_file_elsewhere_is_an_escape(tmp_path: Path) -> None:
    text = '# Disk DescriptorFile\nversion=1\ncreateType="monolithicFlat"\nRW 8 FLAT "/etc/passwd" 0\n'
    (tmp_path / "x.vmdk").write_text(text)
    with pytest.raises(IntegrityError) as caught:
        root_of(tmp_path / "x.vmdk")
    assert caught.value.kind == "image-escape"


def test_a_part_that_is_a_link_to_another_file_is_an_escape(disks: Path, tmp_path: Path) -> None:
    for path in disks.glob("disk.split*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert root_of(tmp_path / "disk.split.vmdk") == root_of(disks / "disk.raw")
    part = next(path for path in tmp_path.iterdir() if path.name != "disk.split.vmdk")
    part.rename(tmp_path / "elsewhere")
    part.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IntegrityError) as caught:
        root_of(tmp_path / "disk.split.vmdk")
    assert caught.value.kind == "image-escape"


def test_a_raw_disk_with_a_header_that_its_guest_wrote_stays_a_raw_disk(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET * 50_000)
    trick = overlay(tmp_path / "trick.img", str(secret))
    with pytest.raises(UsageError) as caught:
        root_of(trick)
    assert caught.value.kind == "format-unclear"
    plain = tmp_path / "plain.img"
    plain.write_bytes(trick.read_bytes())
    assert root_of(trick, Format.RAW) == root_of(plain, Format.RAW)
    with QemuImages().open(ImageFiles(trick, Format.RAW)) as image:
        (seen,) = image.each([(0, 4096)], bytes)
    assert seen == trick.read_bytes()[:4096]


# -- images that are damaged, or no images -------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["qcow2", "zlib.qcow2", "vmdk", "stream.vmdk", "vdi", "vhd", "vhdx"])
def test_a_damaged_image_is_an_error_or_read_as_qemu_reads_it(
    disks: Path, tmp_path: Path, suffix: str
) -> None:
    whole = (disks / f"disk.{suffix}").read_bytes()
    image = tmp_path / f"bad.{suffix.rpartition('.')[2]}"
    for seed in range(12):
        chance = random.Random(seed)
        content = bytearray(whole[: chance.randrange(len(whole))] if seed % 3 == 0 else whole)
        for _ in range(chance.choice([1, 8])):
            if content:
                content[chance.randrange(min(len(content), 70_000))] ^= 1 << chance.randrange(8)
        image.write_bytes(content)
        try:
            found = root_of(image)
        except KororaError as error:
            assert error.message
            continue
        again = tmp_path / "again.raw"
        form = looked_at(image).disks[0].facts.format
        run("qemu-img", "convert", "-f", form, "-O", "raw", image, again)
        assert root_of(again, Format.RAW) == found


def test_an_image_that_claims_exabytes_is_no_work(tmp_path: Path) -> None:
    with (tmp_path / "huge.raw").open("wb") as file:
        file.truncate(1 << 43)
    assert root_of(tmp_path / "huge.raw").startswith("blake3:")
    run("qemu-img", "create", "-q", "-f", "qcow2", tmp_path / "huge.qcow2", "2P")
    with pytest.raises(RefusedError, match="PiB"):
        root_of(tmp_path / "huge.qcow2")
    run("qemu-img", "create", "-q", "-f", "qcow2", tmp_path / "x.qcow2", "8M")
    content = bytearray((tmp_path / "x.qcow2").read_bytes())
    content[24:32] = (1 << 62).to_bytes(8, "big")
    (tmp_path / "x.qcow2").write_bytes(content)
    with pytest.raises(KororaError):
        root_of(tmp_path / "x.qcow2")


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.raw")
    for path in (tmp_path / "pipe.raw", tmp_path, tmp_path / "nothing.raw", Path("/dev/null")):
        with pytest.raises(UsageError) as caught:
            root_of(path, Format.RAW)
        assert caught.value.kind == "no-image"
    (tmp_path / "empty.raw").touch()
    assert root_of(tmp_path / "empty.raw").startswith("blake3:")


def test_an_image_that_a_vm_has_open_is_not_read(tmp_path: Path) -> None:
    image = tmp_path / "used.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", image, "8M")
    command = ["qemu-nbd", "-f", "qcow2", "-k", str(tmp_path / "socket"), "--persistent", str(image)]
    holder = subprocess.Popen(command)
    try:
        while not (tmp_path / "socket").exists():
            assert holder.poll() is None
        with pytest.raises(ToolError) as caught:
            root_of(image)
        assert caught.value.kind == "image-in-use"
    finally:
        holder.kill()
        holder.wait()


# -- broken off, and changed meanwhile -----------------------------------------------------------------------


class _StopError(Exception):
    pass


def broken_off(image: Path, state: Path) -> None:
    def stop(progress: object) -> None:
        if getattr(progress, "count", 0) >= 4:
            raise _StopError

    with pytest.raises(_StopError):
        digested(looked_at(image), stop, state)


def test_a_digest_that_is_broken_off_goes_on_to_the_same_root(disks: Path, tmp_path: Path) -> None:
    state, image = tmp_path / "state", disks / "disk.qcow2"
    broken_off(image, state)
    assert json.loads(state.read_text())["count"] == 4
    counts: list[int] = []
    record = digested(looked_at(image), lambda progress: counts.append(progress.count), state)
    assert (record.root, min(counts) > 4, state.exists()) == (root_of(image), True, False)


def test_what_was_put_aside_of_another_state_is_not_used_and_nonsense_is_an_error(
    disks: Path, tmp_path: Path
) -> None:
    state, image = tmp_path / "state", tmp_path / "disk.raw"
    image.write_bytes((disks / "disk.raw").read_bytes())
    broken_off(image, state)
    content = bytearray(image.read_bytes())
    content[5] ^= 1
    image.write_bytes(content)
    assert digested(looked_at(image), quiet, state).root == root_of(image)
    state.write_text("{}")
    with pytest.raises(UsageError, match="put aside"):
        digested(looked_at(image), quiet, state)


def test_an_image_that_is_written_meanwhile_has_no_digest(disks: Path, tmp_path: Path) -> None:
    image = tmp_path / "disk.raw"
    image.write_bytes((disks / "disk.raw").read_bytes())

    def write(_: object) -> None:
        with image.open("r+b") as file:
            file.write(b"changed")

    with pytest.raises(RefusedError) as caught:
        digested(looked_at(image), write)
    assert caught.value.kind == "image-changed"


def test_the_sandbox_shows_no_other_file_and_no_network(tmp_path: Path) -> None:
    (tmp_path / "shown").write_text("shown")
    script = (
        "cat /shown; ls /etc /root /home 2>&1; cat /proc/net/dev /sys/class/net/* 2>&1; touch /shown 2>&1"
    )
    with tempfile.TemporaryFile() as output:
        process = Sandbox({"/shown": tmp_path / "shown"}).start(["sh", "-c", script], output)
        process.communicate(timeout=60)
        output.seek(0)
        told = output.read().decode()
    assert told.startswith("shown")
    assert "cannot access '/etc'" in told
    assert "Read-only file system" in told
    assert "eth" not in told
