"""What `korora files verify` says of a Debian system is what dpkg says of it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

from korora.cli.main import answer

PACKAGES: Final = ("debianutils", "hostname", "bash")
Captured = pytest.CaptureFixture[str]


def output(*command: str | Path, check: bool = True) -> str:
    done = subprocess.run([*map(str, command)], check=check, capture_output=True, text=True, timeout=120)
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with these packages as they are installed here, and dpkg's own database of them."""
    root = tmp_path_factory.mktemp("system") / "root"
    info = root / "var/lib/dpkg/info"
    info.mkdir(parents=True)
    for name in ("bin", "sbin", "lib"):
        if Path("/", name).is_symlink():
            (root / name).symlink_to(Path("/", name).readlink())
    for path in map(Path, output("dpkg-query", "-L", *PACKAGES).split("\n")):
        if path.is_file() or (path.is_symlink() and path.parent != Path("/")):
            copy = root / path.parent.resolve().relative_to("/") / path.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, copy, follow_symlinks=False)
        elif path.is_dir():  # dpkg tells of those too
            (root / path.resolve().relative_to("/")).mkdir(parents=True, exist_ok=True)
    for package in PACKAGES:
        for kind in ("list", "md5sums", "conffiles"):
            kept = Path("/var/lib/dpkg/info") / f"{package}.{kind}"
            if kept.exists():
                (info / kept.name).write_bytes(kept.read_bytes())
    (root / "var/lib/dpkg/status").write_text(
        "\n".join(output("dpkg-query", "--status", package) for package in PACKAGES)
    )
    return root


def by_dpkg(root: Path) -> dict[str, str]:
    """(path → changed or missing) by `dpkg --verify`."""
    said = output("dpkg", f"--root={root}", "--verify", check=False)
    return {
        "/" + line.split("/", 1)[1]: "missing" if line.startswith("missing") else "changed"
        for line in said.splitlines()
    }


def by_korora(root: Path, image: Path, capsys: Captured) -> tuple[int, dict[str, Any]]:
    with image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-d", root, image], check=True, capture_output=True, timeout=120)
    code = answer(["files", "verify", str(image), "--json"])
    return code, json.loads(capsys.readouterr().out)


def found(told: dict[str, Any]) -> dict[str, str]:
    """As dpkg has it, which marks configuration files by a letter."""
    words = {"changed": "changed", "configured": "changed", "missing": "missing"}
    return {one["path"]: words[one["finding"]] for one in told["system"] if one["finding"] in words}


def test_a_system_is_as_it_was_packed_where_dpkg_says_so(
    installed: Path, tmp_path: Path, capsys: Captured
) -> None:
    """This machine may have left out what its administrator does not want, such as manuals."""
    _, told = by_korora(installed, tmp_path / "disk.img", capsys)
    assert told["complete"]
    assert found(told) == by_dpkg(installed)
    assert "changed" not in found(told).values()


def test_what_was_changed_and_removed_is_what_dpkg_says_and_an_edited_configuration_is_told_apart(
    installed: Path, tmp_path: Path, capsys: Captured
) -> None:
    root = tmp_path / "root"
    subprocess.run(["cp", "-a", installed, root], check=True, timeout=120)
    (root / "bin/hostname").write_bytes(b"#!/bin/sh\nexec evil\n")
    (root / "usr/bin/savelog").unlink()
    with (root / "etc/bash.bashrc").open("a") as file:
        file.write("alias sudo=evil\n")
    code, told = by_korora(root, tmp_path / "disk.img", capsys)
    assert code == 5
    assert found(told) == by_dpkg(root)
    changed = {one["path"].rpartition("/")[2]: one["finding"] for one in told["system"]}
    assert changed["hostname"] == "changed"
    assert changed["bash.bashrc"] == "configured"
    assert changed["savelog"] == "missing"
