"""The initrd is built from its inputs, once; and the guest's own checks find damage."""

import shutil
import subprocess
from pathlib import Path

import pytest

from korora.errors import ToolError
from korora.lab.guest import image
from korora.lab.xensploit import GUEST_SECRET

needs_gcc = pytest.mark.skipif(not shutil.which("gcc"), reason="gcc is not installed")


def test_modules_come_behind_what_they_need(tmp_path: Path) -> None:
    (tmp_path / "modules.dep").write_text(
        "k/net.ko: k/failover.ko k/virtio.ko k/ring.ko\nk/failover.ko:\nk/virtio.ko: k/ring.ko\nk/ring.ko:\n"
    )
    names = [path.name for path in image.modules_in_order(tmp_path, ("net", "not-there"))]
    assert names.index("ring.ko") < names.index("virtio.ko") < names.index("net.ko")
    assert sorted(names) == ["failover.ko", "net.ko", "ring.ko", "virtio.ko"]


def test_the_newest_kernel_is_taken_by_number(tmp_path: Path) -> None:
    for name in ("vmlinuz-6.1.0-9-cloud-amd64", "vmlinuz-6.1.0-56-cloud-amd64", "vmlinuz-6.2.0-1-amd64"):
        (tmp_path / name).touch()
    assert image.newest_cloud_kernel(tmp_path).name == "vmlinuz-6.1.0-56-cloud-amd64"


def test_a_missing_kernel_is_an_error_that_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(ToolError) as missing:
        image.newest_cloud_kernel(tmp_path)
    assert "linux-image-cloud-amd64" in missing.value.remedy


@needs_gcc
def test_the_guest_program_finds_flipped_and_stale_pages(tmp_path: Path) -> None:
    program = tmp_path / "korora-guest"
    program.write_bytes(image.compile_guest())
    program.chmod(0o700)
    done = subprocess.run([program, "selftest"], capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stdout) == (0, "selftest: good\n")


@needs_gcc
def test_the_secret_is_not_in_the_program_as_text() -> None:
    # It must be in memory once, on its own page, or an attack on that page would not be seen.
    assert GUEST_SECRET not in image.compile_guest()


@needs_gcc
def test_an_unchanged_image_is_not_built_again(tmp_path: Path) -> None:
    try:
        first = image.guest_image(tmp_path)
    except ToolError as missing:
        pytest.skip(missing.message)
    stamp = first.initrd.stat().st_mtime_ns
    assert image.guest_image(tmp_path) == first
    assert first.initrd.stat().st_mtime_ns == stamp
    assert [path.name for path in tmp_path.iterdir()] == [first.initrd.name]
