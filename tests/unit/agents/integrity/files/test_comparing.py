"""What became of each file, fact by fact."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from korora.agents.integrity.files.comparing import FileChange, changes
from korora.model.files import FileRecord

LOGIN = FileRecord(
    volume=1, path=b"/bin/login", kind="file", mode=0o755, owner=0, group=0, size=7, links=1,
    xattrs={}, blake3="ab",
)  # fmt: skip


def known(*files: FileRecord) -> dict[tuple[int, bytes], FileRecord]:
    return {(file.volume, file.path): file for file in files}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"blake3": "cd"}, ("content",)),
        ({"mode": 0o4755}, ("mode 0755 → 4755",)),
        ({"owner": 3}, ("owner 0 → 3",)),
        ({"kind": "symlink", "target": b"/x"}, ("kind file → symlink", "target '' → '/x'")),
        ({"xattrs": {"user.a": "00"}}, ("xattrs user.a",)),
        ({"blake3": None, "problem": "EIO"}, ("content",)),
        ({"links": 2, "md5": "x"}, ()),  # another name elsewhere is that name's matter
    ],
)
def test_a_change_says_what_differs(change: dict[str, object], what: tuple[str, ...]) -> None:
    found = list(changes(known(LOGIN), [msgspec.structs.replace(LOGIN, **change)]))
    assert found == ([FileChange("changed", 1, b"/bin/login", what)] if what else [])


@given(st.sets(st.binary(max_size=3)), st.sets(st.binary(max_size=3)))
def test_what_came_and_what_went_is_told_once(before: set[bytes], after: set[bytes]) -> None:
    files = {name: msgspec.structs.replace(LOGIN, path=name) for name in before | after}
    found = list(changes(known(*(files[name] for name in before)), [files[name] for name in sorted(after)]))
    assert {one.path for one in found if one.change == "added"} == after - before
    assert {one.path for one in found if one.change == "removed"} == before - after
    assert len(found) == len(before ^ after)
