"""`korora hostd`: what a wrong configuration is answered, before anything is touched; what scripts hear."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from fakes.attested_site import reference_of
from fakes.site import TestSite
from korora.cli.hostd import hostd, read_configuration
from korora.cli.main import answer
from korora.errors import ExitCode, UsageError
from korora.host import daemon
from korora.model.configuration import HostConfiguration
from korora.policy.reference_values import rendered

TOML = """
name = "a"
state = "state"
listen = "127.0.0.1:7443"
api = "api.sock"
tpm = "swtpm:path=none"
event_log = "eventlog"
authorization = "authorization.toml"
[site]
authority = "ca.pem"
manufacturers = ["maker.pem"]
reference_values = "reference.toml"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A configuration whose files can all be used; there is no TPM."""
    certificate = TestSite("a maker").certificate.public_bytes(Encoding.PEM)
    (tmp_path / "ca.pem").write_bytes(certificate)
    (tmp_path / "maker.pem").write_bytes(certificate)
    (tmp_path / "reference.toml").write_text(rendered(reference_of()))
    (tmp_path / "authorization.toml").write_text("")
    (tmp_path / "hostd.toml").write_text(TOML)
    return tmp_path / "hostd.toml"


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        hostd(tmp_path / "none.toml")
    assert str(tmp_path / "none.toml") in caught.value.message
    assert "korora hostd --config" in caught.value.remedy


@pytest.mark.parametrize("content", [b"\xff\xfe", b"name = [", b'name = "a"\nunknown = 1\n'])
def test_a_file_that_is_wrong_is_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "hostd.toml"
    file.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        hostd(file)
    assert caught.value.kind == "bad-configuration"
    assert str(file) in caught.value.message
    assert list(tmp_path.iterdir()) == [file]


def test_a_directory_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        read_configuration(tmp_path)


@pytest.mark.parametrize(
    ("broken", "content"),
    [("ca.pem", None), ("maker.pem", b"[["), ("reference.toml", b"[["), ("authorization.toml", None)],
)
def test_a_daemon_does_not_start_on_a_file_of_the_site_that_cannot_be_used(
    file: Path, broken: str, content: bytes | None
) -> None:
    wrong = file.with_name(broken)
    wrong.unlink() if content is None else wrong.write_bytes(content)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from korora.cli.main import run; run()",
            "hostd",
            "--config",
            str(file),
            "--json",
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == ExitCode.USAGE, done.stderr
    error = json.loads(done.stdout)["error"]
    assert str(wrong) in error["message"]
    assert error["remedy"]
    assert error["exit_code"] == ExitCode.USAGE
    assert f"korora: {error['message']}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_script_is_told_when_it_is_ready_and_when_it_stops(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(host: HostConfiguration, _wire: object, _log: object, tell: Callable[..., None]) -> int:
        tell("ready", host)
        tell("stopping", host)
        return ExitCode.DONE

    monkeypatch.setattr(daemon, "run", run)
    assert answer(["hostd", "--config", str(file), "--json"]) == ExitCode.DONE
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line.pop("event") for line in told] == ["ready", "stopping"]
    here = {
        "host": "a",
        "api": str(file.with_name("api.sock")),
        "listen": "127.0.0.1:7443",
        "pid": os.getpid(),
    }
    assert told == [here, here]
    assert answer(["hostd", "--config", str(file)]) == ExitCode.DONE
    assert capsys.readouterr().out == ""
