"""`korora files` over real disks: digests, baselines, packages, and exit codes."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from korora.cli.main import answer

Captured = pytest.CaptureFixture[str]
DPKG = "var/lib/dpkg/info"


def run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def made(folder: Path, name: str, **files: bytes) -> Path:
    """An ext4 disk with the program `login` of a package in it."""
    root = folder / f"{name}-root"
    login = files.pop("login", b"as packed")
    (root / DPKG).mkdir(parents=True)
    (root / "bin").mkdir()
    (root / "bin/login").write_bytes(login)
    (root / "bin/login").chmod(0o755)
    sums = f"{hashlib.md5(b'as packed', usedforsecurity=False).hexdigest()}  bin/login\n"
    (root / DPKG / "login.md5sums").write_text(sums)
    for path, content in files.items():
        (root / path).write_bytes(content)
    image = folder / f"{name}.img"
    with image.open("wb") as file:
        file.truncate(16 << 20)
    run("mkfs.ext4", "-q", "-d", root, image)
    return image


def told(capsys: Captured) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(capsys.readouterr().out)
    return read


def test_the_digest_is_the_same_in_another_format_and_other_with_another_file(
    tmp_path: Path, capsys: Captured
) -> None:
    image, other = made(tmp_path, "one"), made(tmp_path, "two", note=b"more")
    converted = tmp_path / "one.qcow2"
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", image, converted)
    roots = []
    for path in (image, converted, other):
        assert answer(["files", "digest", str(path), "--json"]) == 0
        said = told(capsys)
        assert said["complete"] is True
        assert said["packages"] == {"1": 1}
        roots.append(said["root"])
    assert roots[0] == roots[1] != roots[2]


def test_a_changed_program_shows_without_any_baseline(tmp_path: Path, capsys: Captured) -> None:
    assert answer(["files", "verify", str(made(tmp_path, "good"))]) == 0
    assert "1 files of Debian packages: as they were packed" in capsys.readouterr().out
    assert answer(["files", "verify", str(made(tmp_path, "bad", login=b"evil"))]) == 5
    assert "✗ changed: /bin/login (login)" in capsys.readouterr().out


def test_a_program_that_could_not_be_compared_is_not_called_well(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("korora.wiring.packages.BESIDE", ())
    assert answer(["files", "verify", str(made(tmp_path, "good"))]) == 6
    assert "✗ unread: /bin/login (login)" in capsys.readouterr().out


def test_a_baseline_shows_what_came_went_and_changed(tmp_path: Path, capsys: Captured) -> None:
    before, after = (
        made(tmp_path, "before", gone=b"x", note=b"1"),
        made(tmp_path, "after", new=b"x", note=b"2"),
    )
    baseline = tmp_path / "baseline"
    assert answer(["files", "digest", str(before), "--baseline", str(baseline)]) == 0
    assert answer(["files", "verify", str(before), str(baseline)]) == 0
    capsys.readouterr()
    assert answer(["files", "verify", str(after), str(baseline), "--json"]) == 5
    found = {(one["change"], one["path"]) for one in told(capsys)["changes"]}
    assert {("removed", "/gone"), ("added", "/new"), ("changed", "/note")} <= found
    assert answer(["files", "diff", str(before), str(after), "--json"]) == 5
    assert {(one["change"], one["path"]) for one in told(capsys)["changes"]} == found
    assert answer(["files", "diff", str(before), str(before)]) == 0


def test_what_was_not_read_is_unknown_and_never_well(tmp_path: Path, capsys: Captured) -> None:
    image = tmp_path / "luks.img"
    with image.open("wb") as file:
        file.write(b"LUKS\xba\xbe")
        file.truncate(8 << 20)
    for command in ("digest", "verify"):
        assert answer(["files", command, str(image), "--json"]) == 6
        said = told(capsys)
        assert (said["root"], said["complete"]) == (None, False)
        assert said["problems"][0]["problem"] == "it is encrypted"
    assert answer(["files", "diff", str(image), str(image), "--json"]) == 6
    assert told(capsys)["same"] is None


def test_without_anything_to_compare_with_nothing_is_said_to_be_well(
    tmp_path: Path, capsys: Captured
) -> None:
    image = tmp_path / "plain.img"
    with image.open("wb") as file:
        file.truncate(8 << 20)
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "note").write_text("x")
    run("mkfs.ext4", "-q", "-d", tmp_path / "root", image)
    assert answer(["files", "verify", str(image)]) == 2
    assert "nothing to compare with" in capsys.readouterr().err


def test_a_package_database_that_cannot_be_read_is_unknown(tmp_path: Path, capsys: Captured) -> None:
    image = made(tmp_path, "odd", **{f"{DPKG}/odd.md5sums": b"no sums\n"})
    assert answer(["files", "verify", str(image), "--json"]) == 6
    assert [one["where"] for one in told(capsys)["problems"]] == ["volume 1: package database"]


def test_a_package_database_without_sums_is_nothing_to_compare_with(tmp_path: Path) -> None:
    image = made(tmp_path, "bare", **{f"{DPKG}/login.md5sums": b""})
    assert answer(["files", "verify", str(image)]) == 2


def test_chosen_paths_have_a_digest_of_their_own(tmp_path: Path, capsys: Captured) -> None:
    image = made(tmp_path, "one", note=b"x")
    assert answer(["files", "digest", str(image), "--paths", "/bin/*", "--json"]) == 0
    said = told(capsys)
    assert (said["files"], said["system"]) == (1, None)


def test_chosen_paths_are_compared_alone(tmp_path: Path, capsys: Captured) -> None:
    before, after = made(tmp_path, "before", note=b"1"), made(tmp_path, "after", note=b"2")
    baseline = tmp_path / "baseline"
    assert answer(["files", "digest", str(before), "--baseline", str(baseline)]) == 0
    verify, diff = ["files", "verify", str(after), str(baseline)], ["files", "diff", str(before), str(after)]
    for command in (verify, diff):
        assert answer([*command, "--paths", "/bin/*"]) == 0
        assert answer([*command, "--paths", "/bin/*", "--paths", "/note"]) == 5
        assert answer([*command, "--paths", "/nothing"]) == 6
        assert "there is no file in it" in capsys.readouterr().out


def test_a_baseline_of_some_paths_is_compared_with_those(tmp_path: Path, capsys: Captured) -> None:
    before, after = made(tmp_path, "before", note=b"1"), made(tmp_path, "after", login=b"evil", note=b"1")
    baseline = tmp_path / "baseline"
    assert answer(["files", "digest", str(before), "--paths", "/note", "--baseline", str(baseline)]) == 0
    assert answer(["files", "verify", str(after), str(baseline)]) == 0
    assert f"every file as in {baseline}" in capsys.readouterr().out
    for more in (("/bin/*",), ("/note", "/bin/*")):
        options = [word for one in more for word in ("--paths", one)]
        assert answer(["files", "verify", str(after), str(baseline), *options]) == 2
        assert "it says nothing of /bin/*" in capsys.readouterr().err


def test_some_paths_without_a_baseline_are_nothing_to_compare_with(tmp_path: Path, capsys: Captured) -> None:
    assert answer(["files", "verify", str(made(tmp_path, "one")), "--paths", "/bin/*"]) == 2
    assert "nothing to compare with" in capsys.readouterr().err


def test_the_second_image_has_a_format_of_its_own(tmp_path: Path) -> None:
    one = made(tmp_path, "one")
    other = one.rename(tmp_path / "one.vdi")
    command = ["files", "diff", str(other), str(other), "--format", "raw"]
    assert answer(command) == 2
    assert answer([*command, "--format2", "raw"]) == 0


@pytest.mark.parametrize("name", ["nowhere/baseline", "."])
def test_a_baseline_that_cannot_be_written_is_told_before_the_disk_is_read(
    tmp_path: Path, capsys: Captured, name: str
) -> None:
    assert answer(["files", "digest", "/dev/null", "--baseline", str(tmp_path / name)]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_an_endless_line_is_no_baseline(tmp_path: Path, capsys: Captured) -> None:
    assert answer(["files", "verify", str(made(tmp_path, "one")), "/dev/zero"]) == 2
    assert "no baseline" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"{}", b'{"type":"korora-files"}\n', b"\xff\xfe"])
def test_a_baseline_that_is_none_is_a_usage_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "baseline").write_bytes(content)
    assert answer(["files", "verify", str(made(tmp_path, "one")), str(tmp_path / "baseline")]) == 2


def test_an_image_that_would_open_other_files_is_not_read(tmp_path: Path, capsys: Captured) -> None:
    image = tmp_path / "overlay.qcow2"
    made(tmp_path, "base")
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", tmp_path / "base.img", "-F", "raw", image)
    assert answer(["files", "digest", str(image)]) == 3
    assert "base.img" in capsys.readouterr().err
    assert answer(["files", "digest", str(image), "--allow", str(tmp_path / "base.img")]) == 0


def test_a_disk_without_a_file_is_unknown_and_that_is_why(tmp_path: Path, capsys: Captured) -> None:
    image = tmp_path / "disk.raw"
    with image.open("wb") as file:
        file.truncate(1 << 20)
    assert answer(["files", "digest", str(image)]) == 6
    assert "unknown: there is no file in it" in capsys.readouterr().out
