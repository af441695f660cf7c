"""`korora disk diff`: through real images, with all that can be wrong with a file, a base or a storage."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from fakes.disk_images import MIB, converted, disk_content, qemu_img, root_of
from korora.adapters.image.writable import WritableExport
from korora.cli.main import answer
from korora.errors import ToolError

BASE = disk_content(16 * MIB)
CHANGED = bytearray(BASE)
CHANGED[:4096] = bytes(4096)
CHANGED[4 * MIB + 3] ^= 1
CHANGED[9 * MIB : 9 * MIB + 200_000] = disk_content(MIB, seed=5)[:200_000]
CHANGED[-4096:] = bytes(4096)
RESULT = bytes(CHANGED)


def pem(key: Any) -> tuple[bytes, bytes]:
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


class Command:
    """`korora disk diff`, as a script calls it, in a folder with a base, a result and a key."""

    def __init__(self, printed: pytest.CaptureFixture[str], folder: Path) -> None:
        self._printed = printed
        self.folder = folder
        self.base, self.result = folder / "base.raw", folder / "result.raw"
        self.base.write_bytes(BASE)
        self.result.write_bytes(RESULT)
        private, public = pem(ed25519.Ed25519PrivateKey.from_private_bytes(bytes([7] * 32)))
        self.key, self.signer = folder / "alice.pem", folder / "alice.pub"
        self.key.write_bytes(private)
        self.signer.write_bytes(public)
        self.diff = folder / "change.diff"

    def run(self, *words: str | Path) -> tuple[int, str]:
        code = answer(["disk", "diff", *map(str, words)])
        told = self._printed.readouterr()
        return code, told.out + told.err

    def answered(self, *words: str | Path) -> tuple[int, Any]:
        code = answer(["disk", "diff", *map(str, words), "--json"])
        return code, json.loads(self._printed.readouterr().out)

    def failed(self, *words: str | Path) -> tuple[int, str]:
        code, told = self.answered(*words)
        return code, told["error"]["kind"]

    def made(self, *words: str | Path) -> Path:
        code, told = self.answered(
            "make", *(words or (self.base, self.result)), "-o", self.diff, "--key", self.key
        )
        assert code == 0, told
        return self.diff

    def apply(self, *words: str | Path) -> tuple[str | Path, ...]:
        return ("apply", self.diff, *words, "--signer", self.signer)

    def there(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()}


@pytest.fixture
def disk(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    return Command(capsys, tmp_path)


def test_a_diff_is_made_verified_and_applied(disk: Command, tmp_path: Path) -> None:
    code, made = disk.answered("make", disk.base, disk.result, "-o", disk.diff, "--key", disk.key)
    assert code == 0
    assert made["bytes"] == disk.diff.stat().st_size < 220_000
    assert (made["base"]["root"], made["result"]["root"]) == (root_of(BASE), root_of(RESULT))
    assert made["by"] == "alice"
    code, told = disk.answered("verify", disk.diff, "--signer", disk.signer, "--base", disk.base)
    assert (code, told["base_fits"], told["result"]["size"]) == (0, True, 16 * MIB)
    code, told = disk.answered(*disk.apply(disk.base, "-o", tmp_path / "out.raw"))
    assert (code, told["image"], told["in_place"]) == (0, str(tmp_path / "out.raw"), False)
    assert (tmp_path / "out.raw").read_bytes() == RESULT
    assert disk.base.read_bytes() == BASE
    assert not {name for name in disk.there() if "partial" in name or name.endswith(".korora-diff")}


@pytest.mark.parametrize(
    ("source", "output"), [("qcow2", "out.qcow2"), ("vmdk", "out.raw"), ("vdi", "o.raw")]
)
def test_formats_do_not_matter(source: str, output: str, disk: Command, tmp_path: Path) -> None:
    base = converted(disk.base, f"b.{source}", source)
    disk.made(base, disk.result)
    other = converted(disk.base, "other.qcow2", "qcow2")
    assert disk.run(*disk.apply(other, "-o", tmp_path / output))[0] == 0
    assert answer(["image", "verify", str(tmp_path / output), root_of(RESULT)]) == 0


def test_what_is_zeros_keeps_no_room(disk: Command, tmp_path: Path) -> None:
    sparse = tmp_path / "sparse.qcow2"
    qemu_img("create", "-f", "qcow2", sparse, "1T")
    disk.made(disk.base, sparse)
    assert disk.diff.stat().st_size < 10_000
    for output in ("out.raw", "out.qcow2"):
        assert disk.run(*disk.apply(disk.base, "-o", tmp_path / output))[0] == 0
        assert (tmp_path / output).stat().st_blocks * 512 < 2 * MIB


def test_leaves_of_an_earlier_visit_do_as_well_as_the_base(disk: Command, tmp_path: Path) -> None:
    code, told = disk.answered("leaves", disk.base, "-o", tmp_path / "leaves")
    assert (code, told["size"], told["root"]) == (0, 16 * MIB, root_of(BASE))
    disk.made(disk.result, "--leaves", tmp_path / "leaves")
    assert disk.run(*disk.apply(disk.base, "-o", tmp_path / "out.raw"))[0] == 0
    assert (tmp_path / "out.raw").read_bytes() == RESULT
    words = ("make", disk.result, "--leaves", tmp_path / "leaves", "-o", tmp_path / "x", "--key", disk.key)
    assert disk.failed(*words, "--base-size", "5") == (2, "bad-leaves")
    for wrong in (tmp_path / "none", disk.base, tmp_path):
        words = ("make", disk.result, "--leaves", wrong, "-o", tmp_path / "x", "--key", disk.key)
        assert disk.failed(*words) == (2, "bad-leaves")
    assert "x" not in disk.there()


# -- refused, and nothing left -----------------------------------------------------------------------------


def test_on_another_base_nothing_is_written(disk: Command, tmp_path: Path) -> None:
    disk.made()
    other = tmp_path / "other.raw"
    other.write_bytes(BASE[:-1] + bytes([BASE[-1] ^ 1]))
    before = disk.there()
    for words in (("-o", tmp_path / "out.raw"), ("--in-place",)):
        assert disk.failed(*disk.apply(other, *words)) == (5, "wrong-base")
    assert disk.failed("verify", disk.diff, "--signer", disk.signer, "--base", other) == (5, "wrong-base")
    shorter = tmp_path / "shorter.raw"
    shorter.write_bytes(BASE[:-512])
    assert disk.failed(*disk.apply(shorter, "-o", tmp_path / "out.raw")) == (5, "wrong-base")
    assert other.read_bytes() == BASE[:-1] + bytes([BASE[-1] ^ 1])
    assert disk.there() == before | {"shorter.raw"}


def damaged(file: bytes) -> Iterator[tuple[str, bytes]]:
    yield "cut short", file[:-1]
    yield "cut in a record", file[:9000]
    yield "its head alone", file[:8192]
    yield "nothing", b""
    yield "longer", file + b"\0"
    for at in (3, 100, 8192, 8200, 9000, len(file) - 1):
        yield f"bit {at}", file[:at] + bytes([file[at] ^ 1]) + file[at + 1 :]
    yield "another file", BASE[:20_000]
    yield "unfinished", bytes(8192) + file[8192:]


def test_a_damaged_diff_is_seen_before_anything_is_written(disk: Command, tmp_path: Path) -> None:
    good = disk.made().read_bytes()
    before = disk.there()
    for what, file in damaged(good):
        disk.diff.write_bytes(file)
        for words in (
            ("verify", disk.diff, "--signer", disk.signer),
            disk.apply(disk.base, "-o", tmp_path / "out.raw"),
            disk.apply(disk.base, "--in-place"),
        ):
            code, kind = disk.failed(*words)
            assert (code, kind in {"bad-diff", "signature", "malformed-statement"}) == (5, True), (what, kind)
        assert disk.there() == before
    assert disk.base.read_bytes() == BASE


def test_a_diff_of_a_stranger_is_refused(disk: Command, tmp_path: Path) -> None:
    disk.made()
    (tmp_path / "other.pub").write_bytes(pem(ec.generate_private_key(ec.SECP256R1()))[1])
    assert disk.failed("verify", disk.diff, "--signer", tmp_path / "other.pub") == (5, "signature")
    both = ("verify", disk.diff, "--signer", tmp_path / "other.pub", "--signer", disk.signer)
    assert disk.run(*both)[0] == 0
    assert disk.failed("verify", disk.diff, "--signer", disk.base) == (2, "bad-key")
    assert disk.failed("verify", disk.diff, "--signer", tmp_path / "none") == (2, "unreadable-file")


def test_a_site_says_who_signs_and_whose_diffs_are_taken(
    disk: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "korora.toml"
    site.write_text('[operator]\nname = "carol"\nkey = "alice.pem"\n')
    monkeypatch.setenv("KORORA_CONFIG", str(site))
    assert disk.run("make", disk.base, disk.result, "-o", disk.diff)[0] == 0
    code, told = disk.answered("verify", disk.diff)
    assert (code, told["by"]) == (0, "carol")
    site.write_text("")
    assert disk.failed("verify", disk.diff) == (2, "no-anchor")
    assert disk.failed("make", disk.base, disk.result, "-o", tmp_path / "x") == (2, "no-operator")


def test_no_file_is_written_over(disk: Command, tmp_path: Path) -> None:
    disk.made()
    words = ("make", disk.base, disk.result, "-o", disk.diff, "--key", disk.key)
    assert disk.failed(*words) == (2, "exists")
    assert disk.failed(*disk.apply(disk.base, "-o", disk.result)) == (2, "exists")
    (tmp_path / "out.raw.partial").touch()
    assert disk.failed(*disk.apply(disk.base, "-o", tmp_path / "out.raw")) == (2, "exists")
    assert disk.result.read_bytes() == RESULT


@pytest.mark.parametrize("words", [(), ("-o", "x", "--in-place")])
def test_it_is_said_where_the_result_goes(words: tuple[str, ...], disk: Command) -> None:
    disk.made()
    assert disk.failed(*disk.apply(disk.base, *words)) == (2, "usage")


def test_images_that_open_other_files_and_formats_that_are_not_written_are_refused(
    disk: Command, tmp_path: Path
) -> None:
    disk.made()
    top = tmp_path / "top.qcow2"
    qemu_img("create", "-f", "qcow2", "-b", "base.raw", "-F", "raw", top)
    assert disk.failed(*disk.apply(top, "-o", tmp_path / "out.raw")) == (3, "image-refused")
    assert disk.run(*disk.apply(top, "-o", tmp_path / "out.raw", "--allow", disk.base))[0] == 0
    vmdk = converted(disk.base, "b.vmdk", "vmdk")
    assert disk.failed(*disk.apply(vmdk, "--in-place")) == (2, "unwritable-format")
    words = disk.apply(disk.base, "-o", tmp_path / "o", "--output-format", "vdi")
    assert disk.failed(*words) == (2, "unwritable-format")
    assert not {"o", "o.partial"} & disk.there()


def test_a_disk_of_another_size_is_made_anew_and_not_in_place(disk: Command, tmp_path: Path) -> None:
    grown = tmp_path / "grown.raw"
    grown.write_bytes(RESULT + b"more".ljust(3 * MIB + 512, b"\0"))
    disk.made(disk.base, grown)
    assert disk.failed(*disk.apply(disk.base, "--in-place")) == (2, "size-changes")
    assert disk.run(*disk.apply(disk.base, "-o", tmp_path / "out.raw"))[0] == 0
    assert (tmp_path / "out.raw").read_bytes() == grown.read_bytes()


def test_what_was_not_written_as_it_should_be_is_never_called_well(
    disk: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.made()
    put = WritableExport.put

    def wrong(self: WritableExport, offset: int, data: bytes) -> None:
        put(self, offset, data[:-1] + bytes([data[-1] ^ 1]))

    monkeypatch.setattr(WritableExport, "put", wrong)
    before = disk.there()
    assert disk.failed(*disk.apply(disk.base, "-o", tmp_path / "out.raw")) == (5, "wrong-result")
    assert disk.there() == before


# -- a storage that is full --------------------------------------------------------------------------------


@contextmanager
def small(folder: Path, megabytes: int) -> Iterator[Path]:
    """A file system with so much room."""
    place = folder / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a file system of its own needs root")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("name", ["out.raw", "out.qcow2"])
def test_a_full_disk_leaves_nothing(name: str, disk: Command, tmp_path: Path) -> None:
    full = tmp_path / "full.raw"
    full.write_bytes(os.urandom(12 * MIB))
    disk.made(disk.base, full)
    with small(tmp_path, 8) as place:
        assert disk.failed(*disk.apply(disk.base, "-o", place / name)) == (6, "image-full")
        assert list(place.iterdir()) == []
        words = ("make", disk.base, full, "-o", place / "x", "--key", disk.key)
        assert disk.failed(*words) == (6, "output")
        assert list(place.iterdir()) == []


def test_a_full_disk_in_place_is_finished_when_there_is_room(disk: Command, tmp_path: Path) -> None:
    full = tmp_path / "full.raw"
    full.write_bytes(os.urandom(16 * MIB))
    disk.made(disk.base, full)
    with small(tmp_path, 8) as place:
        image = place / "disk.qcow2"
        converted(disk.base, "b.qcow2", "qcow2").rename(tmp_path / "moved")
        image.write_bytes((tmp_path / "moved").read_bytes())
        code, text = disk.run(*disk.apply(image, "--in-place"))
        assert code == 6
        assert f"finish it by the same command: korora disk diff apply {disk.diff} {image} --in-place" in text
        subprocess.run(["mount", "-o", "remount,size=64m", str(place)], check=True)
        code, told = disk.answered(*disk.apply(image, "--in-place"))
        assert (code, told.get("resumed")) == (0, True), told
        assert answer(["image", "verify", str(image), root_of(full.read_bytes())]) == 0
        assert list(place.iterdir()) == [image]


# -- in place ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["raw", "qcow2"])
def test_in_place_the_image_becomes_the_result_once(which: str, disk: Command) -> None:
    disk.made()
    image = disk.base if which == "raw" else converted(disk.base, "b.qcow2", "qcow2")
    code, told = disk.answered(*disk.apply(image, "--in-place"))
    assert (code, told["in_place"], told["already"]) == (0, True, False)
    assert answer(["image", "verify", str(image), root_of(RESULT)]) == 0
    disk.run()
    code, told = disk.answered(*disk.apply(image, "--in-place"))
    assert (code, told["already"]) == (0, True)
    assert not [name for name in disk.there() if name.endswith(".korora-diff")]


def test_what_is_broken_off_in_place_is_between_two_contents_until_it_is_finished(
    disk: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = disk.made().rename(tmp_path / "first.diff")
    other = disk.made(disk.result, disk.base)
    put, calls = WritableExport.put, iter(range(100))

    def failing(self: WritableExport, offset: int, data: bytes) -> None:
        if next(calls) == 1:
            raise ToolError("the storage is gone", kind="unwritable")
        put(self, offset, data)

    monkeypatch.setattr(WritableExport, "put", failing)
    words = ("apply", first, disk.base, "--signer", disk.signer, "--in-place")
    code, text = disk.run(*words)
    assert code == 6
    assert f"finish it by the same command: korora disk diff apply {first} {disk.base} --in-place" in text
    monkeypatch.undo()
    for refused in (
        ("apply", other, disk.base, "--signer", disk.signer, "--in-place"),
        ("apply", first, disk.base, "--signer", disk.signer, "-o", tmp_path / "x"),
        ("make", disk.base, disk.result, "-o", tmp_path / "x", "--key", disk.key),
        ("leaves", disk.base, "-o", tmp_path / "x"),
        ("verify", first, "--signer", disk.signer, "--base", disk.base),
    ):
        assert disk.failed(*refused) == (3, "unfinished-apply"), refused
    assert "x" not in disk.there()
    code, told = disk.answered(*words)
    assert (code, told["resumed"]) == (0, True)
    assert disk.base.read_bytes() == RESULT


def test_an_image_that_somebody_wrote_to_in_between_is_not_called_well(
    disk: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.made()

    def failing(self: WritableExport, offset: int, data: bytes) -> None:
        raise ToolError("the storage is gone", kind="unwritable")

    monkeypatch.setattr(WritableExport, "put", failing)
    assert disk.failed(*disk.apply(disk.base, "--in-place")) == (6, "unwritable")
    monkeypatch.undo()
    with disk.base.open("r+b") as file:
        file.seek(7 * MIB)
        file.write(b"written by a guest")
    code, text = disk.run(*disk.apply(disk.base, "--in-place"))
    assert (code, "have the image back from a copy" in text) == (5, True)
    assert "base.raw.korora-diff" in disk.there()


def test_a_journal_that_cannot_be_read_stops_everything(disk: Command, tmp_path: Path) -> None:
    disk.made()
    (tmp_path / "base.raw.korora-diff").write_text("?")
    assert disk.failed(*disk.apply(disk.base, "--in-place")) == (5, "bad-journal")
    assert disk.base.read_bytes() == BASE


PROGRAM = "import sys; from korora.cli.main import run; run(sys.argv[1:])"


@pytest.mark.parametrize("which", ["raw", "qcow2"])
@pytest.mark.parametrize("after_s", [0.0, 0.01, 0.03, 0.1])
def test_a_process_that_is_killed_can_be_finished(
    which: str, after_s: float, disk: Command, tmp_path: Path
) -> None:
    large, changed = tmp_path / "large.raw", tmp_path / "changed.raw"
    content = os.urandom(MIB)
    large.write_bytes(content * 96)
    changed.write_bytes(content[::-1] * 96)
    disk.made(large, changed)
    image = large if which == "raw" else converted(large, "large.qcow2", "qcow2")
    words = [sys.executable, "-c", PROGRAM, "disk", "diff", *map(str, disk.apply(image, "--in-place"))]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        journal = image.with_name(image.name + ".korora-diff")
        while not journal.exists() and process.poll() is None:
            time.sleep(0.001)
        time.sleep(after_s)
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 60
    while True:  # what it started goes with it, and its lock
        code, told = disk.answered(*disk.apply(image, "--in-place"))
        if code == 0 or told["error"]["kind"] != "image-in-use" or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    assert code == 0, told
    assert told["resumed"] or told["already"]
    assert answer(["image", "verify", str(image), root_of(changed.read_bytes())]) == 0
    assert not journal.exists()
