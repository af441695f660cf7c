"""A store that was tampered with, that rotted or is lied to hands out nothing but what was asked for."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from korora.adapters.store.index import key_of
from korora.adapters.store.store import FolderStore
from korora.errors import ToolError
from korora.model.stored import SHARED, Bounds, Located, Scope, TenantName, Trouble
from korora.protocol.content_tree import CHUNK_BYTES
from korora.protocol.dedup.names import UNIT_BYTES, name_of

ONE = TenantName("one")
MINE = Scope(ONE)
NOISE = random.Random(6).randbytes(2 * CHUNK_BYTES)
CHUNK, OTHER = NOISE[:CHUNK_BYTES], NOISE[CHUNK_BYTES:]
ROOM = 64 << 20
BOUNDS = Bounds(1 << 30, 1 << 20)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FolderStore]:
    made = FolderStore(tmp_path / "store", BOUNDS)
    yield made
    made.close()


@pytest.fixture
def scope(tmp_path: Path) -> Path:
    return tmp_path / "store" / "tenant-one"


def copy_of(chunk: bytes, scope: Path) -> Path:
    name = name_of(chunk).hex()
    return scope / name[:2] / name


def holds(store: FolderStore, *parts: bytes) -> list[bool]:
    with store.pins(ONE, ROOM) as pins:
        held = pins.pin([name_of(part) for part in parts])
        for part, there in zip(parts, held, strict=True):
            assert not there or pins.content(name_of(part)) == part
        return held


def changed_in(scope: Path, statement: str, *given: object) -> None:
    with closing(sqlite3.connect(scope / "index.db", isolation_level=None)) as database:
        database.execute(statement, given)


# -- poison and rot ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", ["chunk", "unit"])
@pytest.mark.parametrize(
    "content",
    [OTHER, CHUNK[:-1], CHUNK + b"x", b"", bytes(CHUNK_BYTES), CHUNK[:9] + b"\0" + CHUNK[10:]],
    ids=["other", "short", "long", "empty", "zeros", "bit"],
)
def test_a_poisoned_copy_is_never_handed_out_and_is_removed_counted_and_told(
    store: FolderStore, scope: Path, content: bytes, asked: str
) -> None:
    store.keep(MINE, Path("a"), [CHUNK])
    place = copy_of(CHUNK, scope)
    place.write_bytes(content)
    part = CHUNK if asked == "chunk" else CHUNK[:UNIT_BYTES]
    with store.pins(ONE, ROOM) as pins:
        if content[: len(part)] == part:
            assert pins.pin([name_of(part)]) == [True]  # so much of it is what it should be
            return
        assert pins.pin([name_of(part)]) == [False]
        assert [(one.trouble, one.what) for one in pins.found()] == [(Trouble.ROTTED, place.name)]
    assert not place.exists()
    [stat] = store.stat()
    assert (stat.rotted, stat.size) == (1, 0)
    store.keep(MINE, Path("a"), [CHUNK])
    assert holds(store, CHUNK, CHUNK[:UNIT_BYTES]) == [True, True]


def test_to_keep_a_chunk_mends_the_poisoned_copy_of_it(store: FolderStore, scope: Path) -> None:
    store.keep(MINE, Path("a"), [CHUNK])
    copy_of(CHUNK, scope).write_bytes(OTHER)
    store.keep(MINE, Path("b"), [CHUNK])
    assert holds(store, CHUNK) == [True]


def test_verify_names_every_copy_that_rotted(store: FolderStore, scope: Path) -> None:
    store.keep(MINE, Path("a"), [CHUNK, OTHER])
    copy_of(CHUNK, scope).write_bytes(CHUNK[:-1] + b"?")
    copy_of(OTHER, scope).unlink()
    verified = store.verify(MINE)
    assert set(verified.rotted) == {name_of(CHUNK).hex(), name_of(OTHER).hex()}
    assert verified.sound <= 255
    again = store.verify(MINE)
    assert (again.rotted, again.sound) == ((), 0)


@pytest.mark.parametrize("what", ["link", "pipe", "folder", "dangling"])
def test_a_copy_in_whose_place_something_else_stands_is_a_miss(
    store: FolderStore, scope: Path, tmp_path: Path, what: str
) -> None:
    store.keep(MINE, Path("a"), [CHUNK])
    place = copy_of(CHUNK, scope)
    moved = place.rename(tmp_path / "moved")
    match what:
        case "link":
            place.symlink_to(moved)
        case "dangling":
            place.symlink_to("nowhere")
        case "pipe":
            os.mkfifo(place)
        case "folder":
            place.mkdir()
    assert holds(store, CHUNK) == [False]
    assert moved.read_bytes() == CHUNK


def test_another_name_with_the_same_key_is_no_hit(store: FolderStore, scope: Path) -> None:
    store.keep(MINE, Path("a"), [CHUNK])
    near = name_of(CHUNK)[:8] + bytes(24)
    with store.pins(ONE, ROOM) as pins:
        assert key_of(near) == key_of(name_of(CHUNK))
        assert pins.pin([near]) == [False]
    [stat] = store.stat()
    assert stat.rotted == 0  # the copy is sound; only that entry is dropped
    assert copy_of(CHUNK, scope).read_bytes() == CHUNK


# -- an index that lies, is damaged or lost ------------------------------------------------------------------


@pytest.mark.parametrize(
    "lie",
    [
        "UPDATE part SET place = place + 1",
        "UPDATE part SET place = -4096",
        "UPDATE part SET place = 1 << 62",
        "UPDATE part SET place = 9223372036854775807",
        "UPDATE part SET length = 0",
        "UPDATE part SET length = -5",
        "UPDATE part SET length = 9223372036854775807",
        "UPDATE part SET length = 4095 WHERE length = 4096",
        "UPDATE part SET origin = origin + 7",
        "UPDATE kept SET name = x'00'",
        "UPDATE kept SET name = zeroblob(32)",
        "UPDATE kept SET number = number + 5",
        "UPDATE origin SET kind = 'reference', path = x'2f6574632f706173737764'",
        "UPDATE origin SET kind = 'reference', path = x''",
        "UPDATE origin SET kind = 'reference', path = x'00'",
        "UPDATE origin SET kind = 'other'",
        "DELETE FROM origin",
        "DELETE FROM kept",
    ],
)
def test_an_index_that_lies_is_a_miss(store: FolderStore, scope: Path, tmp_path: Path, lie: str) -> None:
    store.keep(MINE, Path("a"), [CHUNK])
    path = tmp_path / "disk"
    path.write_bytes(OTHER)
    store.refer(MINE, path, [Located(0, UNIT_BYTES, name_of(OTHER[:UNIT_BYTES]))])
    changed_in(scope, lie)
    holds(store, CHUNK, CHUNK[:UNIT_BYTES], OTHER[:UNIT_BYTES])
    store.verify(MINE)
    store.collect(MINE)
    store.stat()
    store.keep(MINE, Path("a"), [CHUNK])
    assert holds(store, CHUNK) == [True]


@pytest.mark.parametrize(
    "lie",
    [
        "UPDATE part SET place = 'text'",
        "UPDATE part SET length = 4096.5",
        "UPDATE part SET length = NULL",
        "UPDATE kept SET name = 'text'",
        "UPDATE kept SET length = 'text'",
        "UPDATE origin SET path = 5, kind = 'reference'",
        "UPDATE origin SET path = NULL",
        "UPDATE origin SET inode = 'text', kind = 'reference'",
        "UPDATE origin SET used_at = 'text'",
        "UPDATE origin SET size = 'text'",
        "UPDATE origin SET entries = NULL",
        "INSERT INTO counter VALUES ('rotted', 'text')",
    ],
)
def test_an_index_with_values_of_other_types_is_a_miss_or_is_made_anew(
    store: FolderStore, scope: Path, lie: str
) -> None:
    store.keep(MINE, Path("a"), [CHUNK])
    store.close()
    with closing(sqlite3.connect(scope / "index.db", isolation_level=None)) as database:
        before = database.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'").fetchall()
        database.execute("PRAGMA writable_schema = ON")
        for name, sql in before:
            plain = sql.replace(") STRICT, WITHOUT", ") WITHOUT").replace(") STRICT", ")")
            plain = plain.replace(" NOT NULL", "").replace(" INTEGER,", ",").replace(" TEXT,", ",")
            database.execute("UPDATE sqlite_master SET sql = ? WHERE name = ?", (plain, name))
    with closing(sqlite3.connect(scope / "index.db", isolation_level=None)) as database:
        database.execute(lie)
        database.execute("PRAGMA writable_schema = ON")
        for name, sql in before:
            database.execute("UPDATE sqlite_master SET sql = ? WHERE name = ?", (sql, name))
    with closing(FolderStore(scope.parent, BOUNDS)) as again:
        for _ in range(2):
            try:
                holds(again, CHUNK, CHUNK[:UNIT_BYTES])
                again.origins(MINE)
                again.stat()
                again.verify(MINE)
                again.collect(MINE)
                again.keep(MINE, Path("a"), [CHUNK])
            except ToolError as error:
                assert error.kind.startswith("store")


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_index_with_any_bytes_changed_hands_out_nothing_wrong(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("store")
    with closing(FolderStore(folder, BOUNDS)) as store:
        store.keep(MINE, Path("a"), [CHUNK])
    index = folder / "tenant-one" / "index.db"
    content = bytearray(index.read_bytes())
    for _ in range(data.draw(st.integers(1, 20))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    index.write_bytes(content)
    with closing(FolderStore(folder, BOUNDS)) as store:
        for _ in range(2):
            try:
                holds(store, CHUNK, *(CHUNK[at : at + UNIT_BYTES] for at in range(0, CHUNK_BYTES, 65536)))
                store.verify(MINE)
                store.collect(MINE)
                store.stat()
            except ToolError as error:
                assert error.kind.startswith("store")


@pytest.mark.parametrize("how", ["absent", "garbage", "empty", "cut", "other"])
def test_an_index_that_is_of_no_use_is_made_anew_of_the_copies(
    store: FolderStore, scope: Path, tmp_path: Path, how: str
) -> None:
    store.keep(MINE, Path("a"), [CHUNK, OTHER[:9000]])
    path = tmp_path / "disk"
    path.write_bytes(OTHER)
    store.refer(MINE, path, [Located(0, CHUNK_BYTES, name_of(OTHER))])
    copy_of(b"poison", scope).parent.mkdir(exist_ok=True)
    copy_of(b"poison", scope).write_bytes(b"another")
    store.close()
    index = scope / "index.db"
    match how:
        case "absent":
            index.unlink()
        case "garbage":
            index.write_bytes(NOISE)
        case "empty":
            index.write_bytes(b"")
        case "cut":
            os.truncate(index, index.stat().st_size // 2)
        case "other":
            index.unlink()
            with closing(sqlite3.connect(index)) as database:
                database.execute("CREATE TABLE strange (x)")
                database.commit()
    with closing(FolderStore(tmp_path / "store", BOUNDS)) as again:
        again.verify(MINE)  # a damage far inside is met by whoever reads there
        assert holds(again, CHUNK, CHUNK[:UNIT_BYTES], OTHER[8192:9000]) == [True, True, True]
        if how not in {"empty"}:
            [stat] = again.stat()
            assert (stat.rebuilt, stat.kept) == (1, 1)
            assert holds(again, OTHER) == [False]
            assert not copy_of(b"poison", scope).exists()


def test_an_index_that_is_damaged_while_it_is_in_use_is_made_anew(store: FolderStore, scope: Path) -> None:
    store.keep(MINE, Path("a"), [CHUNK])
    store.collect(MINE)
    for file in scope.glob("index.db*"):
        file.unlink()
    (scope / "index.db").write_bytes(NOISE[:8192])
    with store.pins(ONE, ROOM) as pins:
        assert pins.pin([name_of(CHUNK)]) == [True]
        assert Trouble.REBUILT in [one.trouble for one in pins.found()]
    store.keep(MINE, Path("b"), [OTHER])
    assert holds(store, CHUNK, OTHER) == [True, True]


# -- the folder --------------------------------------------------------------------------------------------


def test_nobody_else_may_look_into_the_store(store: FolderStore, scope: Path) -> None:
    store.keep(MINE, Path("a"), [CHUNK])
    for path in (scope.parent, scope, copy_of(CHUNK, scope).parent):
        assert path.stat().st_mode & 0o077 == 0, path
    for path in (copy_of(CHUNK, scope), scope / "index.db", scope / "lock"):
        assert path.stat().st_mode & 0o177 == 0, path


def test_a_question_opens_the_tenants_own_folder_and_the_shared_one(
    store: FolderStore, tmp_path: Path
) -> None:
    store.keep(MINE, Path("a"), [CHUNK])
    store.keep(SHARED, Path("a"), [OTHER])
    store.close()
    with closing(FolderStore(tmp_path / "store", BOUNDS)) as again:
        with again.pins(TenantName("two"), ROOM) as pins:
            assert pins.pin([name_of(CHUNK), name_of(OTHER)]) == [False, True]
        assert set(again._shelves) == {SHARED}
    assert not (tmp_path / "store" / "tenant-two").exists()  # a question leaves no trace


def test_folders_that_are_no_scopes_are_left_alone(store: FolderStore, tmp_path: Path) -> None:
    for name in ("tenant-", "tenant-../x", "other", "tenant-a b", ".git"):
        (tmp_path / "store" / name).mkdir(parents=True, exist_ok=True)
    (tmp_path / "store" / "tenant-file").write_text("")
    assert store.stat() == []


def test_what_writers_left_behind_is_swept_up(store: FolderStore, scope: Path) -> None:
    store.keep(MINE, Path("a"), [CHUNK])
    (scope / "writing" / "half").write_bytes(b"half")
    orphan = copy_of(OTHER, scope)
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_bytes(OTHER)
    assert store.collect(MINE).leftovers == 2
    assert not orphan.exists()
    assert holds(store, CHUNK) == [True]


def test_a_reader_is_not_kept_by_a_writer_and_a_writer_that_waits_too_long_is_told(
    store: FolderStore, scope: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.keep(MINE, Path("a"), [CHUNK])
    with closing(sqlite3.connect(scope / "index.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("DELETE FROM part")
        with store._made(MINE)._index._writing.used() as database:
            database.execute("PRAGMA busy_timeout = 1")
        assert holds(store, CHUNK, CHUNK[:UNIT_BYTES]) == [True, True]
        assert [one.entries for one in store.origins(MINE)] == [257]
        with pytest.raises(ToolError) as error:
            store.keep(MINE, Path("b"), [OTHER])
        assert error.value.kind == "store-busy"
        other.execute("ROLLBACK")
    store.keep(MINE, Path("b"), [OTHER])
    assert holds(store, OTHER) == [True]


@pytest.mark.parametrize("removed", ["all of it", "the tenant's own"])
def test_a_store_that_is_removed_while_it_is_open_is_one_of_misses_and_is_filled_again(
    store: FolderStore, scope: Path, removed: str
) -> None:
    store.keep(MINE, Path("a"), [CHUNK])
    assert holds(store, CHUNK) == [True]
    with store.pins(ONE, ROOM) as pins:
        shutil.rmtree(scope if removed == "the tenant's own" else scope.parent)
        assert pins.pin([name_of(CHUNK)]) == [False]
    assert store.origins(MINE) == []
    store.keep(MINE, Path("a"), [CHUNK])
    assert holds(store, CHUNK) == [True]
    assert [stat.S_IMODE(one.stat().st_mode) for one in (scope.parent, scope)] == [0o700, 0o700]


def test_a_store_that_is_gone_and_cannot_be_made_anew_says_so(store: FolderStore, scope: Path) -> None:
    store.keep(MINE, Path("a"), [CHUNK])
    shutil.rmtree(scope.parent)
    scope.parent.write_text("in its place")
    assert holds(store, CHUNK) == [False]
    with pytest.raises(ToolError) as said:
        store.origins(MINE)
    assert said.value.kind == "store-files"
