"""The ownership table, step by step: what it answers, what it refuses, and what comes first."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from korora.model.identity import HostName, SessionId
from korora.model.ownership import (
    MAY_RUN,
    MESSAGES,
    NOTHING,
    OWNING,
    Action,
    Do,
    End,
    Ended,
    Event,
    On,
    OwnershipState,
    Refused,
    Status,
    Step,
)
from korora.protocol.ownership import answer, step

S1, S2 = SessionId("11" * 64), SessionId("22" * 64)
NORTH, SOUTH = HostName("north"), HostName("south")


def state(status: Status, epoch: int, session: SessionId | None = S1, *, copy: bool = True) -> OwnershipState:
    return OwnershipState(status, epoch, session, SOUTH, copy)


def taken(before: OwnershipState, event: Event) -> Step:
    result = step(before, event)
    assert isinstance(result, Step), result
    return result


def does(result: Step) -> list[Do]:
    return [action.do for action in result.actions]


def test_a_hand_over_without_trouble() -> None:
    source = taken(OwnershipState(Status.OWNER, 1, copy=True), Event(On.OFFERED, S1, peer=SOUTH))
    assert does(source) == [Do.JOURNAL, Do.SEND_MANIFEST]
    destination = taken(NOTHING, Event(On.BEGUN, S1, 2, NORTH))
    assert does(destination) == [Do.JOURNAL, Do.PREPARE]
    destination = taken(destination.state, Event(On.MANIFEST, S1, 2))
    assert does(destination) == [Do.VERIFY]
    destination = taken(destination.state, Event(On.VERIFIED))
    assert does(destination) == [Do.JOURNAL, Do.SEND_ACCEPT]
    source = taken(source.state, Event(On.ACCEPT, S1, 2))
    assert does(source) == [Do.JOURNAL, Do.SEND_RELEASE]
    assert not source.state.owns
    destination = taken(destination.state, Event(On.RELEASE, S1, 2))
    assert does(destination) == [Do.JOURNAL, Do.RUN]
    destination = taken(destination.state, Event(On.RUN_SUCCEEDED))
    assert does(destination) == [Do.JOURNAL, Do.SEND_RUNNING]
    source = taken(source.state, Event(On.RUNNING, S1, 2))
    assert does(source) == [Do.JOURNAL, Do.WIPE]
    source = taken(source.state, Event(On.WIPE_DONE))
    assert source.state == OwnershipState(Status.WIPED, 2, S1, SOUTH)
    assert destination.state == OwnershipState(Status.OWNER, 2, S1, NORTH, copy=True)


def test_a_vm_that_moves_on_leaves_its_session_behind_as_run() -> None:
    onward = taken(state(Status.OWNER, 2), Event(On.OFFERED, S2, peer=NORTH))
    assert onward.ended == Ended(S1, End.RAN)
    assert taken(onward.state, Event(On.RELEASE, S1, 2)).actions == (Action(Do.REPEAT, S1),)
    assert answer(End.RAN, On.RELEASE) is Do.SEND_RUNNING


def test_a_vm_comes_back_only_with_a_newer_epoch() -> None:
    wiped = state(Status.WIPED, 2, copy=False)
    assert taken(wiped, Event(On.BEGUN, S2, 3, SOUTH)).ended == Ended(S1, End.PROVED)
    for old in (1, 2, None):
        refused = step(wiped, Event(On.BEGUN, S2, old, SOUTH))
        assert isinstance(refused, Refused)
        assert refused.kind == "stale-epoch"


def test_a_second_session_waits_for_the_first() -> None:
    for status in (Status.LOADING, Status.LOADED, Status.RELEASED, Status.IN_DOUBT, Status.OWNER):
        refused = step(state(status, 2), Event(On.BEGUN, S2, 9, SOUTH))
        assert isinstance(refused, Refused)
        assert refused.kind == "busy"


def test_a_statement_of_another_epoch_is_refused() -> None:
    refused = step(state(Status.OFFERED, 1), Event(On.ACCEPT, S1, 1))
    assert isinstance(refused, Refused)
    assert refused.kind == "wrong-epoch"


def test_the_source_keeps_the_vm_when_anything_fails_before_the_release() -> None:
    for on in (On.FAILED, On.PEER_SILENT, On.ABORT):
        back = taken(state(Status.OFFERED, 1), Event(on, S1 if on is On.ABORT else None))
        assert back.state == OwnershipState(Status.OWNER, 1, copy=True)
        assert does(back) == [Do.JOURNAL, Do.RESUME, Do.SEND_CLOSED]
        assert all(action.session == S1 for action in back.actions)
        assert back.ended == Ended(S1, End.CLOSED)


def test_nothing_but_a_signed_answer_or_a_person_undoes_a_release() -> None:
    undoing = {
        on
        for on in On
        for session in ({S1} if on in MESSAGES else {None})
        if isinstance(after := step(state(Status.IN_DOUBT, 2), Event(on, session, 2, SOUTH, copy=True)), Step)
        and after.state.owns
    }
    assert undoing == {On.DECLINE, On.TAKE_BACK}


def test_a_destination_that_lost_its_copy_declines_the_release() -> None:
    declined = taken(state(Status.LOADED, 2, copy=False), Event(On.RELEASE, S1, 2))
    assert declined.state.status is Status.DECLINED
    assert does(declined) == [Do.JOURNAL, Do.SEND_DECLINE]
    back = taken(state(Status.RELEASED, 2), Event(On.DECLINE, S1, 2))
    assert back.state == OwnershipState(Status.OWNER, 3, copy=True)
    gone = taken(declined.state, Event(On.CLOSED, S1))
    assert gone.state == OwnershipState(Status.ABSENT, 3)


def test_a_destination_that_may_have_run_never_declines() -> None:
    for on in On:
        session = S1 if on in MESSAGES else None
        after = step(state(Status.OWNER, 2), Event(on, session, 2, SOUTH, copy=True))
        assert isinstance(after, Refused) or after.state.status is not Status.DECLINED
    lost = taken(state(Status.STARTING, 2), Event(On.HYPERVISOR_FAILED))
    assert does(lost) == [Do.ASK]


def test_a_restarted_destination_asks_what_became_of_the_session() -> None:
    assert does(taken(state(Status.LOADED, 2), Event(On.RESTARTED, copy=True))) == [Do.SEND_QUERY]
    kept = taken(OwnershipState(Status.OWNER, 1, copy=True), Event(On.QUERY, S1))
    assert kept.actions == (Action(Do.REPEAT, S1),)
    assert answer(End.CLOSED, On.QUERY) is Do.SEND_CLOSED
    gone = taken(state(Status.LOADED, 2), Event(On.CLOSED, S1))
    assert does(gone) == [Do.JOURNAL, Do.DESTROY]


def test_a_host_that_knows_nothing_of_a_session_does_not_call_it_closed() -> None:
    assert answer(None, On.QUERY) is None
    assert answer(None, On.RELEASE) is Do.SEND_ABORT


def test_after_a_wrong_decision_the_lower_epoch_stops_at_once() -> None:
    decided = taken(state(Status.IN_DOUBT, 2), Event(On.TAKE_BACK))
    assert decided.state == OwnershipState(Status.OWNER, 3, copy=True)
    assert decided.ended == Ended(S1, End.OVERRULED)
    assert answer(End.OVERRULED, On.RUNNING) is Do.SEND_DECISION
    fenced = taken(state(Status.OWNER, 2), Event(On.SUPERSEDED, epoch=3))
    assert fenced.state.status is Status.FENCED
    assert does(fenced) == [Do.PAUSE, Do.JOURNAL, Do.ASK]
    assert isinstance(step(state(Status.OWNER, 3), Event(On.SUPERSEDED, epoch=3)), Refused)
    assert does(taken(fenced.state, Event(On.DISCARD))) == [Do.JOURNAL, Do.DESTROY]


def test_a_vm_is_created_once() -> None:
    assert taken(NOTHING, Event(On.CREATED)).state == OwnershipState(Status.OWNER, 1)
    for known in (OwnershipState(Status.ABSENT, 4), state(Status.WIPED, 2), state(Status.OWNER, 1)):
        assert isinstance(step(known, Event(On.CREATED)), Refused)


def test_a_crash_during_destruction_is_finished_after_the_restart() -> None:
    assert does(taken(OwnershipState(Status.ABSENT, 2), Event(On.RESTARTED, copy=True))) == [Do.DESTROY]
    assert does(taken(state(Status.TAKEN_OVER, 2), Event(On.RESTARTED, copy=True))) == [Do.WIPE]


events = st.builds(
    Event,
    st.sampled_from(On),
    st.sampled_from([None, S1, S2]),
    st.sampled_from([None, 0, 1, 2, 3, 9]),
    st.sampled_from([None, NORTH]),
    st.sampled_from([None, True, False]),
)


@given(st.lists(events, max_size=40))
def test_whatever_happens_the_rules_of_order_hold(happened: list[Event]) -> None:
    before = NOTHING
    for event in happened:
        result = step(before, event)
        if isinstance(result, Refused):
            assert result.kind in {"illegal-step", "wrong-epoch", "stale-epoch", "busy"}
            assert result.reason
            continue
        after, acts = result.state, does(result)
        durable = (after.status, after.epoch, after.session, after.peer)
        changed = durable != (before.status, before.epoch, before.session, before.peer)
        assert (Do.JOURNAL in acts) == changed
        if changed:  # only what takes away comes before the journal
            assert set(acts[: acts.index(Do.JOURNAL)]) <= {Do.PAUSE}
        assert after.epoch >= before.epoch
        assert (result.ended is not None) == (before.session not in {None, after.session})
        if Do.RESUME in acts or Do.RUN in acts:
            assert after.status in MAY_RUN
        if Do.DESTROY in acts or Do.WIPE in acts:
            assert after.status not in OWNING
        assert isinstance(step(after, event), Step | Refused)
        before = after


@pytest.mark.parametrize(
    ("before", "event"),
    [
        (state(Status.OFFERED, 1), Event(On.ACCEPT, S1, 2)),
        (state(Status.RELEASED, 2), Event(On.RUNNING, S1, 2)),
        (state(Status.RELEASED, 2), Event(On.DECLINE, S1, 2)),
        (state(Status.LOADED, 2), Event(On.RELEASE, S1, 2)),
        (state(Status.LOADED, 2), Event(On.CLOSED, S1)),
        (state(Status.LOADING, 2), Event(On.CLOSED, S1)),
        (state(Status.DECLINED, 2), Event(On.CLOSED, S1)),
        (state(Status.OFFERED, 1), Event(On.ABORT, S1)),
    ],
)
def test_a_message_that_comes_twice_changes_nothing_the_second_time(
    before: OwnershipState, event: Event
) -> None:
    after = taken(before, event).state
    again = step(after, event)
    assert isinstance(again, Refused) or again.state == after


def test_the_drawn_table_is_the_one_in_force() -> None:
    root = Path(__file__).parents[3]
    drawn = runpy.run_path(str(root / "script" / "ownership_doc.py"))["drawn"]()
    assert (root / "docs" / "ownership.md").read_text() == drawn, "run script/ownership_doc.py"
