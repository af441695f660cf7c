"""What every journal must do. `open_journal` opens the same storage again, as a restarted daemon does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.journal import Disk, MemoryJournal
from korora.adapters.journal.sqlite import SqliteJournal
from korora.model.identity import HostName, SessionId, VmName
from korora.model.question import QuestionId
from korora.ports.journal import Journal, QuestionRecord, SessionRecord, VmRecord
from korora.protocol.merkle import consistency_proof, nodes_of, root, root_of, verify_consistency

Open = Callable[[], Journal]

WEB = VmRecord(VmName("web"), 'name = "web"\n', "owner", 1)
MOVING = replace(WEB, ownership="released", epoch=2, session=SessionId("ab" * 64), peer=HostName("south"))
MOVE = SessionRecord(
    SessionId("ab" * 64), VmName("web"), "source", HostName("south"), "transfer", None, b'{"\x00":1}'
)


@pytest.fixture(params=["sqlite", "memory"])
def open_journal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    opened: list[Journal] = []
    disk = Disk()

    def again() -> Journal:
        for journal in opened:
            journal.close()
        fresh: Journal = (
            SqliteJournal(tmp_path / "journal.db") if request.param == "sqlite" else MemoryJournal(disk)
        )
        opened.append(fresh)
        return fresh

    yield again
    for journal in opened:
        journal.close()


def test_a_new_journal_knows_nothing(open_journal: Open) -> None:
    journal = open_journal()
    assert journal.vm(VmName("web")) is None
    assert journal.session(MOVE.session) is None
    assert (journal.vms(), journal.sessions(), journal.log(), journal.log_size()) == ([], [], [], 0)


def test_a_vm_is_remembered_as_it_was_last_written(open_journal: Open) -> None:
    open_journal().write_vm(WEB)
    open_journal().write_vm(MOVING)
    assert open_journal().vm(VmName("web")) == MOVING
    open_journal().write_vm(replace(MOVING, session=None, peer=None, qmp_socket="/run/qmp.sock"))
    record = open_journal().vm(VmName("web"))
    assert record is not None
    assert (record.session, record.peer, record.qmp_socket) == (None, None, "/run/qmp.sock")


def test_vms_are_listed_by_name_and_can_be_forgotten(open_journal: Open) -> None:
    journal = open_journal()
    for name in ("web", "db", "mail"):
        journal.write_vm(replace(WEB, name=VmName(name)))
    journal.forget_vm(VmName("mail"))
    journal.forget_vm(VmName("mail"))
    assert [record.name for record in open_journal().vms()] == ["db", "web"]


def test_a_session_keeps_its_place_and_its_bytes(open_journal: Open) -> None:
    journal = open_journal()
    later = replace(MOVE, session=SessionId("01" * 64))
    journal.write_session(MOVE)
    journal.write_session(later)
    journal.write_session(replace(MOVE, phase="commit", outcome="done"))
    journal = open_journal()
    assert journal.sessions() == [replace(MOVE, phase="commit", outcome="done"), later]
    assert journal.session(later.session) == later


def test_a_nonce_is_spent_once_also_across_a_restart(open_journal: Open) -> None:
    journal = open_journal()
    assert journal.spend_nonce("aa", 100)
    assert not journal.spend_nonce("aa", 100)
    journal = open_journal()
    assert not journal.spend_nonce("aa", 200)
    assert journal.spend_nonce("bb", 1)


def test_a_question_keeps_its_place_whatever_becomes_of_it(open_journal: Open) -> None:
    one, two = (QuestionRecord(QuestionId(letter * 16), "open", b"?") for letter in "ab")
    journal = open_journal()
    assert (journal.question(one.id), journal.questions("open")) == (None, [])
    for record in (one, two):
        journal.write_question(record)
    journal = open_journal()
    assert journal.questions("open") == [one, two]
    answered = replace(one, stage="answered", detail=b"yes")
    journal.write_question(answered)
    journal = open_journal()
    assert (journal.questions("open"), journal.questions("answered")) == ([two], [answered])
    assert (journal.count_questions("open"), journal.count_questions("used")) == (1, 0)
    journal.write_question(one)
    assert open_journal().questions("open") == [one, two]


def test_the_log_keeps_its_order_and_its_tree(open_journal: Open) -> None:
    leaves = [bytes([number]) * number for number in range(20)]
    for number, leaf in enumerate(leaves[:11]):
        assert open_journal().append_log(leaf) == number
    journal = open_journal()
    before = root(journal.log_size(), journal.log_node)
    assert before == root_of(leaves[:11])
    for leaf in leaves[11:]:
        journal.append_log(leaf)
    journal = open_journal()
    assert journal.log() == leaves
    assert journal.log_size() == 20
    after = root(20, journal.log_node)
    assert after == root(20, nodes_of(leaves))
    assert verify_consistency(11, 20, before, after, consistency_proof(11, 20, journal.log_node))


def test_a_leaf_appended_again_keeps_its_index(open_journal: Open) -> None:
    journal = open_journal()
    assert [journal.append_log(leaf) for leaf in (b"a", b"b", b"a")] == [0, 1, 0]
    assert open_journal().append_log(b"b") == 1
    assert open_journal().log() == [b"a", b"b"]


def test_a_node_that_is_not_complete_is_a_key_error(open_journal: Open) -> None:
    journal = open_journal()
    for leaf in (b"a", b"b", b"c"):
        journal.append_log(leaf)
    for level, index in ((0, 3), (1, 1), (2, 0)):
        with pytest.raises(KeyError):
            journal.log_node(level, index)
