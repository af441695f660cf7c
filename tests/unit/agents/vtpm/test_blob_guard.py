"""What the guard of a vTPM's state lets out, lets in, and lets start."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from korora.agents.vtpm.interposer.blob_guard import TRANSITIONS, BlobGuard, Mode, Order
from korora.errors import IntegrityError, KororaError, RefusedError
from korora.model.identity import Secret, SessionId, VmName, sha256
from korora.protocol.vtpm_blob import BlobType, blob_context, seal_blob

VM, SESSION = VmName("web-1"), SessionId("ab" * 64)
KEY, OTHER_KEY = Secret(b"k" * 32), Secret(b"o" * 32)
STATES = {BlobType.PERMANENT: b"permanent", BlobType.VOLATILE: b"volatile", BlobType.SAVESTATE: b""}


def sending() -> BlobGuard:
    guard = BlobGuard(incoming=False)
    guard.send_under(KEY, VM, SESSION, 2)
    return guard


def accepting() -> BlobGuard:
    guard = BlobGuard(incoming=True)
    guard.accept_under(KEY, VM, SESSION, 2)
    return guard


def blobs() -> dict[BlobType, bytes]:
    context = blob_context(VM, SESSION, 2)
    return {kind: seal_blob(KEY, context, kind, 0, state) for kind, state in STATES.items()}


def test_what_leaves_one_guard_enters_another() -> None:
    source, destination = sending(), accepting()
    whole = None
    for kind, state in STATES.items():
        assert whole is None, "nothing is let through before the last blob verified"
        whole = destination.incoming(kind, 0, source.outgoing(kind, 0, state))
    assert whole == {kind: (0, state) for kind, state in STATES.items()}
    assert source.digests == destination.digests == {kind: sha256(STATES[kind]) for kind in STATES}
    destination.check_start()
    destination.started()
    assert destination.mode is Mode.HOME
    assert destination.loaded


def test_nothing_leaves_without_a_key() -> None:
    guard = BlobGuard(incoming=False)
    with pytest.raises(RefusedError, match="while home"):
        guard.outgoing(BlobType.PERMANENT, 0, b"state")


def test_each_blob_leaves_once_per_key() -> None:
    guard = sending()
    guard.outgoing(BlobType.VOLATILE, 0, b"state")
    with pytest.raises(RefusedError, match="twice"):
        guard.outgoing(BlobType.VOLATILE, 0, b"later state")


def test_a_key_serves_one_move() -> None:
    guard = sending()
    guard.stay()
    with pytest.raises(RefusedError, match="served a move already"):
        guard.send_under(KEY, VM, SESSION, 2)
    guard.send_under(OTHER_KEY, VM, SESSION, 2)
    assert guard.mode is Mode.SENDING


def test_the_same_order_again_changes_nothing() -> None:
    guard = sending()
    guard.outgoing(BlobType.PERMANENT, 0, b"state")
    guard.send_under(KEY, VM, SESSION, 2)
    assert BlobType.PERMANENT in guard.digests


def test_nothing_enters_before_the_key() -> None:
    guard = BlobGuard(incoming=True)
    with pytest.raises(RefusedError, match="while awaiting"):
        guard.incoming(BlobType.PERMANENT, 0, blobs()[BlobType.PERMANENT])


def test_nothing_enters_a_tpm_at_home() -> None:
    with pytest.raises(RefusedError, match="while home"):
        BlobGuard(incoming=False).incoming(BlobType.PERMANENT, 0, b"state")


@pytest.mark.parametrize("present", [set(c) for n in range(3) for c in itertools.combinations(BlobType, n)])
def test_it_does_not_start_while_a_blob_is_missing(present: set[BlobType]) -> None:
    guard, sealed = accepting(), blobs()
    for kind in present:
        guard.incoming(kind, 0, sealed[kind])
    with pytest.raises(RefusedError):
        guard.check_start()
    assert all(kind.label in guard.reason for kind in set(BlobType) - present)


def test_after_one_bad_blob_good_ones_do_not_help() -> None:
    guard, sealed = accepting(), blobs()
    with pytest.raises(IntegrityError):
        guard.incoming(BlobType.PERMANENT, 0, sealed[BlobType.PERMANENT][:-1] + b"\0")
    for kind, blob in sealed.items():
        with pytest.raises(RefusedError, match="earlier blob was refused"):
            guard.incoming(kind, 0, blob)
    with pytest.raises(RefusedError):
        guard.check_start()
    assert "not authentic" in guard.reason


def test_a_blob_that_comes_twice_spoils_the_move() -> None:
    guard, sealed = accepting(), blobs()
    guard.incoming(BlobType.PERMANENT, 0, sealed[BlobType.PERMANENT])
    with pytest.raises(IntegrityError, match="came twice"):
        guard.incoming(BlobType.PERMANENT, 0, sealed[BlobType.PERMANENT])
    with pytest.raises(RefusedError):
        guard.check_start()


def test_a_retired_tpm_neither_gives_nor_starts() -> None:
    guard = sending()
    guard.retire()
    guard.retire()
    with pytest.raises(RefusedError):
        guard.outgoing(BlobType.PERMANENT, 0, b"state")
    with pytest.raises(RefusedError, match="retired"):
        guard.check_start()
    with pytest.raises(RefusedError):
        guard.send_under(OTHER_KEY, VM, SESSION, 3)


def test_a_started_arrival_can_leave_again() -> None:
    guard = accepting()
    for kind, blob in blobs().items():
        guard.incoming(kind, 0, blob)
    guard.check_start()
    guard.started()
    guard.send_under(OTHER_KEY, VM, SESSION, 3)
    assert guard.mode is Mode.SENDING
    assert not guard.digests


@given(st.lists(st.sampled_from(list(Order)), max_size=12), st.booleans())
def test_only_the_table_moves_the_mode(orders: list[Order], incoming: bool) -> None:
    guard = BlobGuard(incoming=incoming)
    acts: dict[Order, Callable[[Secret], None]] = {
        Order.SEND_UNDER: lambda key: guard.send_under(key, VM, SESSION, 2),
        Order.ACCEPT_UNDER: lambda key: guard.accept_under(key, VM, SESSION, 2),
        Order.STAY: lambda _: guard.stay(),
        Order.RETIRE: lambda _: guard.retire(),
    }
    for number, order in enumerate(order for order in orders if order in acts):
        before = guard.mode
        try:
            acts[order](Secret(bytes([number]) * 32))
        except KororaError:
            assert (before, order) not in TRANSITIONS
            assert guard.mode is before
        else:
            assert guard.mode is TRANSITIONS[before, order]


def test_an_adopted_vms_state_enters_as_it_is_and_is_digested() -> None:
    guard = BlobGuard(incoming=True)
    guard.accept_bare()
    assert guard.incoming(BlobType.PERMANENT, 0, b"p") == {BlobType.PERMANENT: (0, b"p")}
    with pytest.raises(RefusedError):
        guard.check_start()


def test_an_adopted_vms_tpm_starts_without_a_savestate() -> None:
    guard = BlobGuard(incoming=True)
    guard.accept_bare()
    guard.incoming(BlobType.PERMANENT, 0, b"p")
    guard.incoming(BlobType.VOLATILE, 0, b"v")
    guard.check_start()
    guard.started()
    assert guard.mode is Mode.HOME
    assert guard.digests[BlobType.SAVESTATE] == sha256(b"")


def test_a_tpm_at_home_takes_no_unencrypted_state() -> None:
    with pytest.raises(RefusedError):
        BlobGuard(incoming=False).accept_bare()
