"""A program in the sandbox sees /usr and what it was given, reaches nobody, and ends within its bounds."""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest

from korora.adapters.image import sandbox
from korora.adapters.image.sandbox import Sandbox
from korora.errors import ToolError


def told(command: list[str], box: Sandbox | None = None) -> tuple[int, str]:
    """Exit code, and all that it said."""
    with tempfile.TemporaryFile() as said:
        process = (box or Sandbox({})).start(command, said, subprocess.STDOUT)
        code = process.wait(60)
        said.seek(0)
        return code, said.read().decode()


def test_it_sees_what_it_was_given_and_no_other_file_of_the_host(tmp_path: Path) -> None:
    given, secret = tmp_path / "given", tmp_path / "secret"
    given.write_text("given")
    secret.write_text("secret")
    box = Sandbox({"/images/one": given})
    assert told(["cat", "/images/one"], box) == (0, "given")
    for path in (
        secret,
        Path("/etc/shadow"),
        Path("/root"),
        Path("/proc/1/root"),
        Path("/home"),
        Path("/sys"),
    ):
        code, said = told(["ls", "-d", str(path)], box)
        assert (code != 0, "No such file" in said) == (True, True), path
    assert told(["ls", "/"], box)[1].split() == sorted(told(["ls", "/"], box)[1].split())
    assert {"etc", "root", "home", "var", "proc", "sys"}.isdisjoint(told(["ls", "/"], box)[1].split())


def test_it_writes_nothing_that_was_given_and_only_in_its_folder(tmp_path: Path) -> None:
    given, folder = tmp_path / "given", tmp_path / "folder"
    given.write_text("given")
    folder.mkdir()
    box = Sandbox({"/images/one": given}, folder)
    for path in ("/images/one", "/usr/x", "/usr/bin/env"):
        assert told(["sh", "-c", f"echo bad > {path}"], box)[0] != 0
    assert given.read_text() == "given"
    assert told(["sh", "-c", "echo good > /run/x"], box)[0] == 0
    assert (folder / "x").read_text() == "good\n"


REACH = """
import socket, sys
with socket.socket() as one:
    one.settimeout(20)
    try:
        one.connect(("127.0.0.1", int(sys.argv[1])))
    except OSError as error:
        sys.exit(7)
"""


def test_it_has_no_network(tmp_path: Path) -> None:
    (tmp_path / "reach.py").write_text(REACH)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        assert subprocess.run(["/usr/bin/python3", tmp_path / "reach.py", port], check=False).returncode == 0
        box = Sandbox({"/reach.py": tmp_path / "reach.py"})
        assert told(["/usr/bin/python3", "/reach.py", port], box)[0] == 7


def test_it_has_no_capability_and_nothing_of_our_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KORORA_SECRET", "x")
    assert "KORORA_SECRET" not in told(["env"])[1]
    program = "import ctypes; print([ctypes.CDLL(None).prctl(23, c, 0, 0, 0) for c in range(40)].count(1),"
    (tmp_path / "p.py").write_text(program + " ctypes.CDLL(None).mount(b'none', b'/tmp', b'tmpfs', 0, None))")
    # prctl(PR_CAPBSET_READ): none is even in the bounding set.
    assert told(["/usr/bin/python3", "/p.py"], Sandbox({"/p.py": tmp_path / "p.py"})) == (0, "0 -1\n")


def test_memory_processor_time_and_what_it_writes_are_bounded(tmp_path: Path) -> None:
    assert told(["/usr/bin/python3", "-c", "bytearray(2 << 30)"])[0] != 0
    begun = time.monotonic()
    assert told(["sh", "-c", "while :; do :; done"], Sandbox({}, processor_s=1))[0] != 0
    assert time.monotonic() - begun < 30
    assert told(["sh", "-c", "head -c 100000000 /dev/zero > /run/x"], Sandbox({}, tmp_path))[0] != 0
    assert (tmp_path / "x").stat().st_size <= sandbox.WRITTEN_BYTES


def test_when_it_is_killed_nothing_of_it_lives_on(tmp_path: Path) -> None:
    process = Sandbox({}, tmp_path).start(["sh", "-c", "while :; do date +%N > /run/alive; sleep 0.05; done"])
    deadline = time.monotonic() + 20
    while not (tmp_path / "alive").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    sandbox.end(process)
    before = (tmp_path / "alive").read_text()
    time.sleep(0.5)
    assert (tmp_path / "alive").read_text() == before


def test_one_that_is_ended_while_it_starts_leaves_nothing(tmp_path: Path) -> None:
    mark = str(tmp_path / "given")
    Path(mark).touch()
    for tenth_ms in range(60):
        process = Sandbox({"/given": Path(mark)}).start(["sleep", "600"])
        time.sleep(tenth_ms / 10_000)
        sandbox.end(process)
    assert not [line for line in _command_lines() if mark in line]


def _command_lines() -> list[str]:
    """Of all processes of this machine."""
    lines = []
    for one in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            lines.append(one.read_text())
    return lines


def test_without_bubblewrap_nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ToolError) as failed:
        Sandbox({}).start(["true"])
    assert failed.value.kind == "sandbox"
