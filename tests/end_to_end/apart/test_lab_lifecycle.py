"""Up, mend, grow and down, with real namespaces and TPMs and a stand-in for the daemon."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from korora.errors import ToolError
from korora.lab import lifecycle
from korora.lab.host_tpm import read_pcrs
from korora.lab.layout import Layout
from korora.lab.lifecycle import LabStatus, bring_up, status, take_down
from korora.lab.measured_boot import HostSoftware, measured_boot
from korora.lab.namespaces import network_names
from korora.lab.processes import Processes, end_process, start_time

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not shutil.which("swtpm_setup"), reason="swtpm-tools is not installed"),
]

# Answers GET /v1/host; `host enroll` leaves a mark that makes it say that it is enrolled.
_STAND_IN = """
    import http.server, json, os, pathlib, socketserver, sys, tomllib
    words = sys.argv[1:]
    read = lambda path: tomllib.loads(pathlib.Path(path).read_text())
    if words[0] == "--config":
        api = pathlib.Path(read(words[1])["hosts"][words[-1]]["api"])
        assert words[2:4] == ["host", "enroll"] and api.exists()
        sys.exit((api.parent / "enrolled").touch())
    settings = read(words[2])
    api = pathlib.Path(settings["api"])
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            enrolled = (api.parent / "enrolled").exists()
            body = json.dumps({"name": settings["name"], "version": "0", "enrolled": enrolled}).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        def address_string(self):
            return "local"
    api.unlink(missing_ok=True)
    socketserver.ThreadingUnixStreamServer(str(api), Answer).serve_forever()
"""


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Layout]:
    program = tmp_path / "standin.py"
    program.write_text(textwrap.dedent(_STAND_IN))
    monkeypatch.setattr(lifecycle, "korora_command", lambda: [sys.executable, str(program)])
    layout = Layout(tmp_path / "lab")
    try:
        yield layout
    finally:
        take_down(layout)


def pids(found: LabStatus) -> list[tuple[int | None, int | None]]:
    return [(host.daemon_pid, host.tpm_pid) for host in found.hosts]


def test_a_lab_comes_up_is_mended_grows_and_leaves_nothing(layout: Layout) -> None:
    first = bring_up(layout, 2)
    assert first.up
    assert [host.name for host in first.hosts] == ["a", "b"]
    boot = measured_boot(HostSoftware())
    for host in layout.hosts(2):
        assert read_pcrs(host.tpm_socket, boot.pcrs()) == boot.pcrs()

    assert pids(bring_up(layout)) == pids(first)  # nothing was restarted

    daemon = first.hosts[0].daemon_pid
    assert daemon
    end_process(daemon, start_time(daemon) or 0)
    assert not status(layout).up
    mended = bring_up(layout)
    assert mended.up
    assert pids(mended)[1] == pids(first)[1]
    assert mended.hosts[0].tpm_pid == first.hosts[0].tpm_pid

    # A TPM that died takes its PCRs along: it is measured anew, and its daemon must start over.
    tpm = mended.hosts[1].tpm_pid
    assert tpm
    end_process(tpm, start_time(tpm) or 0)
    again = bring_up(layout)
    assert again.up
    assert again.hosts[1].daemon_pid != mended.hosts[1].daemon_pid
    assert read_pcrs(layout.host("b").tpm_socket, boot.pcrs()) == boot.pcrs()

    assert [host.name for host in bring_up(layout, 3).hosts] == ["a", "b", "c"]
    assert len(bring_up(layout, 2).hosts) == 3  # never shrinks

    # Something that a daemon left running on purpose, such as a VM.
    left = Processes(layout.processes).start(
        "left", ["sleep", "600"], log=layout.directory / "log", netns=layout.host("a").netns
    )
    (layout.processes / "left.json").unlink()
    everything = [pid for pair in pids(status(layout)) for pid in pair if pid]
    take_down(layout)
    assert not left.alive
    assert [pid for pid in everything if start_time(pid)] == []
    assert network_names(layout) == []
    assert not layout.directory.exists()


def test_a_process_outside_the_lab_survives_its_end(layout: Layout) -> None:
    bring_up(layout, 1)
    with subprocess.Popen(["sleep", "600"], cwd=layout.directory) as outsider:
        try:
            take_down(layout)
            assert outsider.poll() is None
        finally:
            outsider.send_signal(signal.SIGKILL)


def test_a_daemon_that_ends_at_once_is_reported_with_its_log(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = [sys.executable, "-c", "raise SystemExit('the state folder is damaged')"]
    monkeypatch.setattr(lifecycle, "korora_command", lambda: broken)
    with pytest.raises(ToolError, match="the state folder is damaged") as failed:
        bring_up(layout, 1)
    assert failed.value.kind == "lab-daemon"
    assert "hostd.log" in failed.value.remedy
