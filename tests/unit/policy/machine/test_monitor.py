"""What a migration begins with is secure, and so is every state that its monitor brings it to."""

from __future__ import annotations

from korora.policy.machine.beginning import STEPS, beginning
from korora.policy.machine.language.vocabulary import Procedure
from korora.policy.machine.monitor import ReferenceMonitor
from korora.policy.machine.running.state import State
from korora.policy.proof.counterexample import insecure

OUTSIDE = {Procedure.RECLAIM, Procedure.WITHDRAW}
"""They end a migration otherwise."""


def test_what_a_migration_begins_with_is_secure() -> None:
    assert [broken.name for broken in insecure(State(beginning("m")))] == []


def test_each_procedure_is_taken_in_its_order_once_and_leaves_a_secure_state() -> None:
    monitor = ReferenceMonitor("m")
    monitor.demand_approval()
    for procedure in [procedure for procedure in STEPS if procedure not in OUTSIDE]:
        assert monitor.may([procedure]) is None, procedure
        assert monitor.take(procedure, "v").decision.allowed
        assert [broken.name for broken in insecure(monitor._state)] == []
        refused = monitor.may([procedure])
        assert refused is not None
        assert refused.decision.clause == "once"


def test_to_ask_changes_nothing() -> None:
    monitor = ReferenceMonitor("m")
    before = monitor._state.facts()
    assert monitor.may(list(STEPS)) is not None  # withdraw may not follow a release
    assert monitor.may([Procedure.SUBMIT, Procedure.AUTHORIZE]) is None
    assert monitor._state.facts() == before
    assert monitor.take(Procedure.SUBMIT, "v").entry == 0


def test_a_procedure_before_what_it_rests_on_is_refused_and_nothing_stays_open() -> None:
    monitor = ReferenceMonitor("m")
    before = monitor._state.facts()
    assert not monitor.take(Procedure.TRANSFER, "v").decision.allowed
    assert monitor._state.facts() == before


def test_without_the_second_person_that_is_demanded_nothing_is_agreed() -> None:
    monitor = ReferenceMonitor("m")
    monitor.demand_approval()
    for procedure in (Procedure.SUBMIT, Procedure.AUTHORIZE, Procedure.CHALLENGE, Procedure.ATTEST):
        monitor.take(procedure, "v")
    refused = monitor.may([Procedure.AGREE])
    assert refused is not None
    assert refused.decision.clause == "approved"


def test_a_demand_that_comes_too_late_is_no_demand() -> None:
    monitor = ReferenceMonitor("m")
    for procedure in (p for p in STEPS if p is not Procedure.APPROVE and p not in OUTSIDE):
        monitor.take(procedure, "v")
    assert not monitor.demand_approval().allowed
