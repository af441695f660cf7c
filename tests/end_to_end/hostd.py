"""A host's daemon in another condition, for as long as a test needs it: other `hostd.toml`, or frozen."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from end_to_end.conftest import Lab
from end_to_end.travelling import restart_daemon
from korora.lab.layout import LabHost
from korora.lab.lifecycle import daemon_name
from korora.lab.processes import Processes


@contextmanager
def configured(lab: Lab, host: LabHost, text: str) -> Iterator[None]:
    """The host's daemon runs with this text as its configuration; afterwards with its own again."""
    before = host.configuration.read_text()
    host.configuration.write_text(text)
    try:
        restart_daemon(lab, host)
        yield
    finally:
        host.configuration.write_text(before)
        restart_daemon(lab, host)


@contextmanager
def impatient(lab: Lab, host: LabHost, stall_s: int) -> Iterator[None]:
    """The host gives a silent peer up soon, so that the test ends soon."""
    text = f"{host.configuration.read_text()}\n[limits]\nstall_seconds = {stall_s}\n"
    with configured(lab, host, text):
        yield


def with_hypervisor(host: LabHost, program: Path) -> str:
    """The host's configuration, but with this program as its QEMU."""
    return host.configuration.read_text().replace("[site]", f'qemu = "{program}"\n\n[site]', 1)


@contextmanager
def frozen(lab: Lab, host: LabHost) -> Iterator[None]:
    """The host's daemon takes connections, and says nothing."""
    daemon = Processes(lab.layout.processes).find(daemon_name(host))
    assert daemon
    os.kill(daemon.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(daemon.pid, signal.SIGCONT)
