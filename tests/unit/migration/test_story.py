"""The whole story on two or three hosts, as it should go."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from fakes.migration_site import DEFINITION, VM, Site, Tell, receipts_in
from korora.migration.crossing import outbound
from korora.model.definition import parse_definition
from korora.model.identity import VmName
from korora.model.ownership import Status
from korora.model.plan import Mode
from korora.model.vm import RunState
from korora.ports.hypervisor import Place
from korora.protocol import messages
from korora.protocol.receipt.document import Limit
from korora.supervision.boots.eventlog import framed
from korora.supervision.boots.record import EVENT_LOG_FILE, read_logs


@pytest.mark.parametrize("mode", Mode)
def test_a_vm_moves_and_both_hosts_keep_the_receipt(tell: Tell, mode: Mode) -> None:
    async def story(site: Site) -> None:
        outcome = await site.migrate("a", "b", mode)
        assert outcome["outcome"] == "completed", outcome["error"]
        assert outcome["vtpm"] == {"ek_same": True, "pcrs_same": True, "nv_same": True}
        await site.recover()
        site.runs_only_on("b")
        name = f"{outcome['session']}.json"
        kept = [(host.directory / "receipts" / name).read_bytes() for host in site.hosts.values()]
        assert kept[0] == kept[1]
        assert [len(receipts_in(host.disk.leaves)) for host in site.hosts.values()] == [1, 1]

    tell(story)


def test_a_chain_ends_where_it_began_though_that_host_wiped_it(tell: Tell) -> None:
    async def story(site: Site) -> None:
        before = next(iter(site.tpms.processes.values())).permanent
        for source, destination in (("a", "b"), ("b", "c"), ("c", "a"), ("a", "b")):
            outcome = await site.migrate(source, destination)
            assert outcome["outcome"] == "completed", outcome["error"]
            await site.recover()
            site.runs_only_on(destination)
        assert next(iter(site.tpms.processes.values())).permanent == before
        assert [(one.status, one.epoch) for one in site.standings()] == [
            (Status.WIPED, 5),
            (Status.OWNER, 5),
            (Status.WIPED, 4),
        ]

    tell(story, hosts="abc")


def test_a_stopped_vm_moves_cold_and_starts_there_and_comes_back(tell: Tell) -> None:
    async def story(site: Site) -> None:
        await site["a"].do(lambda: site["a"].guests.stop(VM, force=True))
        outcome = await site.migrate("a", "b", Mode.OFFLINE)
        assert outcome["outcome"] == "completed", outcome["error"]
        await site.recover()
        site.rests_only_on("b")
        await site["b"].do(lambda: site["b"].guests.start(VM))
        assert (await site.migrate("b", "a"))["outcome"] == "completed"
        await site.recover()
        site.runs_only_on("a")

    tell(story)


def test_what_a_guest_tells_of_its_boot_while_it_moves_arrives_with_it(tell: Tell) -> None:
    """Told after the baseline was taken: a log, and half of another one."""

    async def story(site: Site) -> None:
        told = framed(b"a late boot") + framed(b"under way")[:-3]
        source = site["a"].guests.directory(VM) / EVENT_LOG_FILE
        site.plan.deeds["a:machine.send#1"] = lambda: source.write_bytes(told)
        outcome = await site.migrate("a", "b")
        assert outcome["outcome"] == "completed", outcome["error"]
        await site.recover()
        there = site["b"].guests.directory(VM)
        assert (there / EVENT_LOG_FILE).read_bytes() == told
        assert read_logs(there).frames == (b"a late boot",)

    tell(story)


def test_a_switchover_past_its_deadline_is_said_to_be_that_and_the_vm_runs_on(
    tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbound, "SWITCHOVER_DEADLINE_S", 0.0)

    async def story(site: Site) -> None:
        outcome = await site.migrate("a", "b")
        assert (outcome["error"]["kind"], outcome["error"]["exit_code"]) == ("switchover-timeout", 6)
        await site.recover()
        site.runs_only_on("a")

    tell(story)


def test_a_boot_that_was_told_of_a_moment_ago_is_judged_before_the_guest_moves(tell: Tell) -> None:
    async def story(site: Site) -> None:
        source = site["a"].guests.directory(VM) / EVENT_LOG_FILE
        source.write_bytes(framed(b"just now"))
        outcome = await site.migrate("a", "b")
        assert outcome["attested"]["guest_boot"] == "learned"

    tell(story)


def test_a_boot_record_that_the_source_did_not_sign_is_not_taken(tell: Tell) -> None:
    async def story(site: Site) -> None:
        def swap(body: bytes) -> bytes:
            message = messages.decode(body)
            if isinstance(message, messages.Manifest):
                body = messages.encode(msgspec.structs.replace(message, boot_record=b"another"))
            return body

        site["a"].change = swap
        outcome = await site.migrate("a", "b")
        assert (outcome["error"]["kind"], outcome["error"]["exit_code"]) == ("evidence-differs", 5)
        await site.recover()
        site.runs_only_on("a")

    tell(story)


def test_an_adopted_vm_that_moved_is_found_again_and_moves_on(tell: Tell) -> None:
    async def story(site: Site) -> None:
        theirs = VmName("theirs")

        async def moved(source: str, destination: str) -> Any:
            envelope, migrations = site.request(source, destination, vm=theirs), site[source].migrations
            return await site.follow(source, await site[source].do(lambda: migrations.begin(envelope, None)))

        foreign = Place(site["a"].directory / "elsewhere", None)
        image = site["a"].directory / "theirs.raw"
        image.write_bytes(b"stays")
        text = f'name = "{theirs}"\nmemory = "16M"\n[vtpm]\nenabled = false\n[[disks]]\npath = "{image}"\n'
        described = replace(parse_definition(text), adopted=True, hardware=("-nodefaults",))
        await site["a"].machines.start(described, foreign, incoming=False)
        await site["a"].do(lambda: site["a"].guests.adopt(foreign.qmp))
        first = await moved("a", "b")
        assert first["outcome"] == "completed", first["error"]
        assert f"{Limit.ADOPTED_DISKS}: {image}" in first["limits"]
        assert image.read_bytes() == b"stays"
        await site["b"].crash()
        await site["b"].start()
        assert (await site["b"].guests.status(theirs)).state is RunState.RUNNING
        assert (await moved("b", "a"))["outcome"] == "completed"
        await site["a"].crash()
        await site["a"].start()
        assert (await site["a"].guests.status(theirs)).state is RunState.RUNNING

    tell(story)


def test_an_adopted_vm_that_seems_stopped_is_not_moved_cold(tell: Tell) -> None:
    async def story(site: Site) -> None:
        disk = site["a"].disk
        await site["a"].do(lambda: site["a"].guests.stop(VM, force=True))
        disk.vms[VM] = replace(disk.vms[VM], definition="adopted = true\n" + DEFINITION, qmp_socket="/gone")
        outcome = await site.migrate("a", "b", Mode.OFFLINE)
        assert (outcome["outcome"], outcome["error"]["kind"]) == ("refused", "not-running")

    tell(story)
