"""The first half: two hosts, a guest with a vTPM, and its live migration, seen from inside and outside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from korora.errors import ToolError
from korora.lab.demo.scene import Scene
from korora.lab.demo.witness import Look, changed, comparison, short, tick_complaints, tick_words
from korora.lab.guest.image import guest_image
from korora.lab.machines import write_machine

RECEIPT = "receipt.json"  # our copy: a receipt is a file that one gives away
_BOOT_DEADLINE_S = 180.0
_CLOCKS_DIFFER_MS = 200  # on a busy machine a datagram, like everything, may wait


def open_the_lab(scene: Scene) -> None:
    """`korora lab up` has been typed by the caller; here is what it made."""
    stage, shell = scene.stage, scene.shell
    stage.say("Everything below is typed in the lab's folder:")
    stage.command(f"cd {scene.layout.directory}; export KORORA_CONFIG=$PWD/korora.toml")
    shell.must("korora host show a")
    facts = shell.ask("host", "show", "a")
    hypervisor = facts["hypervisor"] or {}
    accelerator = hypervisor.get("accelerator")
    if accelerator == "tcg":
        stage.say("Guests are emulated here (TCG), so all times below are longer than on real hardware.")
    scene.show(
        "two hosts",
        "enrolled, TPMs answer",
        f"both are; guests run under {accelerator}",
        good=all(_ready(shell.ask("host", "show", name)) for name in ("a", "b")),
    )


def boot_the_guest(scene: Scene) -> None:
    """A real Linux guest with a vTPM on host a; it reports on itself."""
    stage, machine = scene.stage, scene.size.guest
    write_machine(scene.layout, machine, guest_image())
    scene.shell.must(f"korora -H a vm start machines/{machine.name}.toml")
    stage.gap()
    stage.say(
        "The guest boots: Debian's kernel, a memory pattern it keeps checking, a vTPM with its own secret."
    )
    took_s = scene.witness.await_boot(_BOOT_DEADLINE_S)
    scene.witness.watch()
    scene.first = said = scene.witness.look().said
    stage.say(f"After {took_s:.0f} s it ticks, and reports:")
    stage.facts(
        [
            ("kernel", f"{said.uname}, {said.firmware}"),
            ("memory pattern", f"{said.pages} pages, {said.errors} errors"),
            ("a text it keeps", f'"{said.secret}"'),
            *((name, short(value)) for name, value in said.identity),
        ]
    )
    complaints = [] if said.ek and not said.errors else ["no vTPM, or a damaged pattern"]
    scene.show(
        "a guest with a vTPM, on a",
        "boots, memory intact",
        ", ".join(complaints) or f"up in {took_s:.0f} s, {said.pages} pages intact",
        good=not complaints,
    )


def migrate_live(scene: Scene) -> None:
    """a → b while it runs; then its own word, the observer's, and the receipt's."""
    before = scene.witness.look().said
    scene.witness.watch()
    scene.shell.must(f"korora migrate {scene.vm} --to b")
    look = scene.witness.look()
    _keep_receipt(scene, "a")
    told = scene.shell.ask("receipt", "show", RECEIPT)["receipt"]
    stage = scene.stage
    stage.gap()
    stage.say("The guest's own report, before and after. It did not boot again, and its vTPM is the same:")
    stage.columns(comparison(before, look.said, ("a", "b")))
    _judge_identity(scene, look, told)
    _judge_downtime(scene, look, told)
    scene.still_well("the VM after its migration", "b")


def verify_receipt(scene: Scene) -> None:
    """The signed receipt, checked offline."""
    scene.stage.gap()
    scene.stage.say(
        "Both hosts signed a receipt, and each has entered it in its log. It proves the move to anybody who"
        " knows the site's keys; no host is asked:"
    )
    name = _newest_receipt(scene, "a").name
    scene.stage.command(f"cp hosts/a/state/receipts/{name[:12]}*.json {RECEIPT}")
    code = scene.shell.type(f"korora receipt verify {RECEIPT}")
    scene.show("the signed receipt", "holds, exit 0", f"exit {code}", good=code == 0)


def _judge_identity(scene: Scene, look: Look, told: dict[str, Any]) -> None:
    assert scene.first is not None  # noqa: S101 the guest has booted
    other = changed(scene.first, look.said)
    scene.show(
        "its vTPM and memory, on b",
        "as they were on a",
        f"{', '.join(other)} changed" if other else f"EK, PCRs, NV the same; {look.said.errors} errors",
        good=not other and not look.said.errors,
    )


def _judge_downtime(scene: Scene, look: Look, told: dict[str, Any]) -> None:
    """Outside and inside need not agree to the millisecond; Korora must not flatter itself."""
    reported_ms = float(told["timings"]["downtime_ms"])
    outside_ms, silence_ms = look.standstill_s * 1000, look.ticks.worst.downtime_s * 1000
    complaints = tick_complaints(look.ticks)
    scene.stage.gap()
    scene.stage.say(
        f"Seen from outside, by the guest's ticks every 10 ms: its clock stood still for {outside_ms:.0f} ms;"
        f" the longest silence was {silence_ms:.0f} ms (an emulated guest also falls silent for a moment when"
        " QEMU begins to track its writes)."
    )
    scene.show(
        "downtime",
        "the same from outside",
        f"Korora: {reported_ms:.0f} ms; outside: {outside_ms:.0f} ms",
        good=outside_ms <= 1.5 * reported_ms + _CLOCKS_DIFFER_MS,
    )
    scene.show("ticks meanwhile", "none lost, none doubled", tick_words(look.ticks), good=not complaints)


def _keep_receipt(scene: Scene, host: str) -> None:
    (scene.layout.directory / RECEIPT).write_bytes(_newest_receipt(scene, host).read_bytes())


def _newest_receipt(scene: Scene, host: str) -> Path:
    folder = scene.layout.host(host).state / "receipts"
    found = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise ToolError(f"host {host} has no receipt", kind="demo-stopped")
    return found[-1]


def _ready(host: dict[str, Any]) -> bool:
    return bool(host["enrolled"] and host["tpm_ok"])
