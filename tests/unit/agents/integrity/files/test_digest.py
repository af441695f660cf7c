"""One digest for all files: every fact counts, the order does not, and what was not read makes it unknown."""

from __future__ import annotations

import json
import random
from pathlib import Path

import msgspec
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from korora.agents.integrity.files.digest import Digesting, leaf
from korora.model.files import Content, Done, FileRecord, Problem, Told, Volume
from korora.model.identity import Digest

LOGIN = FileRecord(
    volume=1, path=b"/bin/login", kind="file", mode=0o4755, owner=0, group=0, size=7, links=1,
    xattrs={"user.a": "00"}, blake3="ab", md5="cd",
)  # fmt: skip
LINK = FileRecord(
    volume=1, path=b"/bin/l", kind="symlink", mode=0o777, owner=0, group=0, size=1, links=1, target=b"x"
)
VOLUME = Volume(1, 0, 100, "ext4", files=True)


def root(*told: Told) -> Digest | None:
    digest = Digesting()
    list(digest.through(told))
    return digest.root()


def test_the_root_is_what_its_definition_says() -> None:
    facts = {
        "volume": 1, "path": b"/bin/login".hex(), "kind": "file", "mode": 0o4755, "owner": 0, "group": 0,
        "size": 7, "target": "", "device": None, "xattrs": {"user.a": "00"}, "blake3": "ab",
    }  # fmt: skip
    written = json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()
    first = blake3(written, derive_key_context="Korora 2026 files: file").digest()
    assert leaf(LOGIN) == first
    whole = b"".join(sorted((first, leaf(LINK))))
    expected = "blake3:" + blake3(whole, derive_key_context="Korora 2026 files: disk").hexdigest()
    assert root(VOLUME, LOGIN, LINK, Done(2)) == expected


@pytest.mark.parametrize(
    "change",
    [
        {"volume": 2}, {"path": b"/bin/logic"}, {"kind": "fifo"}, {"mode": 0o755}, {"owner": 1}, {"group": 1},
        {"size": 8}, {"target": b"y"}, {"device": (1, 2)}, {"xattrs": {}}, {"xattrs": None}, {"blake3": "ac"},
    ],
)  # fmt: skip
def test_every_fact_counts(change: dict[str, object]) -> None:
    other = msgspec.structs.replace(LOGIN, **change)
    assert root(VOLUME, other, Done(1)) != root(VOLUME, LOGIN, Done(1))


@given(st.lists(st.binary(min_size=1, max_size=8), unique=True, min_size=1, max_size=20), st.integers())
def test_the_order_does_not_count(names: list[bytes], seed: int) -> None:
    files = [msgspec.structs.replace(LOGIN, path=b"/" + name) for name in names]
    shuffled = files[:]
    random.Random(seed).shuffle(shuffled)
    assert root(VOLUME, *files, Done(len(files))) == root(VOLUME, *shuffled, Done(len(files)))


@pytest.mark.parametrize(
    "told",
    [
        (VOLUME, LOGIN),  # it did not come to its end
        (VOLUME, LOGIN, Problem("volume 2", "unread"), Done(1)),
        (VOLUME, msgspec.structs.replace(LOGIN, problem="EIO", blake3=None), Done(1)),
        (VOLUME, LINK, msgspec.structs.replace(LOGIN, blake3=None), Done(2)),  # nobody digested it
        (VOLUME, Done(0)),  # nothing was there to be read
        (),
    ],
)
def test_what_was_not_read_makes_it_unknown(told: tuple[Told, ...]) -> None:
    assert root(*told) is None


def test_the_vector_of_the_documentation_holds() -> None:
    said = (Path(__file__).parents[5] / "docs" / "FILES.md").read_text()
    assert leaf(LOGIN).hex() in said
    assert str(root(LOGIN, Done(1))) in said


def test_the_order_of_attributes_does_not_count() -> None:
    one = msgspec.structs.replace(LOGIN, xattrs={"a": "0", "b": "1"})
    assert leaf(one) == leaf(msgspec.structs.replace(LOGIN, xattrs={"b": "1", "a": "0"}))


def test_files_and_contents_are_passed_on() -> None:
    content = Content(1, b"/x", b"x")
    assert list(Digesting().through([VOLUME, LOGIN, content, Done(1)])) == [LOGIN, content]
