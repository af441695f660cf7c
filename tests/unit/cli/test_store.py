"""`korora store`: by exit code and JSON, on real images."""

from __future__ import annotations

import json
import random
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fakes.disk_images import MIB, converted
from korora.adapters.store.store import FolderStore
from korora.cli.main import answer
from korora.model.stored import Bounds, TenantName
from korora.protocol.dedup.names import name_of

NOISE = random.Random(11).randbytes(3 * MIB)
CONTENT = NOISE[: 2 * MIB] + bytes(6 * MIB) + NOISE[2 * MIB :] + b"end" + bytes(509)
PARTS = 3 + 3 * 256 + 1  # chunks, units, and the last one, which is both


class Command:
    """`korora store`, as a script calls it."""

    def __init__(self, printed: pytest.CaptureFixture[str], folder: Path) -> None:
        self._printed = printed
        self.folder = folder / "store"
        self.image = folder / "disk.raw"
        self.image.write_bytes(CONTENT)

    def run(self, *words: str | Path) -> tuple[int, str]:
        code = answer(["store", *map(str, words), "--store", str(self.folder)])
        told = self._printed.readouterr()
        return code, told.out + told.err

    def answered(self, *words: str | Path) -> tuple[int, Any]:
        code = answer(["store", *map(str, words), "--store", str(self.folder), "--json"])
        return code, json.loads(self._printed.readouterr().out)

    def holds(self, part: bytes, tenant: str | None = "one") -> bool:
        with (
            closing(FolderStore(self.folder, Bounds(1 << 30, 1 << 20))) as store,
            store.pins(None if tenant is None else TenantName(tenant), 1 << 30) as pins,
        ):
            return pins.pin([name_of(part)]) == [True]


@pytest.fixture
def store(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    return Command(capsys, tmp_path)


def test_an_image_is_referred_to_and_nothing_is_copied(store: Command) -> None:
    code, told = store.answered("add", store.image, "--tenant", "one")
    assert (code, told["entries"], told["size"], told["complete"]) == (0, PARTS, 0, True)
    assert (told["scope"], told["image"]) == ("tenant-one", str(store.image))
    assert all(store.holds(part) for part in (NOISE[:MIB], NOISE[8192:12288], b"end" + bytes(509)))
    assert not store.holds(NOISE[:MIB], "two")
    code, told = store.answered("list")
    [origin] = told["origins"]
    assert (origin["kind"], origin["path"], origin["number"]) == ("reference", str(store.image), 1)


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_what_a_guest_sees_is_kept_and_outlives_the_image(store: Command, form: str) -> None:
    image = store.image if form == "raw" else converted(store.image, "a.qcow2", "qcow2", "-c")
    code, told = store.answered("add", image, "--shared", "--keep")
    assert (code, told["entries"], told["scope"]) == (0, PARTS, "shared")
    assert told["size"] == 3 * MIB + 512
    image.unlink()
    assert all(store.holds(part, None) for part in (NOISE[:MIB], NOISE[8192:12288], b"end" + bytes(509)))
    code, text = store.run("stat")
    assert (code, "shared" in text, "3.0 MiB" in text) == (0, True, True)


def test_the_bytes_of_a_qcow2_are_referred_to_where_they_lie(store: Command) -> None:
    image = converted(store.image, "a.qcow2", "qcow2")
    assert store.run("add", image, "--tenant", "one")[0] == 0
    assert all(store.holds(NOISE[at : at + 4096]) for at in range(0, 3 * MIB, 65536))


def test_verify_tells_a_copy_that_rotted_by_its_exit_code(store: Command) -> None:
    store.answered("add", store.image, "--tenant", "one", "--keep")
    assert store.answered("verify")[1]["sound"] is True
    name = name_of(NOISE[:MIB]).hex()
    (store.folder / "tenant-one" / name[:2] / name).write_bytes(b"rot")
    code, told = store.answered("verify", "--tenant", "one")
    assert (code, told["sound"], told["scopes"][0]["rotted"]) == (5, False, [name])
    assert store.run("verify") == (
        0, "✓ tenant one: 515 parts are sound; 0 changed, 0 files gone, 0 copies rotted\n",
    )  # fmt: skip
    assert store.answered("stat")[1]["scopes"][0]["rotted"] == 1


def test_verify_drops_what_changed_and_calls_that_usual(store: Command) -> None:
    store.answered("add", store.image, "--tenant", "one")
    with store.image.open("r+b") as file:
        file.write(b"guest")
    code, told = store.answered("verify")
    assert (code, told["scopes"][0]["changed"], told["scopes"][0]["gone"]) == (0, 2, 0)
    store.image.unlink()
    code, told = store.answered("verify", "--tenant", "one")
    assert (code, told["scopes"][0]["gone"]) == (0, 1)
    code, told = store.answered("collect")
    assert (code, told["scopes"][0]["leftovers"]) == (0, 0)


def test_what_is_forgotten_is_gone_and_the_image_stays(store: Command) -> None:
    store.answered("add", store.image, "--tenant", "one")
    assert store.run("forget", "1", "--tenant", "one") == (0, "✓ 1 is forgotten\n")
    assert store.image.read_bytes() == CONTENT
    assert not store.holds(NOISE[:MIB])
    code, told = store.answered("forget", "1", "--tenant", "one")
    assert (code, told["error"]["kind"]) == (2, "unknown-origin")


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (["add", "IMAGE"], "usage"),
        (["add", "IMAGE", "--shared", "--tenant", "one"], "usage"),
        (["add", "IMAGE", "--tenant", "../one"], "bad-name"),
        (["add", "IMAGE", "--shared", "--format", "raw"], "usage"),
        (["add", "/nowhere", "--shared"], "no-image"),
        (["add", "/", "--shared"], "no-image"),
        (["add", "/nowhere", "--shared", "--keep"], "no-image"),
        (["stat"], "no-store"),
        (["list"], "no-store"),
        (["verify"], "no-store"),
        (["collect", "--shared"], "no-store"),
    ],
)
def test_mistakes_are_told(store: Command, words: list[str], kind: str) -> None:
    code, told = store.answered(*(word.replace("IMAGE", str(store.image)) for word in words))
    assert (code, told["error"]["kind"]) == (2, kind)
    assert told["error"]["remedy"]


def test_an_image_that_is_not_to_be_trusted_is_not_kept(store: Command) -> None:
    image = converted(store.image, "base.qcow2", "qcow2")
    overlay = image.with_name("overlay.qcow2")
    from fakes.disk_images import qemu_img

    qemu_img("create", "-q", "-f", "qcow2", "-b", str(image), "-F", "qcow2", str(overlay))
    code, told = store.answered("add", overlay, "--shared", "--keep")
    assert (code, told["error"]["kind"]) == (3, "image-refused")


def test_the_store_is_where_the_hosts_configuration_says(
    store: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "hostd.toml"
    file.write_text(
        'name = "a"\nstate = "state"\nlisten = "127.0.0.1:7"\napi = "s"\ntpm = "device:/dev/tpmrm0"\n'
        'event_log = "e"\nauthorization = "a"\n[store]\nfolder = "content"\nentries = 600\n'
        '[site]\nauthority = "a"\nmanufacturers = ["m"]\nreference_values = "r"\n'
    )
    code = answer(["store", "add", str(store.image), "--shared", "--hostd", str(file), "--json"])
    assert (code, json.loads(capsys.readouterr().out)["complete"]) == (0, False)
    assert (tmp_path / "content" / "shared" / "index.db").exists()
    assert answer(["store", "add", str(store.image), "--shared", "--hostd", str(file)]) == 0
    assert "left no room" in capsys.readouterr().err
    assert answer(["store", "stat", "--hostd", str(file), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["store"], told["bounds"]["entries"]) == (str(tmp_path / "content"), 600)
    assert told["scopes"][0]["entries"] <= 600
