"""What findings lead to."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from korora.model.flag import Flag, FlagKind, Place
from korora.model.inspection import CHECK_OF, Check, Disposition, Examined, Found, Looked
from korora.policy.inspection import flagged, judged
from korora.protocol import flag

LOOKED = tuple(Looked(check=check, examined=3) for check in Check)


def found(kind: FlagKind, disk: str = "disk0") -> Found:
    return Found(kind=kind, place=Place(disk=disk), reason="r")


def flag_of(one: Found) -> Flag:
    return flag.raised("web", one, "a", 1)


def everything(disposition: Disposition) -> dict[Check, Disposition]:
    return dict.fromkeys(Check, disposition)


@pytest.mark.parametrize(("kind", "disposition"), list(itertools.product(FlagKind, Disposition)))
def test_a_finding_is_flagged_and_blocks_as_its_check_says(kind: FlagKind, disposition: Disposition) -> None:
    one = found(kind)
    checks = everything(Disposition.REPORT) | {CHECK_OF[kind]: disposition}
    examined = Examined(looked=LOOKED, found=(one,))
    flags = flagged(checks, examined)
    assert flags == ([one] if disposition in {Disposition.FLAG, Disposition.BLOCK} else [])
    said = judged(checks, examined, map(flag_of, flags))
    assert bool(said.blocking) is (disposition is Disposition.BLOCK)
    told = {result.check: result for result in said.results}
    assert (CHECK_OF[kind] in told) is (disposition is not Disposition.OFF)
    if disposition is not Disposition.OFF:
        result = told[CHECK_OF[kind]]
        assert (result.found, result.open, result.disposition) == (1, len(flags), disposition)


def test_a_flag_of_an_earlier_inspection_blocks_until_somebody_resolves_it() -> None:
    old = flag_of(found(FlagKind.INFECTED))
    checks = everything(Disposition.BLOCK)
    assert judged(checks, Examined(looked=LOOKED), [old]).blocking == (old,)
    done = flag.resolved(old, b"a word")
    assert judged(checks, Examined(looked=LOOKED), [done]).blocking == ()


@given(st.lists(st.sampled_from(FlagKind), max_size=12))
def test_each_finding_is_flagged_once(kinds: list[FlagKind]) -> None:
    examined = Examined(looked=LOOKED, found=tuple(found(kind) for kind in kinds))
    assert len(flagged(everything(Disposition.FLAG), examined)) == len(set(kinds))


def test_findings_that_were_too_many_to_keep_block_and_are_counted() -> None:
    examined = Examined(looked=LOOKED, dropped={FlagKind.INFECTED: 7})
    said = judged(everything(Disposition.BLOCK), examined, [])
    assert said.beyond == ("7 more findings of the kind infected-file",)
    assert next(one.found for one in said.results if one.check is Check.MALWARE) == 7
    assert judged(everything(Disposition.FLAG), examined, []).beyond == ()


def test_a_check_that_was_not_come_to_blocks_where_the_unknown_does() -> None:
    examined = Examined(looked=tuple(one for one in LOOKED if one.check is not Check.MALWARE))
    said = judged(everything(Disposition.BLOCK), examined, [])
    assert said.beyond == ("the check of malware was not come to",)
    lenient = everything(Disposition.BLOCK) | {Check.UNKNOWN: Disposition.REPORT}
    assert judged(lenient, examined, []).beyond == ()
    off = everything(Disposition.BLOCK) | {Check.MALWARE: Disposition.OFF}
    assert judged(off, examined, []).beyond == ()


def test_a_check_that_was_not_come_to_is_unknown_in_the_report_and_never_clean() -> None:
    examined = Examined(looked=tuple(one for one in LOOKED if one.check is not Check.MALWARE))
    results = {one.check: one for one in judged(everything(Disposition.REPORT), examined, []).results}
    assert (results[Check.MALWARE].unknown, results[Check.MALWARE].examined) == (1, 0)
    assert not any(one.unknown for check, one in results.items() if check is not Check.MALWARE)


@given(st.sets(st.sampled_from(FlagKind)), st.sets(st.sampled_from(FlagKind)))
def test_a_finding_that_blocks_and_has_no_flag_blocks_all_the_same(
    kinds: set[FlagKind], with_room: set[FlagKind]
) -> None:
    examined = Examined(looked=LOOKED, found=tuple(map(found, kinds)) * 2)
    flags = [flag_of(found(kind)) for kind in kinds & with_room]
    said = judged(everything(Disposition.BLOCK), examined, flags)
    assert {one.kind for one in said.blocking} == kinds & with_room
    assert len(said.beyond) == len(kinds - with_room)
    assert all(f"1 findings of the kind {kind} " in " ".join(said.beyond) for kind in kinds - with_room)
    assert judged(everything(Disposition.FLAG), examined, flags).beyond == ()


def test_a_finding_that_a_person_accepted_does_not_block_though_its_flag_is_closed() -> None:
    one = found(FlagKind.INFECTED)
    accepted = flag.resolved(flag_of(one), b"a word")
    said = judged(everything(Disposition.BLOCK), Examined(looked=LOOKED, found=(one,)), [accepted])
    assert (said.blocking, said.beyond) == ((), ())


def test_a_record_that_was_filled_up_hides_no_finding_that_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flag, "MAX_FLAGS", 3)
    checks = everything(Disposition.FLAG) | {Check.MALWARE: Disposition.BLOCK}
    noise = [flag_of(found(FlagKind.UNREAD, f"disk{number}")) for number in range(5)]
    full = flag.with_found(flag.FlagRecord(vm="web"), noise)
    evil = found(FlagKind.INFECTED)
    examined = Examined(looked=LOOKED, found=(evil,))
    later = [flag.raised("web", one, "a", 2) for one in flagged(checks, examined)]
    record = flag.with_found(full, later)
    assert evil.kind not in {one.kind for one in record.flags}
    assert judged(checks, examined, record.flags).beyond
