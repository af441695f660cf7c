"""Looking into VMs, and their flags, over the API. All is real but inspector, hypervisor and policies."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from fakes.host_services import RESOLVER, FakeServices, configuration_in
from korora.errors import ToolError
from korora.host.api import create_api
from korora.host.caller import known_as
from korora.model.flag import FlagKind, Place
from korora.model.identity import OperatorName
from korora.model.inspection import Check, Found
from korora.model.inspection_policy import parse_inspection_policy
from korora.protocol import flag
from korora.protocol.dsse import KeyPair
from korora.protocol.flag import Resolution
from korora.supervision.inspection import dossier

Story = Callable[[FakeServices, httpx.AsyncClient], Awaitable[None]]
Tell = Callable[..., None]
FLAGGING = parse_inspection_policy(
    "[checks]\n" + "\n".join(f'{check} = "flag"' for check in Check if check is not Check.FILES), "test"
)
EVIL = Found(kind=FlagKind.INFECTED, place=Place(disk="disk0", path=b"/evil"), reason="clamav: Eicar")
CAROL = KeyPair(RESOLVER)


@pytest.fixture
def tell(tmp_path: Path) -> Tell:
    def told(story: Story, *, user: int = 0) -> None:
        async def whole() -> None:
            services = FakeServices(configuration_in(tmp_path))
            (tmp_path / "disk.raw").write_bytes(b"d" * 3_000_000)
            services.policy = FLAGGING
            await services.guests.define(
                f'name = "web"\nmemory = "64M"\n[[disks]]\npath = "{tmp_path}/disk.raw"\n'
            )
            transport = httpx.ASGITransport(create_api(services), client=(known_as(user), 1))
            async with httpx.AsyncClient(transport=transport, base_url="http://daemon/v1") as http:
                try:
                    await asyncio.wait_for(story(services, http), 60)
                finally:
                    await services.guests.close()

        asyncio.run(whole())

    return told


def lines(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def kind(answer: httpx.Response) -> str:
    assert answer.is_error, answer.text
    return str(answer.json()["error"]["kind"])


async def inspected(http: httpx.AsyncClient) -> dict[str, Any]:
    return lines(await http.post("vms/web/inspection"))[-1]


async def listed(http: httpx.AsyncClient) -> dict[str, list[dict[str, Any]]]:
    told: dict[str, list[dict[str, Any]]] = (await http.get("flags")).json()
    return told


def resolution(name: str, choice: str = "accept", **changed: Any) -> dict[str, str]:
    fields: dict[str, Any] = {
        "by": "carol",
        "vm": "web",
        "flag": name,
        "choice": choice,
        "reason": "seen",
        "nonce": secrets.token_hex(32),
        "issued_at": 0,
        "not_after": 0,
    }
    now = int(time.time())
    fields |= {"issued_at": now, "not_after": now + 600} | changed
    return {"resolution": flag.signed(Resolution(**fields), CAROL).decode()}


def test_an_inspection_tells_how_far_it_is_and_then_what_was_found(tell: Tell) -> None:
    async def story(services: FakeServices, http: httpx.AsyncClient) -> None:
        services.inspector.found = (EVIL,)
        told = lines(await http.post("vms/web/inspection"))
        assert told[0] == {"told": "looks"}
        report, flags = told[-1]["inspection"], told[-1]["flags"]
        assert (report["vm"], report["host"], report["running"]) == ("web", "a", False)
        assert report["disks"][0]["root"].startswith("blake3:")
        assert [one["kind"] for one in flags] == ["infected-file"]
        assert (await http.get("vms/web/inspection")).json() == report
        kinds = [json.loads(leaf)["kind"] for leaf in services.journal.log()]
        assert kinds.count("inspection") == 1

    tell(story)


def test_an_inspection_that_fails_says_why_and_keeps_nothing(tell: Tell) -> None:
    async def story(services: FakeServices, http: httpx.AsyncClient) -> None:
        services.inspector.error = ToolError("it died", kind="inspection")
        assert lines(await http.post("vms/web/inspection"))[-1]["error"]["kind"] == "inspection"
        assert kind(await http.get("vms/web/inspection")) == "unknown-inspection"
        services.inspector.error = None
        assert "inspection" in await inspected(http)  # nobody holds the VM any more

    tell(story)


@pytest.mark.parametrize("path", ["vms/db/inspection", "vms/db/verification"])
def test_a_vm_that_nobody_knows_is_an_error_at_once(tell: Tell, path: str) -> None:
    async def story(services: FakeServices, http: httpx.AsyncClient) -> None:
        assert kind(await http.post(path)) == "unknown-vm"

    tell(story)


def test_without_a_policy_nothing_is_looked_at_and_that_is_an_error(tell: Tell) -> None:
    async def story(services: FakeServices, http: httpx.AsyncClient) -> None:
        services.policy = type(FLAGGING)()
        assert kind(await http.post("vms/web/inspection")) == "no-inspection"

    tell(story)


def test_nobody_starts_or_moves_a_vm_that_is_looked_into(tell: Tell) -> None:
    async def story(services: FakeServices, http: httpx.AsyncClient) -> None:
        services.inspector.gate = asyncio.Event()
        work = asyncio.ensure_future(http.post("vms/web/inspection"))
        while not services.inspector.orders:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        assert kind(await http.post("vms/web/start")) == "busy"
        assert kind(await http.post("vms/web/verification")) == "busy"
        services.inspector.gate.set()
        lines(await work)
        assert (await http.post("vms/web/start")).status_code == 200

    tell(story)


# -- verification ---------------------------------------------------------------------------------------


def test_a_vm_that_did_not_run_is_the_same_and_a_changed_chunk_is_flagged(tell: Tell, tmp_path: Path) -> None:
    async def story(services: FakeServices, http: httpx.AsyncClient) -> None:
        await inspected(http)
        same = lines(await http.post("vms/web/verification"))[-1]["verification"]
        assert (same["ran"], same["proved"], same["compared"]["disks"][0]["chunks_differ"]) == (
            False,
            True,
            0,
        )
        with (tmp_path / "disk.raw").open("r+b") as disk:
            disk.seek(2_500_000)
            disk.write(b"!")
        other = lines(await http.post("vms/web/verification"))[-1]["verification"]
        assert other["compared"]["disks"][0]["chunks_differ"] == 1
        (raised,) = [one["flag"] for one in (await listed(http))["flags"]]
        assert (raised["kind"], raised["place"]["offset"]) == ("chunk-differs", 2 << 20)

    tell(story)


def test_what_differs_after_a_run_is_told_and_not_flagged(tell: Tell, tmp_path: Path) -> None:
    async def story(services: FakeServices, http: httpx.AsyncClient) -> None:
        await inspected(http)
        await services.guests.start("web")
        await services.guests.stop("web", force=True)
        (tmp_path / "disk.raw").write_bytes(b"e" * 3_000_000)
        told = lines(await http.post("vms/web/verification"))[-1]["verification"]
        assert (told["ran"], told["compared"]["disks"][0]["chunks_differ"]) == (True, 3)
        assert await listed(http) == {"flags": [], "unreadable": []}

    tell(story)


def test_a_vm_that_was_never_inspected_cannot_be_verified(tell: Tell) -> None:
    async def story(services: FakeServices, http: httpx.AsyncClient) -> None:
        assert kind(await http.post("vms/web/verification")) == "no-baseline"

    tell(story)


def test_a_baseline_that_was_changed_proves_nothing(tell: Tell, tmp_path: Path) -> None:
    async def story(services: FakeServices, http: httpx.AsyncClient) -> None:
        await inspected(http)
        place = dossier.folder(services.guests.directory("web"))
        path = place / "baseline-disk0.chunks"
        path.write_bytes(b"\0" * len(path.read_bytes()))
        told = lines(await http.post("vms/web/verification"))[-1]["verification"]
        assert not told["proved"]

    tell(story)


@pytest.mark.parametrize(
    ("path", "key"),
    [("flags/resolutions", "resolution"), ("questions/answers", "answer"), ("migrations", "request")],
)
@pytest.mark.parametrize("value", ['"\\ud800"', "1", "null", "[]", '{"a":1}', '"x","more":1'])
def test_what_is_no_text_is_a_bad_request_and_no_bug(tell: Tell, path: str, key: str, value: str) -> None:
    async def story(services: FakeServices, http: httpx.AsyncClient) -> None:
        body, as_json = f'{{"{key}":{value}}}', {"content-type": "application/json"}
        assert kind(await http.post(path, content=body.encode(), headers=as_json)) == "bad-request"

    tell(story)


# -- flags ----------------------------------------------------------------------------------------------


async def one_flag(services: FakeServices, http: httpx.AsyncClient) -> str:
    services.inspector.found = (EVIL,)
    return str((await inspected(http))["flags"][0]["id"])


def test_a_flag_is_accepted_by_a_person_and_stays_so(tell: Tell) -> None:
    async def story(services: FakeServices, http: httpx.AsyncClient) -> None:
        name = await one_flag(services, http)
        answer = await http.post("flags/resolutions", json=resolution(name))
        assert answer.status_code == 200, answer.text
        assert (await inspected(http))["flags"] == []
        leaf = json.loads(services.journal.log()[-2])
        assert (leaf["kind"], leaf["by"], leaf["choice"], leaf["flag"]) == (
            "resolution",
            "carol",
            "accept",
            name,
        )

    tell(story)


def test_a_flag_is_restored_only_once_an_inspection_did_not_find_it_again(
    tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(services: FakeServices, http: httpx.AsyncClient) -> None:
        name = await one_flag(services, http)
        refused = await http.post("flags/resolutions", json=resolution(name, "restore"))
        assert kind(refused) == "not-restored"
        services.inspector.found = ()
        await asyncio.sleep(1.1)  # the host counts in whole seconds
        assert [one["id"] for one in (await inspected(http))["flags"]] == [name]  # open until a person says
        answer = await http.post("flags/resolutions", json=resolution(name, "restore"))
        assert answer.status_code == 200, answer.text
        services.inspector.found = (EVIL,)
        assert [one["id"] for one in (await inspected(http))["flags"]] == [name]  # and open again

    tell(story)


def test_what_could_not_be_looked_at_is_not_restored(tell: Tell) -> None:
    async def story(services: FakeServices, http: httpx.AsyncClient) -> None:
        name = await one_flag(services, http)
        services.inspector.found = ()
        services.policy = parse_inspection_policy('[checks]\nmalware = "off"', "test")
        await asyncio.sleep(1.1)
        await inspected(http)
        assert kind(await http.post("flags/resolutions", json=resolution(name, "restore"))) == "not-restored"

    tell(story)


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"by": "mallory"}, "not-allowed"),
        ({"by": "nobody"}, "unknown-operator"),
        ({"flag": "0" * 32}, "unknown-flag"),
        ({"vm": "db"}, "unknown-vm"),
        ({"reason": ""}, "no-reason"),
        ({"reason": " \n"}, "no-reason"),
        ({"issued_at": 1, "not_after": 2}, "expired-resolution"),
        ({"not_after": 2_000_000_000}, "bad-validity"),
    ],
)
def test_a_word_that_is_not_good_closes_nothing(tell: Tell, changed: dict[str, Any], error: str) -> None:
    async def story(services: FakeServices, http: httpx.AsyncClient) -> None:
        name = await one_flag(services, http)
        fields: dict[str, Any] = {"name": name} | changed
        fields["name"] = fields.pop("flag", name)
        said = resolution(**fields)
        assert kind(await http.post("flags/resolutions", json=said)) == error
        assert len((await inspected(http))["flags"]) == 1

    tell(story)


def test_a_word_counts_once(tell: Tell) -> None:
    async def story(services: FakeServices, http: httpx.AsyncClient) -> None:
        name = await one_flag(services, http)
        said = resolution(name)
        assert (await http.post("flags/resolutions", json=said)).status_code == 200
        assert kind(await http.post("flags/resolutions", json=said)) == "replayed-resolution"

    tell(story)


def test_a_word_by_another_key_is_not_believed(tell: Tell) -> None:
    async def story(services: FakeServices, http: httpx.AsyncClient) -> None:
        name = await one_flag(services, http)
        said = resolution(name)["resolution"].replace("c", "d", 1)
        answer = await http.post("flags/resolutions", json={"resolution": said})
        assert answer.is_error
        assert len((await inspected(http))["flags"]) == 1

    tell(story)


def test_an_original_is_given_and_one_that_was_not_kept_says_why(tell: Tell) -> None:
    async def story(services: FakeServices, http: httpx.AsyncClient) -> None:
        name = await one_flag(services, http)
        assert kind(await http.get(f"vms/web/flags/{name}/original")) == "no-original"
        dossier.original(services.guests.directory("web"), name).write_bytes(b"a bag")
        assert (await http.get(f"vms/web/flags/{name}/original")).content == b"a bag"
        assert kind(await http.get(f"vms/web/flags/{'0' * 32}/original")) == "unknown-flag"

    tell(story)


@pytest.mark.parametrize(("operator", "sees"), [("carol", 1), ("mallory", 0)])
def test_an_operator_sees_the_flags_that_policies_let_him_see(
    tell: Tell, monkeypatch: pytest.MonkeyPatch, operator: str, sees: int
) -> None:
    async def story(services: FakeServices, http: httpx.AsyncClient) -> None:
        services.inspector.found = (EVIL,)
        async for _ in services.inspections.inspect("web"):
            pass
        monkeypatch.setattr(services.operators, "operator_of", lambda account: OperatorName(operator))
        assert len((await listed(http))["flags"]) == sees
        name = services.inspections.flags().flags[0][1].id
        answer = await http.get(f"vms/web/flags/{name}/original")
        assert kind(answer) == ("no-original" if sees else "not-allowed")
        assert kind(await http.post("vms/web/inspection")) == "administrators-only"

    tell(story, user=4242)


# -- what shows that a chunk is back --------------------------------------------------------------------


async def changed_chunk(http: httpx.AsyncClient, disk: Path) -> str:
    """The flag of a chunk that changed while nothing ran."""
    await inspected(http)
    with disk.open("r+b") as file:
        file.seek(2_500_000)
        file.write(b"!")
    await http.post("vms/web/verification")
    (raised,) = [one["flag"] for one in (await listed(http))["flags"]]
    await asyncio.sleep(1.1)  # the host counts in whole seconds
    return str(raised["id"])


def put_back(disk: Path, _: Path) -> None:
    disk.write_bytes(b"d" * 3_000_000)


def taken_away(disk: Path, _: Path) -> None:
    disk.unlink()


def without_baseline(_: Path, place: Path) -> None:
    (place / "baseline-disk0.chunks").unlink()


def another_elsewhere(disk: Path, _: Path) -> None:
    disk.write_bytes(b"e" + b"d" * 2_999_999)


@pytest.mark.parametrize(
    ("deed", "taken"),
    [(put_back, True), (another_elsewhere, True), (taken_away, False), (without_baseline, False)],
)
def test_a_chunk_is_restored_once_it_was_held_against_the_baseline_that_it_differed_from(
    tell: Tell, tmp_path: Path, deed: Callable[[Path, Path], None], taken: bool
) -> None:
    async def story(services: FakeServices, http: httpx.AsyncClient) -> None:
        name = await changed_chunk(http, tmp_path / "disk.raw")
        deed(tmp_path / "disk.raw", dossier.folder(services.guests.directory("web")))
        await http.post("vms/web/verification")
        answer = await http.post("flags/resolutions", json=resolution(name, "restore"))
        assert answer.is_success is taken, answer.text
        if not taken:
            assert kind(answer) == "not-restored"

    tell(story)


def test_a_baseline_that_was_made_of_the_changed_disk_shows_nothing(tell: Tell, tmp_path: Path) -> None:
    async def story(services: FakeServices, http: httpx.AsyncClient) -> None:
        name = await changed_chunk(http, tmp_path / "disk.raw")
        await inspected(http)
        await http.post("vms/web/verification")
        assert kind(await http.post("flags/resolutions", json=resolution(name, "restore"))) == "not-restored"

    tell(story)


def test_flags_that_cannot_be_read_are_not_forgotten(tell: Tell) -> None:
    async def story(services: FakeServices, http: httpx.AsyncClient) -> None:
        await one_flag(services, http)
        record = dossier.folder(services.guests.directory("web")) / dossier.FLAGS
        record.unlink()
        record.mkdir()  # whatever error it may be but that there is none
        assert (await listed(http))["unreadable"][0]["error"]["kind"] == "unreadable-flags"
        assert lines(await http.post("vms/web/inspection"))[-1]["error"]["kind"] == "unreadable-flags"

    tell(story)


@pytest.mark.parametrize("noise", [b"{", b"", b'{"version":1,"vm":"db","flags":[]}', bytes(100)])
def test_one_vm_whose_flags_cannot_be_read_is_named_and_hides_those_of_no_other(
    tell: Tell, noise: bytes
) -> None:
    async def story(services: FakeServices, http: httpx.AsyncClient) -> None:
        await one_flag(services, http)
        await services.guests.define('name = "db"\nmemory = "64M"\n')
        await services.guests.define('name = "mail"\nmemory = "64M"\n')
        place = dossier.folder(services.guests.directory("mail"))
        place.mkdir()
        (place / dossier.FLAGS).write_bytes(noise)
        told = await listed(http)
        assert [one["vm"] for one in told["flags"]] == ["web"]
        (unread,) = told["unreadable"]
        assert unread["vm"] == "mail"
        assert (unread["error"]["kind"], unread["error"]["exit_code"]) == ("unreadable-flags", 5)
        assert str(place / dossier.FLAGS) in unread["error"]["message"]
        assert "korora vm inspect mail" in unread["error"]["remedy"]

    tell(story)


def test_a_vm_whose_flags_cannot_be_read_is_named_to_nobody_who_may_not_see_them(
    tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(services: FakeServices, http: httpx.AsyncClient) -> None:
        services.inspector.found = (EVIL,)
        async for _ in services.inspections.inspect("web"):
            pass
        (dossier.folder(services.guests.directory("web")) / dossier.FLAGS).write_bytes(b"{")
        for operator, sees in (("carol", 1), ("mallory", 0)):
            monkeypatch.setattr(
                services.operators, "operator_of", lambda _, name=operator: OperatorName(name)
            )
            told = await listed(http)
            assert (len(told["unreadable"]), told["flags"]) == (sees, [])

    tell(story, user=4242)
