"""A real guest with a real vTPM moves between real hosts, stays what it was, and leaves only proof behind."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import pytest

from end_to_end.conftest import Lab
from end_to_end.hostd import configured
from end_to_end.striking import BACK, READY, held_at
from end_to_end.travelling import Traveller, until
from korora.client import Daemon
from korora.errors import RefusedError
from korora.lab.observer import Outage

pytestmark = pytest.mark.end_to_end

PHASES = [
    "authorize",
    "attest",
    "agree",
    "baseline",
    "transfer",
    "switchover",
    "verify",
    "commit",
    "wipe",
    "receipt",
]
UNIT_S = 60.0  # two accounts of one outage differ by a starved guest's timer, not by a wrong unit or clock


def agree(seen: Outage, outcome: dict[str, Any], begun: float) -> None:
    """The guest was away within the move and no longer than it, by the guest's ticks and by what was said."""
    took_s = time.monotonic() - begun
    assert begun <= seen.began_s <= begun + took_s
    assert 0 < seen.downtime_s < took_s
    assert 0 < outcome["downtime_ms"] < outcome["total_ms"] < took_s * 1000
    assert abs(seen.downtime_s - outcome["downtime_ms"] / 1000) < UNIT_S


def test_a_live_migration_keeps_the_guest_ticking_and_says_how_long_it_was_away(walker: Traveller) -> None:
    source, there = walker.host, walker.other()
    begun = time.monotonic()
    done = walker.move(there)
    assert done.exit_code == 0, (done.outcome, done.stderr)
    walker.observer.wait_for_tick(walker.ip)
    seen = walker.observer.judge(walker.ip, since_s=begun)
    assert (seen.doubled, seen.reboots, seen.reordered) == (0, 0, 0)
    outcome = done.outcome
    assert outcome["outcome"] == "completed"
    assert outcome["error"] is None
    assert (outcome["vm"], outcome["source"], outcome["destination"]) == (
        walker.name,
        source.name,
        there.name,
    )
    assert outcome["mode"] == "live"
    assert outcome["vtpm"] == {"ek_same": True, "pcrs_same": True, "nv_same": True}
    assert outcome["bytes_sent"] > outcome["bytes_guest"] > 16 << 20
    assert 0 < outcome["downtime_ms"] < outcome["total_ms"]
    agree(seen.worst, outcome, begun)
    phases = [line["phase"] for line in done.lines if line.get("event") == "progress"]
    told = list(dict.fromkeys(phases))  # whoever watches begins with the phase that is under way
    assert told == PHASES[-len(told) :]
    assert {"transfer", "commit"} <= set(told)
    assert walker.host == there
    walker.is_whole()
    walker.left_nothing_on(source)


def test_a_host_that_asks_for_multifd_sends_several_streams_that_all_have_a_root(walker: Traveller) -> None:
    source, there = walker.host, walker.other()
    text = f"{source.configuration.read_text()}\n[stream]\nmultifd_channels = 2\n"
    with configured(walker.lab, source, text):
        outcome = walker.moved(there)
    walker.is_whole()
    walker.left_nothing_on(source)
    shown = walker.lab.answer("receipt", "show", outcome["receipt"])
    assert shown["receipt"]["rule"]["streams"] == 3
    roots = shown["manifest"]["carried"]["roots"]
    forward = [root for root in roots if root["direction"] == "forward"]
    assert [root["stream"] for root in forward] == [0, 1, 2]
    assert sum(root["bytes"] > 1 << 20 for root in forward) >= 2, forward


def test_the_receipt_verifies_and_one_flipped_byte_in_it_does_not(walker: Traveller, tmp_path: Path) -> None:
    outcome, lab = walker.last_move(), walker.lab
    receipt = Path(outcome["receipt"])
    assert lab.korora("receipt", "verify", str(receipt)).returncode == 0
    twin = lab.layout.host(outcome["destination"]).state / "receipts" / receipt.name
    assert twin.read_bytes() == receipt.read_bytes()
    shown = lab.answer("receipt", "show", str(receipt))["receipt"]
    for key in ("vm", "source", "destination", "session", "mode"):
        assert shown[key] == outcome[key]
    whole = receipt.read_bytes()
    for place in (len(whole) // 5, len(whole) // 2, len(whole) - 40):
        changed = tmp_path / "changed.json"
        changed.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert lab.korora("receipt", "verify", str(changed)).returncode == 5, place


def test_the_logs_of_both_hosts_hold_the_move_and_verify(walker: Traveller) -> None:
    outcome = walker.last_move()
    for host in (outcome["source"], outcome["destination"]):
        assert walker.lab.korora("log", "verify", host).returncode == 0
        entries = walker.lab.answer("log", "show", host)["entries"]
        assert outcome["session"] in [entry.get("session") for entry in entries]


def test_every_host_says_the_same_of_where_the_guest_is(walker: Traveller) -> None:
    outcome = walker.last_move()
    source, there = outcome["source"], outcome["destination"]
    listed = {v["host"]: v for v in walker.lab.answer("vm", "list") if v["name"] == walker.name}
    assert (listed[there]["owned"], listed[there]["state"]) == (True, "running")
    assert (listed[source]["owned"], listed[source]["ownership"]) == (False, "wiped")
    assert listed[there]["epoch"] == listed[source]["epoch"]
    assert not any(view["moving"] for view in listed.values())
    until(lambda: walker.boot() == "trusted", 60)  # it is judged again where it arrived
    assert walker.lab.answer("vm", "show", walker.name)["host"] == there


def test_a_host_that_gave_the_guest_away_does_not_start_it_again(walker: Traveller) -> None:
    outcome = walker.last_move()
    source = walker.lab.layout.host(outcome["source"])
    definition = walker.lab.layout.machines / f"{walker.name}.toml"
    with Daemon(source.api, source.name) as daemon:
        with pytest.raises(RefusedError) as refused:
            daemon.start(walker.name)
        assert refused.value.kind == "not-owner"
    # The command line finds the VM at its owner, unless it is told which host to ask.
    asked = walker.lab.korora("-H", source.name, "vm", "start", str(definition), "--json")
    assert (asked.returncode, json.loads(asked.stdout)["error"]["kind"]) == (3, "not-owner")
    assert walker.host.name == outcome["destination"]
    walker.left_nothing_on(source)


def test_a_second_migration_at_once_is_refused_and_the_first_arrives(walker: Traveller) -> None:
    source, there = walker.host, walker.other()
    with held_at(walker, BACK, READY) as hold:
        first = walker.order(there, config=hold.config)
        assert hold.reached.wait(60)
        second = walker.move("c")
        hold.go_on.set()
        assert first.ended().exit_code == 0
    assert second.exit_code == 3
    assert second.kind == "moving"
    assert second.error["vm_runs_on"] == source.name
    assert walker.host == there
    walker.is_whole()
    walker.left_nothing_on(source)
    assert walker.remains(walker.lab.layout.host("c")) == []


def test_an_offline_migration_suspends_the_guest_and_resumes_it_there(walker: Traveller) -> None:
    begun = time.monotonic()
    outcome = walker.moved(walker.other(), "--mode", "offline")
    assert outcome["mode"] == "offline"
    seen = walker.observer.judge(walker.ip, since_s=begun)
    assert (seen.doubled, seen.reboots) == (0, 0)
    agree(seen.worst, outcome, begun)
    assert walker.lab.korora("receipt", "verify", outcome["receipt"]).returncode == 0


def test_a_guest_goes_round_three_hosts_and_is_itself_at_each(walker: Traveller) -> None:
    if walker.host.name == "b":
        walker.moved("a")
    epoch = walker.views()["a"].epoch
    for stop in ("b", "c", "a"):
        outcome = walker.moved(stop)
        assert walker.lab.korora("receipt", "verify", outcome["receipt"]).returncode == 0
    assert {name: view.ownership for name, view in walker.views().items()} == {
        "a": "owner",
        "b": "wiped",
        "c": "wiped",
    }
    assert walker.views()["a"].epoch == epoch + 3


def test_a_uefi_guest_with_secure_boot_moves_with_its_variables(keeper: Traveller) -> None:
    assert keeper.before["secure_boot"] is True
    source, there = keeper.host, keeper.other()
    held = _digest(keeper.directory(source) / "variables.fd")
    receipt = keeper.moved(there)["receipt"]
    assert _digest(keeper.directory(there) / "variables.fd") == held
    shown: dict[str, Any] = keeper.lab.answer("receipt", "show", receipt)
    assert shown["manifest"]["files"]["variables"] == f"sha256:{held}"
    assert shown["receipt"]["guest_boot"]["secure_boot"] is True
    assert keeper.lab.korora("receipt", "verify", receipt).returncode == 0
    keeper.moved(source)


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_prechecks_alone_move_nothing(walker: Traveller, lab: Lab) -> None:
    there = walker.other()
    passed = lab.answer("check", walker.name, "--to", there.name)
    assert (passed["passed"], passed["findings"]) == (True, [])
    walker.stayed(walker.host, there)


def test_a_stopped_guest_moves_cold_and_starts_there_with_its_own_tpm(keeper: Traveller) -> None:
    source, there, lab = keeper.host, keeper.other(), keeper.lab
    lab.answer("vm", "stop", keeper.name, "--force")
    done = keeper.move(there, "--mode", "offline")
    assert done.exit_code == 0, (done.outcome, done.stderr)
    assert keeper.views()[there.name].state == "stopped"
    keeper.left_nothing_on(source)
    assert lab.korora("receipt", "verify", done.outcome["receipt"]).returncode == 0
    assert lab.korora("-H", source.name, "vm", "start", keeper.name).returncode == 3
    lab.answer("vm", "start", keeper.name)
    keeper.observer.wait_for_tick(keeper.ip, deadline_s=120)
    now = keeper.report()
    assert keeper.host == there
    assert now["boot"] != keeper.before["boot"]
    for same in ("ek_name", "nv", "pcr16", "secure_boot"):
        assert now[same] == keeper.before[same], same
