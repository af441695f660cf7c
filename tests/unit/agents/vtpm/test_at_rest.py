"""The sealed key: which copy unseals, which never again, and that no crash loses it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes.tpm import FakeTpm, PowerCutError
from korora.agents.vtpm.at_rest import RUNNING, KeyAtRest, Record
from korora.errors import RefusedError, ToolError
from korora.model.identity import Secret, VmName

VM = VmName("web-1")
KEY = Secret(b"k" * 32)
STOPPED = b"d" * 32


@pytest.fixture
def tpm() -> FakeTpm:
    return FakeTpm()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    directory = tmp_path / "vtpm"
    directory.mkdir()
    return directory


def copy_of(place: Path) -> Path:
    taken = place.with_name(f"copy-{len(list(place.parent.iterdir()))}")
    return Path(shutil.copytree(place, taken))


def opens(tpm: FakeTpm, place: Path, vm: VmName = VM) -> Record | None:
    try:
        return KeyAtRest(tpm, vm, place).open()
    except RefusedError as refusal:
        assert refusal.kind == "stale-epoch"
        assert refusal.remedy
        return None


def test_what_was_created_opens(tpm: FakeTpm, place: Path) -> None:
    created = KeyAtRest(tpm, VM, place).create(KEY)
    assert KeyAtRest(tpm, VM, place).open() == created
    assert created.key == KEY
    assert created.state == RUNNING


def test_the_newest_record_opens_and_every_older_copy_does_not(tpm: FakeTpm, place: Path) -> None:
    key_at_rest = KeyAtRest(tpm, VM, place)
    record = key_at_rest.create(KEY)
    copies = []
    for state in (STOPPED, RUNNING, STOPPED, RUNNING):
        copies.append(copy_of(place))
        record = key_at_rest.advance(record, state)
    assert key_at_rest.open() == record
    assert [opens(tpm, taken) for taken in copies] == [None] * 4


def test_no_second_counter_and_no_second_copy_remain(tpm: FakeTpm, place: Path) -> None:
    key_at_rest = KeyAtRest(tpm, VM, place)
    key_at_rest.advance(key_at_rest.create(KEY), STOPPED)
    assert len(tpm.counters) == 1
    assert sorted(path.name for path in place.iterdir()) == ["counter", "sealed-key"]


def test_other_boot_pcrs_refuse(tpm: FakeTpm, place: Path) -> None:
    KeyAtRest(tpm, VM, place).create(KEY)
    tpm.extend(4, b"another boot loader")
    assert opens(tpm, place) is None


def test_another_hosts_tpm_refuses(tpm: FakeTpm, place: Path) -> None:
    record = KeyAtRest(tpm, VM, place).create(KEY)
    assert opens(FakeTpm(counters={record.counter: record.epoch}), place) is None


def test_another_vms_key_refuses(tpm: FakeTpm, place: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    KeyAtRest(tpm, VM, place).create(KEY)
    KeyAtRest(tpm, VmName("web-2"), other).create(Secret(b"o" * 32))
    shutil.copy(place / "sealed-key", other / "sealed-key")
    assert opens(tpm, other, VmName("web-2")) is None


def test_a_forged_counter_record_names_no_other_vms_counter(
    tpm: FakeTpm, place: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    KeyAtRest(tpm, VM, place).create(KEY)
    theirs = KeyAtRest(tpm, VmName("web-2"), other).create(Secret(b"o" * 32)).counter
    (place / "counter").write_text(json.dumps({"counter": theirs}))
    assert opens(tpm, place) is None
    assert KeyAtRest(tpm, VM, place).destroy() is False
    assert theirs in tpm.counters


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b'{"counter": "x"}', b'{"counter": null}'])
def test_a_broken_counter_record_refuses(tpm: FakeTpm, place: Path, content: bytes) -> None:
    KeyAtRest(tpm, VM, place).create(KEY)
    (place / "counter").write_bytes(content)
    assert opens(tpm, place) is None


def test_an_index_in_use_is_passed_over(tpm: FakeTpm, place: Path, tmp_path: Path) -> None:
    first = KeyAtRest(tpm, VM, place).create(KEY).counter
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    second = KeyAtRest(tpm, VM, elsewhere).create(KEY).counter
    assert first != second
    assert opens(tpm, place)
    assert opens(tpm, elsewhere)


def test_no_free_index_is_an_error_with_a_remedy(tpm: FakeTpm, tmp_path: Path) -> None:
    places = [tmp_path / str(number) for number in range(9)]
    for place in places:
        place.mkdir()
    for place in places[:8]:
        KeyAtRest(tpm, VM, place).create(KEY)
    with pytest.raises(ToolError) as refused:
        KeyAtRest(tpm, VM, places[8]).create(KEY)
    assert refused.value.kind == "no-counter"
    assert refused.value.remedy


def test_after_destruction_no_copy_opens_even_if_the_counter_comes_back(tpm: FakeTpm, place: Path) -> None:
    key_at_rest = KeyAtRest(tpm, VM, place)
    record = key_at_rest.create(KEY)
    taken = copy_of(place)
    assert key_at_rest.destroy() is True
    assert key_at_rest.destroy() is False
    assert opens(tpm, taken) is None
    tpm.counter_create(record.counter)
    assert opens(tpm, taken) is None


def calls_of(work: Callable[[FakeTpm, Path], object], tmp_path: Path) -> list[str]:
    """Every call to the TPM during `work`, as `method:n`."""
    directory = tmp_path / "rehearsal"
    directory.mkdir()
    tpm = FakeTpm()
    record = KeyAtRest(tpm, VM, directory).create(KEY)
    tpm.calls.clear()
    KeyAtRest(tpm, VM, directory).advance(record, STOPPED)
    return [f"{method}:{tpm.calls[: index + 1].count(method)}" for index, method in enumerate(tpm.calls)]


def advance(tpm: FakeTpm, place: Path) -> Record:
    key_at_rest = KeyAtRest(tpm, VM, place)
    return key_at_rest.advance(key_at_rest.open(), STOPPED)


def test_a_power_cut_before_any_step_loses_nothing_and_revives_nothing(tmp_path: Path) -> None:
    steps = calls_of(advance, tmp_path)
    assert len(steps) >= 6
    for number, step in enumerate(steps):
        place = tmp_path / f"vm-{number}"
        place.mkdir()
        tpm = FakeTpm()
        record = KeyAtRest(tpm, VM, place).create(KEY)
        before = copy_of(place)
        tpm.fail_before = step
        with pytest.raises(PowerCutError):
            KeyAtRest(tpm, VM, place).advance(record, STOPPED)
        during = copy_of(place)

        found = KeyAtRest(tpm, VM, place).open()
        assert found.key == KEY, step
        assert found.state in (RUNNING, STOPPED)
        after = KeyAtRest(tpm, VM, place).advance(found, STOPPED)

        assert KeyAtRest(tpm, VM, place).open() == after
        assert opens(tpm, before) is None, step
        assert opens(tpm, during) is None, step
        assert len(tpm.counters) == 1, step


def test_a_counter_that_somebody_else_moved_is_noticed(tpm: FakeTpm, place: Path) -> None:
    key_at_rest = KeyAtRest(tpm, VM, place)
    record = key_at_rest.create(KEY)
    tpm.counter_increment(record.counter)
    with pytest.raises(ToolError, match="went to"):
        key_at_rest.advance(record, STOPPED)
