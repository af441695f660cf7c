"""Measured boots: what the guest writes is parsed without trust, learned once, and appraised every time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.guests_boots import FakeAppraiser
from fakes.guests_world import FakeVtpm, World, until
from korora.errors import ToolError
from korora.model.identity import VmName
from korora.ports.clock import SystemClock
from korora.supervision.boots.eventlog import FILE_LIMIT_BYTES, FRAME_LIMIT_BYTES, framed, read_guest_logs
from korora.supervision.boots.record import (
    EVENT_LOG_FILE,
    BootVerdict,
    BootWord,
    forget_boot,
    pack,
    read_baseline,
    read_logs,
    take_over,
    write_baseline,
)
from korora.supervision.boots.watch import BootWatch

WEB = VmName("web")


class Guest:
    """A guest whose PCRs and event log file a test writes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.world = World()
        self.boot("aa")

    def boot(self, pcr4: str) -> None:
        self.world.vtpms[WEB] = dict.fromkeys(range(24), "00") | {4: pcr4}

    def write(self, data: bytes) -> None:
        with (self.directory / EVENT_LOG_FILE).open("ab") as stream:
            stream.write(data)

    def watch(self, silent_after_s: float = 300.0) -> BootWatch:
        vtpm = FakeVtpm(self.world, WEB, self.directory)
        return BootWatch(
            WEB,
            self.directory,
            vtpm,
            FakeAppraiser(),
            SystemClock(),
            silent_after_s=silent_after_s,
            poll_s=0.005,
        )

    def look(self, watch: BootWatch | None = None) -> BootVerdict:
        watch = watch or self.watch()
        asyncio.run(watch.look())
        return watch.verdict


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    return Guest(tmp_path)


def test_the_first_boot_is_learned_and_the_same_boot_is_trusted(guest: Guest) -> None:
    guest.write(framed(b"log"))
    first = guest.look()
    assert (first.word, first.secure_boot, first.boots) == (BootWord.LEARNED, True, 1)
    forget_boot(guest.directory)
    guest.write(framed(b"log"))
    assert guest.look().word is BootWord.TRUSTED


def test_another_boot_is_untrusted_and_the_baseline_stays(guest: Guest) -> None:
    guest.write(framed(b"log"))
    guest.look()
    baseline = read_baseline(guest.directory)
    forget_boot(guest.directory)
    guest.boot("bb")
    guest.write(framed(b"log"))
    verdict = guest.look()
    assert verdict.word is BootWord.UNTRUSTED
    assert verdict.reasons == ("PCR 4 is not as in the baseline",)
    assert read_baseline(guest.directory) == baseline


def test_a_first_boot_that_does_not_replay_is_not_learned(guest: Guest) -> None:
    guest.write(framed(b"evil"))
    assert guest.look().word is BootWord.UNTRUSTED
    assert read_baseline(guest.directory) is None


def test_a_reboot_inside_the_same_process_is_appraised(guest: Guest) -> None:
    watch = guest.watch()
    guest.write(framed(b"log"))
    assert guest.look(watch).boots == 1
    guest.boot("bb")
    guest.write(framed(b"log"))
    verdict = guest.look(watch)
    assert (verdict.word, verdict.boots) == (BootWord.UNTRUSTED, 2)


def test_a_reboot_that_the_guest_does_not_tell_takes_the_trust_away(guest: Guest) -> None:
    guest.write(framed(b"log"))
    verdict = guest.look()
    assert verdict.still_holds(guest.world.vtpms[WEB]) is verdict
    guest.world.vtpms[WEB][16] = "ff"  # the guest's own registers may change
    assert verdict.still_holds(guest.world.vtpms[WEB]) is verdict
    guest.boot("bb")
    assert verdict.still_holds(guest.world.vtpms[WEB]).word is BootWord.UNTRUSTED


def test_a_log_that_is_still_being_written_is_waited_for(guest: Guest) -> None:
    watch = guest.watch()
    guest.write(framed(b"log")[:-1])
    assert guest.look(watch).word is BootWord.WAITING
    guest.write(b"g")
    assert guest.look(watch).word is BootWord.LEARNED


@pytest.mark.parametrize(
    "data",
    [
        b"garbage",
        b"KEVX\0\0\0\0",
        b"KEVL" + (FRAME_LIMIT_BYTES + 1).to_bytes(4, "big"),
        framed(b"log") + b"x",
    ],
)
def test_bytes_that_are_no_event_log_are_untrusted(guest: Guest, data: bytes) -> None:
    guest.write(data)
    verdict = guest.look()
    assert verdict.word is BootWord.UNTRUSTED
    assert verdict.reasons


def test_a_guest_that_floods_the_port_is_untrusted(guest: Guest) -> None:
    guest.write(framed(b"log"))
    with (guest.directory / EVENT_LOG_FILE).open("r+b") as stream:
        stream.truncate(FILE_LIMIT_BYTES + 1)
    assert guest.look().word is BootWord.UNTRUSTED


def test_of_a_silent_guest_the_pcrs_are_compared(guest: Guest) -> None:
    async def story() -> BootVerdict:
        watch = guest.watch(silent_after_s=0.0)
        task = asyncio.create_task(watch.run())
        await until(lambda: watch.verdict.word is not BootWord.WAITING)
        task.cancel()
        return watch.verdict

    assert asyncio.run(asyncio.wait_for(story(), 60)).word is BootWord.LEARNED
    forget_boot(guest.directory)
    assert asyncio.run(asyncio.wait_for(story(), 60)).word is BootWord.TRUSTED
    forget_boot(guest.directory)
    guest.boot("bb")
    assert asyncio.run(asyncio.wait_for(story(), 60)).word is BootWord.UNTRUSTED


def test_a_vtpm_that_does_not_answer_is_asked_again(guest: Guest) -> None:
    pcrs = guest.world.vtpms.pop(WEB)
    guest.write(framed(b"log"))
    watch = guest.watch()
    with pytest.raises(ToolError):
        guest.look(watch)

    async def story() -> None:
        task = asyncio.create_task(watch.run())
        await asyncio.sleep(0.05)
        assert watch.verdict.word is BootWord.WAITING
        guest.world.vtpms[WEB] = pcrs
        await until(lambda: watch.verdict.word is BootWord.LEARNED)
        task.cancel()

    asyncio.run(asyncio.wait_for(story(), 60))


def test_a_verdict_outlives_the_daemon_and_is_not_judged_twice(guest: Guest) -> None:
    guest.write(framed(b"log"))
    first = guest.look()
    again = guest.watch()
    assert again.verdict == first
    assert guest.look(again) == first


def moved(guest: Guest, folder: Path) -> Guest:
    """The same guest on another host, whose QEMU opened the event log before the record was laid down."""
    there = folder / "there"
    there.mkdir()
    (there / EVENT_LOG_FILE).write_bytes(b"of an earlier stay")
    opened = (there / EVENT_LOG_FILE).open("ab")
    take_over(there, pack(guest.directory))
    opened.close()
    return Guest(there)


def test_an_arrived_vm_is_appraised_by_the_log_and_baseline_that_came_with_it(
    guest: Guest, tmp_path: Path
) -> None:
    guest.write(framed(b"old") + framed(b"log"))
    guest.look()
    arrived = moved(guest, tmp_path)
    assert arrived.look().word is BootWord.TRUSTED
    assert pack(arrived.directory) == pack(guest.directory)
    arrived.boot("bb")
    arrived.write(framed(b"new"))
    assert arrived.look().word is BootWord.UNTRUSTED


def test_an_arrived_vm_whose_pcrs_are_others_is_untrusted(guest: Guest, tmp_path: Path) -> None:
    guest.write(framed(b"log"))
    guest.look()
    arrived = moved(guest, tmp_path)
    arrived.boot("bb")
    assert arrived.look().word is BootWord.UNTRUSTED


def test_what_the_hypervisor_appends_after_the_record_is_laid_down_is_read(
    guest: Guest, tmp_path: Path
) -> None:
    guest.write(framed(b"log"))
    guest.look()
    with (tmp_path / EVENT_LOG_FILE).open("ab") as hypervisor:
        take_over(tmp_path, pack(guest.directory))
        hypervisor.write(framed(b"new"))
    assert read_logs(tmp_path).frames == (b"log", b"new")


def test_a_log_that_was_being_written_is_whole_once_the_rest_of_it_came(guest: Guest, tmp_path: Path) -> None:
    guest.write(framed(b"log") + framed(b"next")[:-2])
    guest.look()
    moved(guest, tmp_path)
    with (tmp_path / EVENT_LOG_FILE).open("ab") as hypervisor:
        hypervisor.write(framed(b"next")[-2:])
    assert read_logs(tmp_path).frames == (b"log", b"next")


def test_a_file_that_makes_no_sense_makes_none_where_it_arrives(guest: Guest, tmp_path: Path) -> None:
    guest.write(framed(b"log") + b"nonsense")
    guest.look()
    arrived = moved(guest, tmp_path)
    verdict = arrived.look()
    assert verdict.word is BootWord.UNTRUSTED
    assert "not framed" in verdict.reasons[0]


def test_a_vm_without_a_boot_record_arrives_as_one_that_never_booted(tmp_path: Path) -> None:
    assert pack(tmp_path) is None
    write_baseline(tmp_path, b"of an earlier stay")
    take_over(tmp_path, None)
    assert read_baseline(tmp_path) is None
    assert read_logs(tmp_path).latest is None


@pytest.mark.parametrize(
    "packed", [b"", b"[]", b'{"baseline": 3}', b'{"event_log": "!"}', b"\xff", b'{"x": 1}']
)
def test_a_boot_record_that_is_none_makes_the_boot_untrusted(tmp_path: Path, packed: bytes) -> None:
    take_over(tmp_path, packed)
    verdict = Guest(tmp_path).look()
    assert verdict.word is BootWord.UNTRUSTED
    assert "not readable" in verdict.reasons[0]


@given(st.lists(st.binary(max_size=40), max_size=5), st.data())
def test_every_cut_of_a_file_gives_its_first_whole_frames(logs: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(framed(log) for log in logs)
    cut = data.draw(st.integers(0, len(whole)))
    read = read_guest_logs(whole[:cut])
    assert not read.fault
    assert list(read.frames) == logs[: len(read.frames)]
    assert cut < len(whole) or len(read.frames) == len(logs)
    assert b"".join(map(framed, read.frames)) + read.rest == whole[:cut]


@given(st.binary(max_size=200))
def test_any_bytes_are_taken_apart_without_an_exception(data: bytes) -> None:
    read = read_guest_logs(data)
    assert b"".join(framed(frame) for frame in read.frames) == data[: sum(len(f) + 8 for f in read.frames)]
