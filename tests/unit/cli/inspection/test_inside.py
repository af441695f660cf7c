"""`korora scan` and `indicators match` with --image: inside a disk is found what is found outside."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

from fakes.scanner import eicar
from korora.cli.main import answer
from korora.wiring import scanning

Captured = pytest.CaptureFixture[str]
MIB: Final = 1 << 20
CLAMAVS: Final = Path("/usr/share/clamav-testfiles")
BAD_NAME: Final = b"bad\xffname\n\x1b[31m"
URL: Final = "http://mal.example/x"


def run(*command: str | Path) -> None:
    subprocess.run([*map(str, command)], check=True, capture_output=True, timeout=120)


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Korora's own signatures, whatever this machine has."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(scanning, "SYSTEM_SOCKET", tmp_path / "no-clamd")
    monkeypatch.setattr(scanning, "SYSTEM_SIGNATURES", tmp_path / "no-signatures")


def tree(folder: Path) -> Path:
    root = folder / "tree"
    root.mkdir()
    return root


def blank(folder: Path, mebibytes: int) -> Path:
    image = folder / "disk.img"
    with image.open("wb") as file:
        file.truncate(mebibytes * MIB)
    return image


def ext4(root: Path, mebibytes: int = 64) -> Path:
    image = blank(root.parent, mebibytes)
    run("mkfs.ext4", "-q", "-d", root, image)
    return image


def fat(root: Path) -> Path:
    image = blank(root.parent, 64)
    run("mkfs.vfat", image)
    run("mcopy", "-i", image, *sorted(root.iterdir()), "::")
    return image


def ntfs(root: Path) -> Path:
    image = blank(root.parent, 64)
    run("mkntfs", "-q", "-F", "-f", image)
    for path in sorted(root.iterdir()):
        run("ntfscp", image, path, "/" + path.name)
    return image


def told(capsys: Captured, *words: str | Path) -> tuple[int, Any]:
    code = answer([*map(str, words), "--json"])
    return code, json.loads(capsys.readouterr().out.splitlines()[0])


def said(scanned: Any) -> dict[str, tuple[str, Any]]:
    """By the path below the tree or the volume's root."""
    return {
        one["path"].rpartition("/")[2] if "!/" not in one["path"] else one["path"].partition("/clam")[2]: (
            one["verdict"],
            one["answers"],
        )
        for one in scanned["examined"]
    }


@pytest.mark.parametrize("make", [ext4, fat, ntfs])
def test_clamavs_own_test_files_are_told_inside_as_outside(
    tmp_path: Path, capsys: Captured, make: Any
) -> None:
    root = tree(tmp_path)
    for path in CLAMAVS.iterdir():
        shutil.copy(path, root)
    (root / "clam-eicar.com").write_bytes(eicar())
    (root / "clean").write_bytes(b"nothing to see here\n" * MIB)
    outside_code, outside = told(capsys, "scan", root)
    code, inside = told(capsys, "scan", "--image", make(root))
    assert (code, outside_code) == (5, 5)
    assert inside["unread"] == []
    assert inside["verdicts"]["infected"] > 40
    assert said(inside) == said(outside)
    if make is not ntfs:  # which has files of its own
        assert (inside["files"], inside["bytes"]) == (outside["files"], outside["bytes"])
        assert inside["verdicts"] == outside["verdicts"]


def test_malware_in_a_named_stream_is_found_and_packed_content_is_unknown(
    tmp_path: Path, capsys: Captured
) -> None:
    root = tree(tmp_path)
    for name in ("a", "b"):
        (root / name).write_bytes(b"nothing to see here\n")
    image = ntfs(root)
    (tmp_path / "eicar").write_bytes(eicar())
    run("ntfscp", "-N", "hidden", image, tmp_path / "eicar", "/a")
    run("ntfscp", "-N", "WofCompressedData", image, root / "a", "/b")
    code, inside = told(capsys, "scan", "--image", image, "--paths", "/[ab]*")
    assert code == 5
    assert {one["path"]: one["verdict"] for one in inside["examined"]} == {
        "volume 1: /a:hidden": "infected",
        "volume 1: /b": "unknown",
    }


def test_names_have_their_volume_and_their_place(tmp_path: Path, capsys: Captured) -> None:
    root = tree(tmp_path)
    (root / "var").mkdir()
    (root / "var/eicar").write_bytes(eicar())
    image = ext4(root)
    converted = tmp_path / "disk.qcow2"
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", image, converted)
    for path in (image, converted):
        code, inside = told(capsys, "scan", "--image", path)
        assert (code, [one["path"] for one in inside["examined"]]) == (5, ["volume 1: /var/eicar"])


def test_hostile_names_are_told_and_cannot_write_on_the_terminal(tmp_path: Path, capsys: Captured) -> None:
    root = tree(tmp_path)
    Path(os.fsdecode(os.fsencode(root) + b"/" + BAD_NAME)).write_bytes(eicar())
    image = ext4(root)
    assert answer(["scan", "--image", str(image)]) == 5
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert "volume 1: /bad\\xffname\\n" in text


def test_clean_files_inside_are_0(tmp_path: Path, capsys: Captured) -> None:
    root = tree(tmp_path)
    (root / "a").write_bytes(b"nothing to see here\n")
    code, inside = told(capsys, "scan", "--image", ext4(root))
    assert (code, inside["verdicts"]["clean"], inside["files"], inside["unread"]) == (0, 1, 1, [])


def test_patterns_choose_files_and_none_that_fits_is_6(tmp_path: Path, capsys: Captured) -> None:
    root = tree(tmp_path)
    (root / "eicar").write_bytes(eicar())
    (root / "a").write_bytes(b"nothing to see here\n")
    image = ext4(root)
    assert told(capsys, "scan", "--image", image, "--paths", "/a")[0] == 0
    assert told(capsys, "scan", "--image", image, "--paths", "/e*")[0] == 5
    code, inside = told(capsys, "scan", "--image", image, "--paths", "/z*")
    assert (code, inside["unread"][0]["where"]) == (6, "the disk")


def unreadable(folder: Path) -> Path:
    """Two partitions: files, and an encrypted one that nobody reads."""
    root = tree(folder)
    (root / "a").write_bytes(b"see evil.example\n")
    files = ext4(root, 32)
    disk = folder / "two.img"
    with disk.open("wb") as file:
        file.truncate(80 * MIB)
    table = "label: gpt\nstart=2048, size=65536\nstart=69632, size=32768\n"
    subprocess.run(
        ["sfdisk", "-q", disk], input=table, check=True, text=True, capture_output=True, timeout=60
    )
    with disk.open("r+b") as file:
        file.seek(2048 * 512)
        file.write(files.read_bytes())
        file.seek(69632 * 512)
        file.write(b"LUKS\xba\xbe")
    return disk


def test_a_volume_that_nobody_reads_is_6_though_all_files_are_clean(tmp_path: Path, capsys: Captured) -> None:
    disk = unreadable(tmp_path)
    code, inside = told(capsys, "scan", "--image", disk)
    assert (code, inside["verdicts"]["clean"], inside["verdicts"]["unknown"]) == (6, 1, 0)
    assert inside["unread"] == [{"where": "volume 2 (luks)", "problem": "it is encrypted"}]
    assert answer(["scan", "--image", str(disk)]) == 6
    assert "? unknown: volume 2 (luks): it is encrypted" in capsys.readouterr().out


def test_a_file_that_breaks_off_is_6_and_what_was_read_of_it_is_not_clean(
    tmp_path: Path, capsys: Captured
) -> None:
    root = tree(tmp_path)
    with (root / "a").open("wb") as file:
        file.write(b"nothing to see here\n" * 100_000)
        file.seek(8 * MIB)
        file.write(b"nothing to see here\n" * 100_000)
    image = ext4(root)
    # Its second extent begins behind the end of the disk.
    run("debugfs", "-w", "-R", "set_inode_field /a block[8] 0x7fffffff", image)
    code, inside = told(capsys, "scan", "--image", image)
    assert (code, inside["verdicts"]["clean"], inside["verdicts"]["unknown"]) == (6, 0, 1)
    [examined] = inside["examined"]
    assert examined["path"] == "volume 1: /a"
    assert 0 < examined["bytes"] <= 8 * MIB
    assert all("the file could not be read" in one["words"] for one in examined["answers"])
    store = imported(tmp_path, "evil.example\n")
    capsys.readouterr()
    code, inside = told(capsys, "indicators", "match", "--image", image, "--store", store)
    assert (code, inside["unknown"], [one["path"] for one in inside["examined"]]) == (6, 1, ["volume 1: /a"])


def test_files_outside_and_an_image_are_not_mixed(tmp_path: Path, capsys: Captured) -> None:
    image = ext4(tree(tmp_path))
    for words in (["scan", image, "--image", image], ["scan"]):
        assert answer([*map(str, words)]) == 2
    store = imported(tmp_path, "evil.example\n")
    for more in ([tmp_path], ["--memory", image]):
        assert answer(["indicators", "match", *map(str, more), "--image", str(image), "--store", store]) == 2
    capsys.readouterr()


def test_an_image_that_would_open_other_files_is_not_read(tmp_path: Path, capsys: Captured) -> None:
    root = tree(tmp_path)
    (root / "eicar").write_bytes(eicar())
    base, image = ext4(root), tmp_path / "overlay.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", image)
    assert answer(["scan", "--image", str(image)]) == 3
    assert "disk.img" in capsys.readouterr().err
    assert answer(["scan", "--image", str(image), "--allow", str(base)]) == 5


# -- indicators ----------------------------------------------------------------------------------------------


def imported(folder: Path, text: str) -> str:
    (folder / "list.txt").write_text(text)
    store = str(folder / "indicators.db")
    assert answer(["indicators", "import", str(folder / "list.txt"), "--store", store]) == 0
    return store


@pytest.mark.parametrize("make", [ext4, fat, ntfs])
def test_indicators_are_found_inside_as_outside(tmp_path: Path, capsys: Captured, make: Any) -> None:
    root = tree(tmp_path)
    bad = os.urandom(3 * MIB + 7)
    (root / "log").write_bytes(b"x" * (MIB - 4) + f" GET {URL} 200\n".encode())  # over a piece's border
    (root / "wide").write_bytes("see evil.example".encode("utf-16-le"))
    (root / "bad").write_bytes(bad)
    (root / "address").write_bytes(b"to 9.9.9.9 port 53")
    (root / "fine").write_bytes(b"notevil.example")
    store = imported(tmp_path, f"{URL}\nevil.example\n{hashlib.sha256(bad).hexdigest()}\n9.9.9.9\n")
    capsys.readouterr()
    outside_code, outside = told(capsys, "indicators", "match", root, "--store", store)
    code, inside = told(capsys, "indicators", "match", "--image", make(root), "--store", store)
    assert (code, outside_code) == (3, 3)
    assert inside["unknown"] == 0
    assert outside["matched"] == 4

    def hits(one: Any) -> dict[str, Any]:
        """By name; not those of NTFS's own $MFT, in which small files stand as well."""
        found = {each["path"].rpartition("/")[2]: each["matches"] for each in one["examined"]}
        return {name: matches for name, matches in found.items() if not name.startswith("$")}

    assert hits(inside) == hits(outside)
    assert hits(inside)["log"][0]["offset"] == MIB + 1
    assert {each["path"].partition(":")[0] for each in inside["examined"]} == {"volume 1"}


def test_indicators_in_what_nobody_reads_are_unknown(tmp_path: Path, capsys: Captured) -> None:
    disk = unreadable(tmp_path)
    store = imported(tmp_path, "other.example\n")
    capsys.readouterr()
    code, inside = told(capsys, "indicators", "match", "--image", disk, "--store", store)
    assert (code, inside["matched"], inside["unknown"]) == (6, 0, 1)
    assert inside["examined"][0]["path"] == "volume 2 (luks)"
    store = imported(tmp_path, "evil.example\n")
    capsys.readouterr()
    code, inside = told(capsys, "indicators", "match", "--image", disk, "--store", store)
    assert (code, inside["matched"], inside["unknown"]) == (3, 1, 1)
