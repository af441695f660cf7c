"""Attacks 2 and 3: somebody else at the destination's address, and somebody who repeats an old request."""

from __future__ import annotations

from korora.client import Daemon, MigrationOutcome
from korora.errors import ExitCode, KororaError
from korora.lab.demo.impostor import impostor
from korora.lab.demo.journey import RECEIPT
from korora.lab.demo.scene import Scene
from korora.lab.forwarder import Forwarder
from korora.lab.layout import HOST_PORT, LabHost
from korora.lab.lifecycle import restart_daemon
from korora.lab.tampering import Direction, Sort
from korora.protocol import statements
from korora.protocol.receipt.document import parse_bundle, peek

_KIND = "replayed-request"


def another_host_at_the_address(scene: Scene) -> None:
    """c is a host in good standing; it is not b."""
    scene.stage.say(
        "A third host joins the site: c, with a TPM, enrolled, trusted. In korora-swapped.toml b's address"
        " leads to c, as after a DNS or ARP trick."
    )
    scene.shell.must(f"korora lab up --dir {scene.layout.directory} --hosts 3 >lab-up.log")
    scene.shell.must("korora host list")
    scene.stage.gap()
    scene.witness.watch()
    with scene.attacker("b", (scene.layout.host("c").ip, HOST_PORT), "swapped") as forwarder:
        _refused(scene, "swapped", forwarder, "attack 2, c in b's place")


def forged_host_at_the_address(scene: Scene) -> None:
    """A machine of nobody's: it copied all of b's certificate but the signature."""
    scene.stage.gap()
    scene.stage.say(
        "And a machine that is nobody's: it presents b's certificate, word for word, but with a key of its"
        " own and signed by a CA that the attacker made."
    )
    with (
        impostor(scene.layout, scene.layout.host("b"), inside=scene.inside) as address,
        scene.attacker("b", address, "forged") as forwarder,
    ):
        _refused(scene, "forged", forwarder, "attack 2, a self-made b")
    scene.still_well("the VM after attack 2", "a")


def replayed_request(scene: Scene) -> None:
    """The first migration's own request, word for word: valid signature, not expired, VM on a again."""
    bundle = parse_bundle((scene.layout.directory / RECEIPT).read_bytes())
    request = peek(bytes(bundle.receipt)).request
    asked = statements.peek_request(request)
    scene.stage.say(
        f"The first migration's request stands in its receipt: {asked.operator} asks to move {asked.vm} from"
        f" {asked.source} to {asked.destination}; nonce {asked.nonce[:16]}…, valid for ten minutes. The VM is"
        f" on {asked.source} again. Somebody who holds a copy sends it a second time, to a's API:"
    )
    scene.witness.watch()
    host = scene.layout.host(str(asked.source))
    _replay(scene, host, request, "attack 3, a request replayed")
    scene.stage.gap()
    scene.stage.say("Does the host forget when its daemon starts anew? The VM runs on meanwhile.")
    restart_daemon(scene.layout, host)
    scene.shell.must("korora -H a vm list")
    _replay(scene, host, request, "attack 3, after a restart")
    scene.still_well("the VM after attack 3", "a")


def _refused(scene: Scene, name: str, forwarder: Forwarder, step: str) -> None:
    code = scene.shell.type(f"korora --config korora-{name}.toml migrate {scene.vm} --to b")
    scene.stage.gap()
    sent = sum(connection.forwarded[Direction.FORWARD] for connection in forwarder.connections)
    data = sum(connection.sort is not Sort.CONTROL for connection in forwarder.connections)
    scene.show(
        step,
        "refused, exit 3",
        f"exit {code}; {sent} bytes of TLS, {'none' if not data else 'some'} of the VM",
        good=code == ExitCode.REFUSED and bool(forwarder.connections) and not data,
    )


def _replay(scene: Scene, host: LabHost, request: bytes, step: str) -> None:
    found = _answer(host, request)
    if found is None:
        scene.show(step, "refused, exit 3", "accepted", good=False)
        return
    scene.stage.facts([("host a answers", found.message), ("what to do", found.remedy)])
    good = found.kind == _KIND and found.exit_code == ExitCode.REFUSED
    scene.show(step, "refused, exit 3", f"{found.kind}, exit {int(found.exit_code)}", good=good)


def _answer(host: LabHost, request: bytes) -> KororaError | None:
    """What the daemon makes of a request that somebody else signed; None when it obeys."""
    try:
        with Daemon(host.api, host.name) as daemon:
            events = daemon.events(daemon.migrate(request.decode()))
            outcome = next(event for event in events if isinstance(event, MigrationOutcome))
    except KororaError as error:
        return error
    return outcome.error.as_error() if outcome.error else None
