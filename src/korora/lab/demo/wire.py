"""Attack 1: memory is changed on its way. Nobody notices under plain QEMU; Korora stops."""

from __future__ import annotations

from contextlib import closing

from korora.errors import ExitCode, ToolError
from korora.lab.demo.scene import ATTACKER_PORT, Scene
from korora.lab.demo.witness import account_of
from korora.lab.guest.image import guest_image
from korora.lab.observer import Observer
from korora.lab.plain_qemu import Moved, PlainVm
from korora.lab.tampering import Action, Fault
from korora.lab.xensploit import FORGED_SECRET, GUEST_SECRET, Xensploit, xensploit

_PORT = 7100
_STRUCK_FRAME = 32  # well inside the first pass over memory, whatever the guest's size
_BOOT_DEADLINE_S = 180.0


def against_plain_qemu(scene: Scene) -> None:
    """QEMU's own migration of the same guest, through a man in the middle who edits its memory."""
    scene.stage.say(
        "First without Korora: the same guest under QEMU alone, moved by QEMU's own TCP migration, as most"
        " installations do. A man in the middle changes one word of its memory while it passes"
        " (Xensploit; Oberheide, Cooke and Jahanian, 2008)."
    )
    source, destination = scene.layout.hosts(2)
    machine, image = scene.size.plain, guest_image()
    ip, observer = machine.ip(scene.layout), scene.witness.observer
    listen = (scene.layout.switch_ip, ATTACKER_PORT)
    with PlainVm(scene.layout, source, machine, image) as there:
        observer.wait_for_tick(ip, deadline_s=_BOOT_DEADLINE_S)
        before = account_of(observer.report(ip))
        with (
            PlainVm(scene.layout, destination, machine, image, incoming_port=_PORT) as here,
            closing(xensploit(listen, (destination.ip, _PORT), inside=scene.inside)) as attack,
        ):
            moved = there.migrate(attack.forwarder.address)
            after = _await_text(observer, ip)
            _tell_of_plain(scene, before.secret, moved, after, attack, runs=here.running())


def against_korora(scene: Scene) -> None:
    """The same place in the network; one bit of one frame. The VM is on b, and stays there."""
    scene.stage.gap()
    scene.stage.say(
        "Now the same attacker against Korora. In korora-wire.toml host a has the attacker's address;"
        f" he flips a single bit in data frame {_STRUCK_FRAME}."
    )
    scene.witness.watch()
    a = scene.layout.host("a")
    host, _, port = a.address.rpartition(":")
    with scene.attacker("a", (host, int(port)), "wire") as forwarder:
        forwarder.arm(Fault(Action.FLIP, frame=_STRUCK_FRAME))
        code = scene.shell.type(f"korora --config korora-wire.toml migrate {scene.vm} --to a")
        struck = len(forwarder.struck)
    scene.stage.gap()
    scene.show(
        "attack 1, on Korora",
        "stopped, exit 5",
        f"exit {code}" if struck else f"exit {code}, but the attacker found nothing to change",
        good=code == ExitCode.INTEGRITY and bool(struck),
    )
    scene.still_well("the VM after attack 1", "b")


def without_the_attacker(scene: Scene) -> None:
    scene.stage.gap()
    scene.stage.say("The attacker is gone; the same migration again:")
    scene.witness.watch()
    scene.shell.must(f"korora migrate {scene.vm} --to a")
    scene.stage.gap()
    scene.still_well("migration without attacker", "a")


def _await_text(observer: Observer, ip: str) -> str:
    """What the guest says after its move: the one at the source is stopped, and says nothing."""
    observer.wait_for_tick(ip, deadline_s=60)
    return account_of(observer.report(ip)).secret


def _tell_of_plain(
    scene: Scene, before: str, moved: Moved, after: str, attack: Xensploit, *, runs: bool
) -> None:
    if not runs:
        raise ToolError("the plain guest does not run after its migration", kind="demo-stopped")
    scene.stage.facts(
        [
            ("before, on a", f'the guest reports: "{before}"'),
            ("QEMU", f"migration completed in {moved.total_ms / 1000:.1f} s, no error"),
            ("after, on b", f'the guest reports: "{after}"'),
            ("the attacker", f"changed {attack.replaced} place(s) in {moved.bytes_sent >> 20} MiB of stream"),
        ]
    )
    forged = (before, after) == (_text(GUEST_SECRET), _text(FORGED_SECRET))
    scene.show(
        "attack 1, on QEMU alone",
        "works, unnoticed",
        f"QEMU: completed; door {after.rpartition(' ')[2]}",
        good=forged,
    )


def _text(secret: bytes) -> str:
    return secret.decode().removeprefix("korora-secret: ")
