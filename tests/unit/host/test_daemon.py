"""The daemon's life: a real process and a real socket over services in memory, and its order of leaving."""

from __future__ import annotations

import asyncio
import grp
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fakes.guests_world import until
from fakes.host_services import FakeListener, FakeServices, configuration_in
from korora.errors import RefusedError
from korora.host.daemon import serve
from korora.model.configuration import HostConfiguration

FAKES = Path(__file__).parents[2]
DAEMON = FAKES / "fakes" / "host_services.py"
TOML = """
name = "a"
state = "state"
listen = "127.0.0.1:7443"
api = "api.sock"
tpm = "swtpm:"
event_log = "eventlog"
authorization = "authorization.toml"
[site]
authority = "ca.pem"
manufacturers = ["maker.pem"]
reference_values = "reference.toml"
"""


class Daemon:
    def __init__(self, folder: Path, file: str = "hostd.toml", log: str = "0.log") -> None:
        self.log = folder / log
        environment = os.environ | {"PYTHONPATH": f"{FAKES}:{FAKES.parent / 'src'}"}
        with self.log.open("wb") as lines:
            self.process = subprocess.Popen(
                [sys.executable, str(DAEMON), str(folder / file)], stderr=lines, env=environment
            )

    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    (tmp_path / "hostd.toml").write_text(TOML)
    (tmp_path / "other.toml").write_text(TOML.replace('"state"', '"other"'))
    running = Daemon(tmp_path)
    try:
        get(tmp_path, "host", patience_s=20)
        yield running
    finally:
        running.process.kill()
        running.process.wait()


def get(folder: Path, path: str, patience_s: float = 5.0) -> httpx.Response:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(folder / "api.sock"))) as http:
        deadline = time.monotonic() + patience_s
        while True:
            try:
                return http.get(f"http://daemon/v1/{path}")
            except httpx.ConnectError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)


def test_the_daemon_serves_refuses_a_second_and_leaves_cleanly(daemon: Daemon, tmp_path: Path) -> None:
    assert get(tmp_path, "host").json()["name"] == "a"
    same_state, same_socket = Daemon(tmp_path, log="1.log"), Daemon(tmp_path, "other.toml", log="2.log")
    for second in (same_state, same_socket):
        assert second.process.wait(20) != 0
        assert "already-running" in second.log.read_text()
    assert get(tmp_path, "vms").json() == []
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(tmp_path / "api.sock"))) as http:
        http.get("http://daemon/v1/vms")  # a connection that stays open keeps nobody waiting
        assert daemon.end() == 0
    assert not (tmp_path / "api.sock").exists()


def test_a_killed_daemon_leaves_nothing_that_hinders_the_next(daemon: Daemon, tmp_path: Path) -> None:
    daemon.end(signal.SIGKILL)
    assert (tmp_path / "api.sock").exists()
    again = Daemon(tmp_path)
    try:
        assert get(tmp_path, "host", patience_s=20).status_code == 200
        assert again.end(signal.SIGINT) == 0
        events = [line["event"] for line in again.lines()]
        assert events == ["daemon-ready", "daemon-stops", "daemon-stopped"]
        assert again.lines()[0].keys() >= {"timestamp", "level", "logger", "host", "vms"}
    finally:
        again.process.kill()


def test_a_group_of_the_configuration_may_open_the_socket(tmp_path: Path) -> None:
    group = grp.getgrgid(os.getgid()).gr_name
    (tmp_path / "hostd.toml").write_text(f'api_group = "{group}"\n' + TOML)
    running = Daemon(tmp_path)
    try:
        assert get(tmp_path, "host", patience_s=20).status_code == 200
        assert stat.S_IMODE((tmp_path / "api.sock").stat().st_mode) == 0o660
    finally:
        running.process.kill()
        running.process.wait()


def test_services_stop_in_reverse_and_vms_run_on(tmp_path: Path) -> None:
    async def story() -> None:
        diary: list[str] = []
        services = FakeServices(configuration_in(tmp_path))
        stop = asyncio.Event()
        listeners = [FakeListener("journal", diary), FakeListener("listener", diary)]
        serving = asyncio.create_task(serve(services.configuration, services, listeners, stop))
        await until(services.configuration.api.exists)
        await services.guests.run('name = "web"\nmemory = "64M"\n')
        stop.set()
        await serving
        assert diary == ["journal starts", "listener starts", "listener stops", "journal stops"]
        assert not services.world.of("web").ended.is_set()
        assert not services.configuration.api.exists()

    asyncio.run(asyncio.wait_for(story(), 60))


def test_who_asked_hears_when_it_is_ready_and_when_it_stops(tmp_path: Path) -> None:
    async def story() -> None:
        services, heard = FakeServices(configuration_in(tmp_path)), []
        stop, ready = asyncio.Event(), asyncio.Event()

        def tell(state: str, host: HostConfiguration) -> None:
            heard.append((state, host.name, host.api.exists()))
            ready.set()

        serving = asyncio.create_task(serve(services.configuration, services, [], stop, tell))
        await asyncio.wait_for(ready.wait(), 60)
        stop.set()
        await serving
        assert heard == [("ready", "a", True), ("stopping", "a", True)]

    asyncio.run(asyncio.wait_for(story(), 60))


def test_a_listener_that_cannot_start_undoes_the_others(tmp_path: Path) -> None:
    async def story() -> None:
        diary: list[str] = []
        services = FakeServices(configuration_in(tmp_path))
        listeners = [FakeListener("journal", diary), FakeListener("listener", diary, fails=True)]
        with pytest.raises(RefusedError):
            await serve(services.configuration, services, listeners, asyncio.Event())
        assert diary == ["journal starts", "journal stops"]
        assert not services.configuration.api.exists()

    asyncio.run(asyncio.wait_for(story(), 60))


def test_a_watcher_hears_the_outcome_of_a_migration_that_the_daemons_end_cancels(tmp_path: Path) -> None:
    async def story() -> None:
        services = FakeServices(configuration_in(tmp_path))
        stop = asyncio.Event()

        class Canceller(FakeListener):
            async def stop(self) -> None:
                services.migrations.tell({"event": "outcome", "outcome": "cancelled"})

        services.migrations.tell({"event": "progress"})
        serving = asyncio.create_task(
            serve(services.configuration, services, [Canceller("migrations", [])], stop)
        )
        await until(services.configuration.api.exists)
        transport = httpx.AsyncHTTPTransport(uds=str(services.configuration.api))
        async with httpx.AsyncClient(transport=transport) as http:
            watching = asyncio.create_task(http.get("http://daemon/v1/migrations/m1/events"))
            await asyncio.sleep(0.1)
            stop.set()
            assert (await watching).text.splitlines()[-1] == '{"event":"outcome","outcome":"cancelled"}'
        await serving

    asyncio.run(asyncio.wait_for(story(), 60))


def test_the_service_manager_is_told_when_the_daemon_is_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(notes: socket.socket) -> None:
        services = FakeServices(configuration_in(tmp_path))
        stop = asyncio.Event()
        serving = asyncio.create_task(serve(services.configuration, services, [], stop))
        assert await asyncio.to_thread(notes.recv, 64) == b"READY=1"
        stop.set()
        await serving

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notes:
        notes.settimeout(10)
        notes.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        asyncio.run(asyncio.wait_for(story(notes), 60))
