"""The source's root forges the vTPM's blobs on their way into the stream: no such TPM ever starts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from end_to_end.conftest import Lab
from end_to_end.hostd import configured, with_hypervisor
from end_to_end.meddler import Change, Meddler, unchanged
from end_to_end.travelling import WALKER, Traveller
from korora.agents.vtpm.interposer.control_channel import SUCCESS, StateReply
from korora.lab.observer import Observer
from korora.model.identity import Secret, SessionId, VmName
from korora.protocol.vtpm_blob import BlobType, blob_context, seal_blob

pytestmark = pytest.mark.end_to_end

INTEGRITY = 5
_OVERHEAD = 32  # header and tag of a sealed blob


@dataclass(frozen=True, slots=True)
class Scene:
    """The guest runs on c, whose root meddles with what its vTPM gives away."""

    walker: Traveller
    meddler: Meddler


@pytest.fixture(scope="module")
def scene(lab: Lab) -> Iterator[Scene]:
    c = lab.layout.host("c")
    onward = c.state / "vms" / WALKER.name / "vtpm" / "hypervisor.sock"
    with (
        Observer(lab.layout.observer_ip, bind=lab.inside) as observer,
        Meddler(lab.layout.directory, onward) as meddler,
        configured(lab, c, with_hypervisor(c, meddler.qemu)),
    ):
        walker = Traveller(lab, observer, WALKER)
        walker.settled()
        try:
            walker.moved(c)
            yield Scene(walker, meddler)
            meddler.meddle(unchanged)
            walker.moved("a")
        finally:
            if "c" in {name for name, view in walker.views().items() if view.owned}:
                lab.korora("vm", "stop", walker.name, "--force")  # its TPM ends with the meddler


def stripped(kind: BlobType) -> Change:
    return lambda which, reply: StateReply(SUCCESS, reply.flags) if which is kind else reply


def under_another_key(kind: BlobType, reply: StateReply) -> StateReply:
    """A state of the same size, well sealed, but not under the key that was wrapped for the destination."""
    context = blob_context(VmName(WALKER.name), SessionId("ab" * 64), 1)
    state = bytes(len(reply.state) - _OVERHEAD)
    sealed = seal_blob(Secret(b"k" * 32), context, kind, reply.flags, state)
    return StateReply(SUCCESS, reply.flags, sealed)


def refused(scene: Scene, change: Change) -> str:
    """The move meets the changed blobs, and fails for that reason; the guest goes on with the TPM it had."""
    walker, layout = scene.walker, scene.walker.lab.layout
    scene.meddler.meddle(change)
    done = walker.move("a")
    assert set(scene.meddler.gave) == set(BlobType), done.outcome
    assert done.exit_code == INTEGRITY, (done.outcome, done.stderr)
    assert (done.outcome["outcome"], done.kind) == ("failed", "vtpm-blob")
    assert done.error["vm_runs_on"] == "c"
    assert done.error["remedy"]
    walker.stayed(layout.host("c"), layout.host("a"))
    return str(done.error["message"])


@pytest.mark.parametrize("kind", list(BlobType), ids=[kind.label for kind in BlobType])
def test_a_stripped_blob_stops_the_move_and_is_named(scene: Scene, kind: BlobType) -> None:
    assert kind.label in refused(scene, stripped(kind))


def test_the_blobs_of_an_older_move_of_the_same_vm_stop_the_move(scene: Scene) -> None:
    older = dict(scene.meddler.arrived)  # they opened once, on this very host
    assert set(older) == set(BlobType)
    assert "another migration" in refused(scene, lambda kind, reply: older[kind])


def test_one_blob_of_an_older_move_stops_the_move(scene: Scene) -> None:
    older = scene.meddler.arrived[BlobType.VOLATILE]
    message = refused(scene, lambda kind, reply: older if kind is BlobType.VOLATILE else reply)
    assert "volatile" in message


def test_blobs_under_another_key_stop_the_move(scene: Scene) -> None:
    assert "under another key" in refused(scene, under_another_key)
