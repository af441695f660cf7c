"""Hosts, files and processes that fail in the middle of the story: the VM is never lost."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable

import msgspec
import pytest

from fakes.faults import Fault
from fakes.hypervisor import Trouble
from fakes.journal import MemoryJournal
from fakes.migration_site import PATIENCE_S, VM, Site, Tell
from fakes.vtpm import TpmProcess
from korora.errors import ToolError
from korora.migration.crossing import inbound
from korora.migration.greeting import survey
from korora.migration.papers import receipts
from korora.migration.recovery.settling import Settling
from korora.model.identity import VmName
from korora.model.ownership import Status
from korora.ports.journal import VmRecord
from korora.protocol import canonical
from korora.protocol.receipt import document


@pytest.mark.parametrize("host", ["a", "b"])
def test_a_host_that_cannot_write_its_files_undoes_and_says_so(
    tell: Tell, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(site: Site) -> None:
        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device", "/var/lib/korora/x")

        broken = (survey, "file_digests") if host == "a" else (survey, "lay_variables")
        monkeypatch.setattr(*broken, full)
        outcome = await site.migrate("a", "b")
        assert outcome["outcome"] == "failed"
        assert outcome["error"]["kind"] == "files"
        assert "No space left" in outcome["error"]["message"]
        assert (outcome["error"]["exit_code"], outcome["error"]["vm_runs_on"]) == (6, "a")
        await site.recover()
        site.runs_only_on("a")

    tell(story)


def test_an_undo_that_breaks_is_told_of_and_gone_on_from(tell: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(site: Site) -> None:
        async def breaks(*_: object) -> None:
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(inbound.Inbound, "abandon", breaks)
        site.plan.faults["a:machine.switch_over#1"] = Fault.FAIL
        outcome = await site.migrate("a", "b")
        assert outcome["outcome"] == "failed"
        monkeypatch.undo()
        await site.recover()
        site.runs_only_on("a")

    tell(story)


def test_a_journal_that_cannot_be_read_for_a_while_does_not_end_recovery(
    tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(site: Site) -> None:
        failed = asyncio.Event()

        def broken(_journal: MemoryJournal) -> list[VmRecord]:
            failed.set()
            raise ToolError("disk error", kind="journal")

        with monkeypatch.context() as meanwhile:
            meanwhile.setattr(MemoryJournal, "vms", broken)
            await asyncio.wait_for(failed.wait(), PATIENCE_S)
            await asyncio.sleep(0)
        site.plan.deeds["a:say Release#1"] = site.part
        await site.migrate("a", "b")
        await site.recover()  # by the loop that met the error

    tell(story)


def test_a_journal_that_cannot_be_read_after_the_release_does_not_hide_the_outcome(
    tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(site: Site) -> None:
        def broken(_journal: MemoryJournal, _vm: VmName) -> VmRecord | None:
            raise ToolError("disk error", kind="journal")

        def part_and_break() -> None:
            site.part()
            monkeypatch.setattr(MemoryJournal, "vm", broken)

        site.plan.deeds["a:say Release#1"] = part_and_break
        outcome = await site.migrate("a", "b")
        assert (outcome["outcome"], outcome["error"]["exit_code"]) == ("in-doubt", 7)
        monkeypatch.undo()
        await site.recover()
        site.runs_only_on("b")

    tell(story)


def test_a_deed_of_recovery_that_the_disk_did_not_take_is_done_again(
    tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(site: Site) -> None:
        tries = 0
        destroy = Settling._destroy

        async def fails_once(settling: Settling) -> None:
            nonlocal tries
            tries += 1
            if tries == 1:
                raise OSError(errno.EIO, "Input/output error")
            await destroy(settling)

        monkeypatch.setattr(Settling, "_destroy", fails_once)
        site.plan.deeds["b:say Accept#1"] = site.part
        assert (await site.migrate("a", "b"))["outcome"] == "failed"
        await site.recover()
        assert tries > 1
        site.runs_only_on("a")

    tell(story)


def test_a_source_that_files_another_receipt_than_was_countersigned_is_found_out(
    tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(site: Site) -> None:
        first = await site.migrate("a", "b")
        kept = site["a"].directory / "receipts" / f"{first['session']}.json"
        forged = kept.read_bytes()
        await site.recover()

        monkeypatch.setattr(receipts, "file_bundle", lambda *_: forged)
        second = await site.migrate("b", "a")
        await site.recover()
        assert not (site["a"].directory / "receipts" / f"{second['session']}.json").exists()

    tell(story)


def _as_it_is(bundle: bytes) -> bytes:
    return bundle


def _without_the_sources_proof(bundle: bytes) -> bytes:
    read = document.parse_bundle(bundle)
    return document.bundle(bytes(read.receipt), read.logs[1], read.logs[1])


def _with_another_place_in_the_sources_log(bundle: bytes) -> bytes:
    read = document.parse_bundle(bundle)
    elsewhere = msgspec.structs.replace(read.logs[0], index=read.logs[0].index + 1)
    return document.bundle(bytes(read.receipt), elsewhere, read.logs[1])


def _with_another_place_in_the_destinations_log(bundle: bytes) -> bytes:
    read = document.parse_bundle(bundle)
    elsewhere = msgspec.structs.replace(read.logs[1], index=read.logs[1].index + 1)
    return document.bundle(bytes(read.receipt), read.logs[0], elsewhere)


def _with_a_third_proof(bundle: bytes) -> bytes:
    read = document.parse_bundle(bundle)
    return canonical.encoded(msgspec.structs.replace(read, logs=(*read.logs, read.logs[0])))


def _without_proofs(bundle: bytes) -> bytes:
    return canonical.encoded(msgspec.structs.replace(document.parse_bundle(bundle), logs=()))


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        (_as_it_is, True),
        (_without_the_sources_proof, False),
        (_with_another_place_in_the_sources_log, False),
        (_with_another_place_in_the_destinations_log, False),
        (_with_a_third_proof, False),
        (_without_proofs, False),
    ],
)
def test_a_destination_keeps_a_bundle_only_with_both_logs_proofs_and_its_own_unchanged(
    tell: Tell, monkeypatch: pytest.MonkeyPatch, change: Callable[[bytes], bytes], kept: bool
) -> None:
    async def story(site: Site) -> None:
        file_bundle = receipts.file_bundle
        monkeypatch.setattr(receipts, "file_bundle", lambda *said: change(file_bundle(*said)))
        done = await site.migrate("a", "b")
        await site.recover()
        path = site["b"].directory / "receipts" / f"{done['session']}.json"
        assert path.exists() == kept
        assert (site["a"].directory / "receipts" / path.name).exists()
        assert not list(path.parent.glob("*.new"))
        site.runs_only_on("b")

    tell(story)


def test_what_cannot_run_there_is_taken_back_and_may_try_again(tell: Tell) -> None:
    async def story(site: Site) -> None:
        site.world.trouble("resume", Trouble.FAIL, "b")
        outcome = await site.migrate("a", "b")
        assert (outcome["outcome"], outcome["error"]["kind"]) == ("refused", "declined")
        assert outcome["error"]["vm_runs_on"] == "a"
        await site.recover()
        site.runs_only_on("a")
        assert [(one.status, one.epoch) for one in site.standings()] == [
            (Status.OWNER, 3),
            (Status.ABSENT, 3),
        ]
        assert (await site.migrate("a", "b"))["outcome"] == "completed"
        await site.recover()
        site.runs_only_on("b")

    tell(story)


def test_a_run_whose_answer_was_lost_is_no_reason_to_decline(tell: Tell) -> None:
    async def story(site: Site) -> None:
        site.world.trouble("resume", Trouble.FAIL_AFTER, "b")
        assert (await site.migrate("a", "b"))["outcome"] == "completed"
        await site.recover()
        site.runs_only_on("b")

    tell(story)


@pytest.mark.parametrize(
    "step", ["listen", "stream-load", "run_state", "start_incoming", "prove_clean", "cancel_stream"]
)
def test_a_destination_process_that_dies_costs_nothing(tell: Tell, step: str) -> None:
    async def story(site: Site) -> None:
        site.world.trouble(step, Trouble.DIE, "b")
        outcome = await site.migrate("a", "b")
        await site.recover()
        site.runs_only_on("a" if outcome["outcome"] != "completed" else "b")

    tell(story)


def test_forged_vtpm_state_is_the_reason_though_the_hypervisor_dies_of_it(
    tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = TpmProcess.take_out

    def forged(process: TpmProcess) -> bytes:
        state = honest(process)
        return state[:-1] + bytes([state[-1] ^ 1])

    monkeypatch.setattr(TpmProcess, "take_out", forged)

    async def story(site: Site) -> None:
        outcome = await site.migrate("a", "b")
        error = outcome["error"]
        assert (error["kind"], error["exit_code"], error["vm_runs_on"]) == ("vtpm-blob", 5, "a"), error
        assert "savestate blob is not authentic" in error["message"]
        await site.recover()
        site.runs_only_on("a")

    tell(story)


def test_a_process_that_dies_between_accept_and_release_is_declined(tell: Tell) -> None:
    async def story(site: Site) -> None:
        def die() -> None:
            next(guest for guest in site.world.living(VM) if guest.host == "b").die()

        site.plan.deeds["a:journal.write_vm#2"] = die
        outcome = await site.migrate("a", "b")
        assert outcome["error"]["vm_runs_on"] == "a", outcome
        await site.recover()
        site.runs_only_on("a")

    tell(story)


@pytest.mark.parametrize("step", ["send", "stream-active", "switch_over", "stream-device"])
def test_a_source_process_that_dies_takes_the_vm_with_it_and_says_so(tell: Tell, step: str) -> None:
    async def story(site: Site) -> None:
        site.world.trouble(step, Trouble.DIE, "a")
        outcome = await site.migrate("a", "b")
        assert outcome["outcome"] == "failed"
        assert outcome["error"]["vm_runs_on"] is None
        await site.recover()
        assert site.owner() == "a"
        assert not site.world.living(VM)
        site.holds_only("a")

    tell(story)


def test_a_source_process_that_dies_after_its_offer_leaves_the_last_copy_at_the_destination(
    tell: Tell,
) -> None:
    async def story(site: Site) -> None:
        def die() -> None:
            next(guest for guest in site.world.living(VM) if guest.host == "a").die()
            site.part()

        site.plan.deeds["a:hear Accept#1"] = die
        await site.migrate("a", "b")
        await site.recover()
        site.runs_only_on("b")

    tell(story)
