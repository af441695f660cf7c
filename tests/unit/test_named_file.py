"""What a person names is opened without waiting, and read within a bound."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from korora import named_file
from korora.cli.main import answer

Captured = pytest.CaptureFixture[str]


def folder(path: Path) -> Path:
    path.mkdir()
    return path


def named_pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


def link_to_one(path: Path) -> Path:
    path.symlink_to(named_pipe(path.with_name("pipe")))
    return path


def listening(path: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(os.fspath(path))
    return path


def endless(_: Path) -> Path:
    return Path("/dev/zero")


def terminal(_: Path) -> Path:
    return Path("/dev/ptmx")


ODD = (folder, named_pipe, link_to_one, listening, endless, terminal)
COMMANDS = (
    "--config @ vm list",
    "--config @ flags list",
    "hostd --config @",
    "store stat --hostd @",
    "config digest @",
    "config diff good @",
    "image verify image @",
    "image digest image --state @",
    "files verify image @",
    "scan good --config @",
    "scan good --config list.toml",
    "indicators import @ --store new.db",
    "disk diff make --leaves @ --base-size 1048576 image -o new.diff --key key.pem --by me",
    "disk diff make --key @ --by me image image -o new.diff",
    "disk diff verify @ --signer good",
    "policy prove --rules @",
    "receipt show @",
    "evaluate --receipt @",
    "image info @",
    "files digest @",
)


@pytest.mark.parametrize("make", ODD)
def test_what_is_no_plain_file_is_refused_at_once_and_named(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    with pytest.raises(OSError, match="it is a") as refused:
        named_file.read(make(tmp_path / "odd"))
    assert (refused.value.strerror or "").startswith("it is a ")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("make", [folder, named_pipe, endless])
@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_waits_for_what_is_no_plain_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
    command: str,
    make: Callable[[Path], Path],
) -> None:
    monkeypatch.chdir(tmp_path)
    odd = make(tmp_path / "odd")
    Path("good").write_text('name = "web"\nmemory = "64M"\n')
    Path("list.toml").write_text(f'[reputation]\nknown_bad = ["{odd}"]\n')
    Path("image").write_bytes(bytes(1 << 20))
    words = [str(odd) if word == "@" else word for word in command.split()]
    assert answer(words) == 2
    shown = capsys.readouterr().err
    assert "korora: " in shown
    assert "what to do" in shown
    assert "Errno" not in shown


def test_a_pipe_of_ones_own_is_read_to_its_end_whenever_it_is_filled() -> None:
    reading, writing = os.pipe()

    def fill() -> None:
        os.write(writing, b"all of it")
        os.close(writing)

    filling = threading.Timer(0.2, fill)
    filling.start()
    try:
        assert named_file.read(Path(f"/dev/fd/{reading}")) == b"all of it"
    finally:
        filling.join()
        os.close(reading)


def test_a_pipe_of_ones_own_is_read_no_further_than_its_bound() -> None:
    reading, writing = os.pipe()
    os.write(writing, bytes(4096))
    try:
        with pytest.raises(OSError, match="more than 4000 bytes"):
            named_file.read(Path(f"/proc/self/fd/{reading}"), 4000)
        os.write(writing, bytes(4096))
        assert len(named_file.beginning(Path(f"/dev/fd/{reading}"), 4000)) == 4001
    finally:
        os.close(reading)
        os.close(writing)


def test_a_file_is_read_within_its_bound_and_nothing_is_an_empty_one(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 100)
    assert named_file.read(file, 100) == named_file.beginning(file, 100) == b"x" * 100
    assert len(named_file.beginning(file, 98)) == 99
    with pytest.raises(OSError, match="more than 99 bytes"):
        named_file.read(file, 99)
    assert named_file.read(Path("/dev/null")) == b""
    with pytest.raises(FileNotFoundError):
        named_file.read(tmp_path / "none")
    with pytest.raises(OSError, match="null character"):
        named_file.read(Path("a\0b"))
