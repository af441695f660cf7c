"""What is popular is kept whole in a VM's folder; what is damaged is learnt again."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from korora.agents.dataorg.popularity import Popularity
from korora.agents.dataorg.record import encoded
from korora.errors import ToolError
from korora.supervision.heat.shelf import DISKS_MAX, FILE, read_heat, write_heat

MIB = 1 << 20


def learnt(chunk: int) -> Popularity:
    made = Popularity(64 * MIB)
    made.add(1.0, 1.0, np.array([[chunk * MIB, 512]] * 5, np.int64), np.empty((0, 2), np.int64))
    return made


def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    write_heat(tmp_path, {"system": learnt(3), "data": learnt(9)})
    found = read_heat(tmp_path)
    assert {name: one.hot().tolist() for name, one in found.items()} == {"system": [3], "data": [9]}
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


def test_nothing_kept_is_nothing_known(tmp_path: Path) -> None:
    assert read_heat(tmp_path) == {}
    assert read_heat(tmp_path / "nowhere") == {}


def test_a_damaged_disk_is_left_out_and_the_others_stay(tmp_path: Path) -> None:
    broken = bytearray(encoded(learnt(3)))
    broken[40] ^= 1
    (tmp_path / FILE).write_bytes(msgspec.msgpack.encode({"a": bytes(broken), "b": encoded(learnt(9))}))
    assert list(read_heat(tmp_path)) == ["b"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.binary(max_size=200))
def test_any_other_file_is_nothing_known(tmp_path: Path, junk: bytes) -> None:
    (tmp_path / FILE).write_bytes(junk)
    assert read_heat(tmp_path) == {}


def test_a_file_that_was_cut_short_is_nothing_known(tmp_path: Path) -> None:
    write_heat(tmp_path, {"system": learnt(3)})
    whole = (tmp_path / FILE).read_bytes()
    for cut in range(0, len(whole), 7):
        (tmp_path / FILE).write_bytes(whole[:cut])
        assert read_heat(tmp_path) == {}


def test_of_more_disks_than_a_vm_may_have_the_rest_is_left_out(tmp_path: Path) -> None:
    write_heat(tmp_path, {f"d{number}": learnt(1) for number in range(DISKS_MAX + 3)})
    assert len(read_heat(tmp_path)) == DISKS_MAX


def test_a_folder_that_is_gone_is_not_made_again(tmp_path: Path) -> None:
    with pytest.raises(ToolError):
        write_heat(tmp_path / "gone", {"system": learnt(3)})
    assert not (tmp_path / "gone").exists()
