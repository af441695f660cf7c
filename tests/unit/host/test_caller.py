"""Who asks at the API's socket: the kernel says which account, and what it may do follows from that."""

from __future__ import annotations

import asyncio
import grp
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fakes.host_services import FakeServices, configuration_in
from korora.errors import UsageError
from korora.host.api import create_api
from korora.host.caller import known_as
from korora.host.front import Front
from korora.host.premises import listening_socket

NOBODY = pwd.getpwnam("nobody")
STRANGER = pwd.getpwnam("daemon")
SYSTEM_PYTHON = "/usr/bin/python3"
"""One that other accounts may run, wherever the tests' own lies."""

ASK = """
import socket, sys
peer = socket.socket(socket.AF_UNIX)
peer.connect(sys.argv[1])
peer.sendall(f"{sys.argv[2]} HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n".encode())
answer = b""
while more := peer.recv(65536):
    answer += more
print(answer.decode())
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """One that every account may look into."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def asked_as(account: pwd.struct_passwd, api: Path, request: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SYSTEM_PYTHON, "-I", "-c", ASK, str(api), request],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        user=account.pw_uid,
        group=NOBODY.pw_gid,
        extra_groups=[],
    )


def asked(folder: Path, account: pwd.struct_passwd, *requests: str) -> tuple[list[str], FakeServices]:
    """What the daemon answers to that account; the group of `nobody` may open the socket."""

    def ask(request: str) -> str:
        done = asked_as(account, folder / "api.sock", request)
        return done.stdout or done.stderr

    async def served() -> tuple[list[str], FakeServices]:
        services = FakeServices(configuration_in(folder))
        front = Front(create_api(services), folder / "api.sock", grp.getgrgid(NOBODY.pw_gid).gr_name)
        await front.open()
        try:
            return [await asyncio.to_thread(ask, request) for request in requests], services
        finally:
            await front.close()
            await services.guests.close()

    return asyncio.run(served())


def test_an_account_of_an_operator_asks_as_that_operator(open_folder: Path) -> None:
    answers, services = asked(
        open_folder, NOBODY, "GET /v1/migrations", "DELETE /v1/migrations/m1", "GET /v1/questions"
    )
    assert ["200 OK" in one or "202 Accepted" in one for one in answers] == [True, True, True], answers
    assert services.migrations.asked_by == ["alice", "alice", "alice"]


@pytest.mark.parametrize(
    "request_line",
    [
        "GET /v1/host",
        "GET /v1/vms",
        "POST /v1/vms/web/stop",
        "GET /v1/log",
        "GET /v1/receipts",
        "POST /v1/vms/web/inspection",
        "POST /v1/vms/web/verification",
        "GET /v1/vms/web/inspection",
    ],
)
def test_an_operator_is_no_administrator(open_folder: Path, request_line: str) -> None:
    (answer,), _ = asked(open_folder, NOBODY, request_line)
    assert "403 Forbidden" in answer
    assert "administrators-only" in answer


@pytest.mark.parametrize(
    "request_line",
    [
        "GET /v1/migrations",
        "GET /v1/host",
        "GET /v1/questions",
        "GET /v1/flags",
        "POST /v1/flags/resolutions",
        f"GET /v1/vms/web/flags/{32 * chr(48)}/original",
        "POST /v1/vms/web/inspection",
    ],
)
def test_an_account_that_no_operator_has_is_refused_whatever_it_asks(
    open_folder: Path, request_line: str
) -> None:
    (answer,), services = asked(open_folder, STRANGER, request_line)
    assert "403 Forbidden" in answer
    assert "not-known-here" in answer
    assert services.migrations.asked_by == []


def test_an_account_outside_of_the_group_cannot_even_connect(open_folder: Path) -> None:
    listener = listening_socket(open_folder / "api.sock")
    done = asked_as(NOBODY, open_folder / "api.sock", "GET /v1/host")
    listener.close()
    assert "PermissionError" in done.stderr


@pytest.mark.parametrize("client", [("127.0.0.1", 1), ("", 0), None])
def test_who_is_not_known_at_all_is_refused(tmp_path: Path, client: tuple[str, int] | None) -> None:
    async def story() -> httpx.Response:
        services = FakeServices(configuration_in(tmp_path))
        transport = httpx.ASGITransport(create_api(services), client=client)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://daemon/v1") as http:
            try:
                return await http.get("migrations")
            finally:
                await services.guests.close()

    answer = asyncio.run(story())
    assert answer.status_code == 403
    assert answer.json()["error"]["kind"] == "not-known-here"


def test_an_account_without_a_name_is_nobodys(tmp_path: Path) -> None:
    async def story() -> httpx.Response:
        services = FakeServices(configuration_in(tmp_path))
        transport = httpx.ASGITransport(create_api(services), client=(known_as(3_999_999_999), 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://daemon/v1") as http:
            try:
                return await http.get("migrations")
            finally:
                await services.guests.close()

    assert asyncio.run(story()).json()["error"]["kind"] == "not-known-here"


def test_a_group_may_open_the_socket_that_is_given_to_it(tmp_path: Path) -> None:
    group = grp.getgrgid(NOBODY.pw_gid).gr_name
    listening_socket(tmp_path / "api.sock", group).close()
    seen = (tmp_path / "api.sock").stat()
    assert (stat.S_IMODE(seen.st_mode), seen.st_gid, seen.st_uid) == (0o660, NOBODY.pw_gid, os.geteuid())


def test_a_group_that_is_none_leaves_no_socket(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        listening_socket(tmp_path / "api.sock", "no-such-group")
    assert caught.value.kind == "bad-configuration"
    assert "groupadd" in caught.value.remedy
    assert not (tmp_path / "api.sock").exists()
