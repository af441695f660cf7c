"""The HTTP API over services in memory: what is answered, and the one shape of every failure."""

from __future__ import annotations

import asyncio
import json
import logging
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog

from fakes.guests_world import FACTS, until
from fakes.host_services import FakeServices, configuration_in
from korora.errors import UsageError
from korora.host.api import create_api
from korora.host.caller import known_as
from korora.host.log import log_to
from korora.host.routes.migrations import stream_of
from korora.model.definition import parse_definition

WEB = 'name = "web"\nmemory = "64M"\n'
NONCE = "ab" * 32

Story = Callable[[FakeServices, httpx.AsyncClient], Awaitable[None]]
Tell = Callable[[Story], None]


@pytest.fixture
def tell(tmp_path: Path) -> Tell:
    def told(story: Story) -> None:
        async def whole() -> None:
            services = FakeServices(configuration_in(tmp_path))
            transport = httpx.ASGITransport(
                create_api(services), raise_app_exceptions=True, client=(known_as(0), 1)
            )
            async with httpx.AsyncClient(transport=transport, base_url="http://daemon/v1") as http:
                try:
                    await asyncio.wait_for(story(services, http), 60)
                finally:
                    await services.guests.close()

        asyncio.run(whole())

    return told


@pytest.fixture
def quiet() -> Iterator[None]:
    """A test that configures the log leaves it as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    root.handlers, root.level = handlers, level


def failure(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"kind", "message", "remedy", "vm_runs_on", "exit_code"}
    return error


def test_the_host_says_what_it_is_and_how_it_stands(tell: Tell) -> None:
    async def story(services: FakeServices, http: httpx.AsyncClient) -> None:
        host = (await http.get("host")).json()
        assert host["name"] == "a"
        assert host["hypervisor"]["accelerator_note"] == FACTS.accelerator_note
        assert (host["enrolled"], host["tpm_ok"], host["log_size"]) == (False, True, 2)
        services.attestation.trouble = "no such device"
        assert (await http.get("host")).json()["tpm_trouble"] == "no such device"
        assert host["problems"] == []
        services.files.broken = [UsageError("rules.toml: no TOML", remedy="correct it")]
        problems = (await http.get("host")).json()["problems"]
        assert problems == [{"message": "rules.toml: no TOML", "remedy": "correct it"}]

    tell(story)


def test_a_vm_is_created_shown_stopped_and_started(tell: Tell) -> None:
    async def story(services: FakeServices, http: httpx.AsyncClient) -> None:
        created = await http.post("vms", json={"definition": WEB, "start": True})
        assert created.status_code == 201
        vm = created.json()
        assert (vm["name"], vm["state"], vm["ownership"], vm["epoch"]) == ("web", "running", "owner", 1)
        assert (vm["memory_bytes"], vm["definition"], vm["boot"]["verdict"]) == (64 * 2**20, WEB, "waiting")
        assert (await http.get("vms/web")).json() == vm
        stopped = (await http.post("vms/web/stop", json={"force": True})).json()
        assert (stopped["state"], stopped["pid"]) == ("stopped", None)
        assert (await http.post("vms/web/start", json={})).json()["state"] == "running"
        assert [vm["name"] for vm in (await http.get("vms")).json()] == ["web"]

    tell(story)


def test_a_process_that_does_not_answer_is_shown_as_unresponsive(tell: Tell) -> None:
    async def story(services: FakeServices, http: httpx.AsyncClient) -> None:
        await http.post("vms", json={"definition": WEB, "start": True})
        services.guests.begin_move("web")
        services.world.of("web").die()
        shown = (await http.get("vms/web")).json()
        assert (shown["state"], shown["moving"]) == ("unresponsive", True)

    tell(story)


def test_a_running_qemu_is_adopted(tell: Tell) -> None:
    async def story(services: FakeServices, http: httpx.AsyncClient) -> None:
        foreign = services.world.spawn(parse_definition(WEB), Path("/run/other.sock"))
        vm = (await http.post("vms/adopt", json={"qmp": "/run/other.sock", "name": None})).json()
        assert (vm["name"], vm["adopted"], vm["pid"], vm["vtpm"]) == ("web", True, foreign.pid, False)
        relative = await http.post("vms/adopt", json={"qmp": "other.sock"})
        assert failure(relative, 400)["exit_code"] == 2

    tell(story)


FAILURES: list[tuple[str, str, Any, int, str, int]] = [
    ("GET", "vms/nobody", None, 404, "unknown-vm", 2),
    ("POST", "vms/nobody/start", {}, 404, "unknown-vm", 2),
    ("POST", "vms", {"definition": "name = ["}, 400, "bad-definition", 2),
    ("POST", "vms", {"definition": WEB, "force": True}, 400, "bad-request", 2),
    ("POST", "vms", {"start": True}, 400, "bad-request", 2),
    ("POST", "vms", [], 400, "bad-request", 2),
    ("POST", "attestation", {"nonce": "abc"}, 400, "bad-request", 2),
    ("POST", "attestation", {"nonce": NONCE + "\n"}, 400, "bad-request", 2),
    ("POST", "migrations", {"request": "replayed"}, 403, "replayed", 3),
    ("GET", "migrations/none/events", None, 404, "unknown-migration", 2),
    ("DELETE", "migrations/none", None, 404, "unknown-migration", 2),
    ("GET", "receipts/none", None, 404, "unknown-receipt", 2),
    ("POST", "enrolment/activate", {"blob": "!", "encrypted_secret": ""}, 400, "bad-request", 2),
    ("POST", "vms/adopt", {"qmp": "/nowhere"}, 502, "qmp", 6),
    ("GET", "nothing", None, 404, "bad-request", 2),
    ("PATCH", "vms", None, 405, "bad-request", 2),
]


def test_every_failure_has_one_shape(tell: Tell) -> None:
    async def story(services: FakeServices, http: httpx.AsyncClient) -> None:
        for method, path, body, status, kind, code in FAILURES:
            error = failure(await http.request(method, path, json=body), status)
            assert (error["kind"], error["exit_code"]) == (kind, code), path

    tell(story)


def test_text_that_is_no_json_is_a_bad_request(tell: Tell) -> None:
    async def story(services: FakeServices, http: httpx.AsyncClient) -> None:
        answer = await http.post("vms", content=b"\xff{", headers={"content-type": "application/json"})
        assert failure(answer, 400)["kind"] == "bad-request"

    tell(story)


def test_a_bug_is_logged_answered_without_detail_and_survived(
    tell: Tell, tmp_path: Path, quiet: None
) -> None:
    log_to(tmp_path / "log", "a")

    async def story(services: FakeServices, http: httpx.AsyncClient) -> None:
        error = failure(await http.post("checks", json={"vm": "bug", "destination": "b"}), 500)
        assert (error["kind"], error["exit_code"]) == ("bug", 1)
        assert "secret detail" not in json.dumps(error)
        assert (await http.get("host")).status_code == 200

    tell(story)
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    (bug,) = [line for line in lines if line["event"] == "bug"]
    assert "ZeroDivisionError: secret detail" in bug["exception"]


def test_a_full_disk_is_for_the_administrator_to_mend(tell: Tell) -> None:
    async def story(services: FakeServices, http: httpx.AsyncClient) -> None:
        error = failure(await http.post("checks", json={"vm": "full-disk", "destination": "b"}), 502)
        assert (error["kind"], error["exit_code"]) == ("files", 6)
        assert "No space left on device (/var/lib/korora/x)" in error["message"]
        assert "has room" in error["remedy"]
        error = failure(await http.post("checks", json={"vm": "waited", "destination": "b"}), 500)
        assert error["kind"] == "bug"  # of no file, though Python calls it an OSError too

    tell(story)


def test_prechecks_come_back_as_findings(tell: Tell) -> None:
    async def story(services: FakeServices, http: httpx.AsyncClient) -> None:
        answer = await http.post("checks", json={"vm": "web", "destination": "b"})
        assert answer.json()["findings"][0]["host"] == "b"

    tell(story)


@pytest.mark.parametrize("disks", [{"format": "vmdk"}, {"more": True}, {"storage_mode": "slow"}, ["*"]])
def test_a_check_of_disks_says_nothing_that_is_not_understood(tell: Tell, disks: object) -> None:
    async def story(services: FakeServices, http: httpx.AsyncClient) -> None:
        asked = {"vm": "web", "destination": "b"}
        assert (await http.post("checks", json=asked | {"disks": {"format": "raw"}})).status_code == 200
        error = failure(await http.post("checks", json=asked | {"disks": disks}), 400)
        assert error["kind"] == "bad-request"

    tell(story)


def test_a_migration_is_begun_with_the_request_byte_by_byte(tell: Tell) -> None:
    async def story(services: FakeServices, http: httpx.AsyncClient) -> None:
        answer = await http.post("migrations", json={"request": '{"é": 1}', "address": "10.0.0.2:7443"})
        assert (answer.status_code, answer.json()) == (202, {"id": "m1"})
        assert services.migrations.begun == [('{"é": 1}'.encode(), "10.0.0.2:7443")]
        assert (await http.get("migrations")).json() == [{"id": "m1", "vm": "web"}]

    tell(story)


def test_events_are_lines_that_end_with_the_outcome_for_the_first_and_for_a_late_watcher(tell: Tell) -> None:
    async def story(services: FakeServices, http: httpx.AsyncClient) -> None:
        services.migrations.tell({"event": "progress", "fraction": 0.25})
        watching = asyncio.create_task(http.get("migrations/m1/events"))
        await asyncio.sleep(0.01)
        services.migrations.tell({"event": "progress", "fraction": 0.5})
        assert (await http.delete("migrations/m1")).status_code == 202
        answer = await watching
        assert answer.headers["content-type"] == "application/x-ndjson"
        lines = [json.loads(line) for line in answer.text.splitlines()]
        assert [line.get("fraction") for line in lines] == [0.25, 0.5, None]
        late = await http.get("migrations/m1/events")
        assert json.loads(late.text) == {"event": "outcome", "outcome": "cancelled"}

    tell(story)


def test_a_stream_that_breaks_off_has_no_outcome(tell: Tell) -> None:
    async def story(services: FakeServices, http: httpx.AsyncClient) -> None:
        services.migrations.tell({"event": "progress"})
        services.migrations.breaks = True
        answer = await http.get("migrations/m1/events")
        assert [json.loads(line) for line in answer.text.splitlines()] == [{"event": "progress"}]

    tell(story)


def test_a_watcher_that_leaves_is_forgotten_at_once(tell: Tell) -> None:
    async def story(services: FakeServices, http: httpx.AsyncClient) -> None:
        services.migrations.tell({"event": "progress"})
        events = services.migrations.events("m1")
        lines = stream_of(await anext(events), events)
        assert json.loads(await anext(lines)) == {"event": "progress"}
        waiting = asyncio.ensure_future(anext(lines))
        await until(lambda: not services.migrations.news.is_set())
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        with pytest.raises(StopAsyncIteration):
            await anext(events)

    tell(story)


def test_evidence_and_enrolment_are_carried_in_base64(tell: Tell) -> None:
    async def story(services: FakeServices, http: httpx.AsyncClient) -> None:
        shown = (await http.post("attestation", json={"nonce": NONCE})).json()
        assert b64decode(shown["attest"]) == b"attest" + bytes.fromhex(NONCE)
        assert (shown["certificate"], shown["pcrs"]) == (None, {"0": "00" * 32})
        assert b64decode((await http.post("enrolment/begin")).json()["csr"]) == b"csr"
        challenge = {"blob": b64encode(b"blob").decode()}
        good = challenge | {"encrypted_secret": b64encode(b"for this TPM").decode()}
        told = (await http.post("enrolment/activate", json=good)).json()
        assert b64decode(told["secret"]) == b"told by blob"
        bad = challenge | {"encrypted_secret": b64encode(b"for another").decode()}
        assert failure(await http.post("enrolment/activate", json=bad), 403)["kind"] == "credential"
        await http.post("enrolment/finish", json={"certificate": "PEM", "enrolment": "DSSE"})
        assert services.enrolment.installed == (b"PEM", b"DSSE")
        assert (await http.get("host")).json()["enrolled"]

    tell(story)


def test_receipts_and_log_are_shown_as_they_are_kept(tell: Tell) -> None:
    async def story(services: FakeServices, http: httpx.AsyncClient) -> None:
        assert (await http.get("receipts")).json()[0]["session"] == "5e55"
        assert (await http.get("receipts/5e55")).content == services.receipts.read("5e55")
        log = (await http.get("log")).json()
        assert [b64decode(leaf) for leaf in log["leaves"]] == [b"one", b"two"]
        assert (log["host"], log["size"], log["tree_head"]) == ("a", 2, "signed head")

    tell(story)


def test_the_description_covers_every_path_and_names_the_shape_of_failures(tell: Tell) -> None:
    async def story(services: FakeServices, http: httpx.AsyncClient) -> None:
        described = (await http.get("http://daemon/openapi.json")).json()
        assert all(path.startswith("/v1/") for path in described["paths"])
        assert "/v1/migrations/{migration}/events" in described["paths"]
        create = described["paths"]["/v1/vms"]["post"]["responses"]
        assert create["default"]["content"]["application/json"]["schema"]["$ref"].endswith("FailureAnswer")
        assert (await http.get("http://daemon/docs")).status_code == 404

    tell(story)
