"""Several processes at one store, writers that are killed, and storage that is full."""

from __future__ import annotations

import errno
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from korora.adapters.store import chunks
from korora.adapters.store.store import FolderStore
from korora.errors import ToolError
from korora.model.stored import Bounds, Scope, TenantName
from korora.protocol.content_tree import CHUNK_BYTES
from korora.protocol.dedup.names import name_of

ONE = TenantName("one")
MINE = Scope(ONE)
BOUNDS = Bounds(256 << 20, 1 << 20)
CHUNK = random.Random(8).randbytes(CHUNK_BYTES)
PATIENCE_S = 120.0
_WRITER = """
import random, sys
from pathlib import Path
from korora.adapters.store.store import FolderStore
from korora.model.stored import Bounds, Scope, TenantName
from korora.protocol.content_tree import CHUNK_BYTES

def chunks(seed, count):
    noise = random.Random(seed)
    for number in range(count):
        yield noise.randbytes(CHUNK_BYTES)
        print(number, flush=True)

store = FolderStore(Path(sys.argv[1]), Bounds(256 << 20, 1 << 20))
while True:
    store.keep(Scope(TenantName("one")), Path(sys.argv[2]), chunks(int(sys.argv[3]), int(sys.argv[4])))
    if sys.argv[5] == "once":
        break
"""


@contextmanager
def writer(folder: Path, seed: int, count: int, how: str = "once") -> Iterator[subprocess.Popen[bytes]]:
    words = [sys.executable, "-c", _WRITER, str(folder), f"of {seed}", str(seed), str(count), how]
    paths = os.pathsep.join(path for path in sys.path if path)
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": paths}) as process:
        try:
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().decode().strip()


def contents(seed: int, count: int) -> list[bytes]:
    noise = random.Random(seed)
    return [noise.randbytes(CHUNK_BYTES) for _ in range(count)]


def held(store: FolderStore, parts: list[bytes]) -> list[bool]:
    with store.pins(ONE, 256 << 20) as pins:
        there = pins.pin([name_of(part) for part in parts])
        for part, one in zip(parts, there, strict=True):
            assert not one or pins.content(name_of(part)) == part
        return there


@pytest.mark.parametrize("wait_ms", [0, 3, 11, 29])
def test_a_writer_that_is_killed_leaves_a_store_that_holds_what_it_says(tmp_path: Path, wait_ms: int) -> None:
    with writer(tmp_path, 1, 40, "for ever") as process:
        for _ in range(5):
            assert said(process).isdigit()
        time.sleep(wait_ms / 1000)
        process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE_S)
    with closing(FolderStore(tmp_path, BOUNDS)) as store:
        assert held(store, contents(1, 40))[:4] == [True] * 4
        verified = store.verify(MINE)
        assert (verified.rotted, verified.changed) == ((), 0)
        store.collect(MINE)
        assert list((tmp_path / "tenant-one" / "writing").iterdir()) == []
        on_disk = {path.name for path in (tmp_path / "tenant-one").glob("??/*")}
        assert store.collect(MINE).leftovers == 0
        assert on_disk == {path.name for path in (tmp_path / "tenant-one").glob("??/*")}
        store.keep(MINE, Path("of 1"), contents(1, 6))
        assert held(store, contents(1, 6)) == [True] * 6


def test_two_processes_write_while_a_third_reads_and_collects(tmp_path: Path) -> None:
    with (
        writer(tmp_path, 1, 12) as one,
        writer(tmp_path, 2, 12) as two,
        closing(FolderStore(tmp_path, BOUNDS)) as store,
    ):
        while one.poll() is None or two.poll() is None:
            held(store, contents(1, 3) + contents(2, 3))
            store.collect(MINE)
            store.stat()
        assert (one.returncode, two.returncode) == (0, 0)
        assert held(store, contents(1, 12) + contents(2, 12)) == [True] * 24
        assert store.verify(MINE).rotted == ()
        assert [stat.rebuilt for stat in store.stat()] == [0]


def test_a_process_that_has_an_index_open_goes_on_with_the_one_that_another_made(tmp_path: Path) -> None:
    index = tmp_path / "tenant-one" / "index.db"
    with closing(FolderStore(tmp_path, BOUNDS)) as one, closing(FolderStore(tmp_path, BOUNDS)) as two:
        one.keep(MINE, Path("a"), [CHUNK])
        assert held(two, [CHUNK]) == [True]
        one.collect(MINE)
        index.unlink()
        assert held(two, [CHUNK]) == [True]
        assert index.exists()
        other = contents(3, 1)
        one.keep(MINE, Path("b"), other)
        assert held(two, [CHUNK, *other]) == [True, True]
        assert held(one, [CHUNK, *other]) == [True, True]


def test_threads_share_a_store(tmp_path: Path) -> None:
    wrong: list[object] = []
    with closing(FolderStore(tmp_path, BOUNDS)) as store:

        def work(seed: int) -> None:
            try:
                for _ in range(3):
                    store.keep(MINE, Path(f"of {seed}"), contents(seed, 3))
                    if held(store, contents(seed, 3)) != [True] * 3:
                        wrong.append(seed)
            except Exception as error:
                wrong.append(error)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
    assert wrong == []


def test_a_full_disk_is_told_and_what_was_there_stays_usable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(FolderStore(tmp_path, BOUNDS)) as store:
        store.keep(MINE, Path("a"), [CHUNK])

        def full(*_: object) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(chunks, "_private", full)
        with pytest.raises(ToolError, match="No space left") as error:
            store.keep(MINE, Path("b"), contents(4, 1))
        assert error.value.kind == "store-files"
        monkeypatch.undo()
        assert held(store, [CHUNK, *contents(4, 1)]) == [True, False]
        assert store.verify(MINE).rotted == ()


@pytest.mark.parametrize("limit", [600_000, 200_000, 40_000])
def test_a_file_that_cannot_grow_is_a_full_disk(tmp_path: Path, limit: int) -> None:
    """With the kernel's own limit on a file's size, which meets copies and the index alike."""
    with closing(FolderStore(tmp_path, BOUNDS)) as store:
        store.keep(MINE, Path("a"), [CHUNK])
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
            with pytest.raises(ToolError) as error:
                store.keep(MINE, Path("b"), contents(4, 8))
            assert error.value.kind in {"store-files", "store-index"}
            assert held(store, [CHUNK]) == [True]
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, ignored)
        assert list((tmp_path / "tenant-one" / "writing").iterdir()) == []
        store.keep(MINE, Path("b"), contents(4, 2))
        assert held(store, [CHUNK, *contents(4, 2)]) == [True] * 3


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ToolError) as error:
        FolderStore(tmp_path / "file" / "store", BOUNDS)
    assert error.value.kind == "store-files"
    assert "removed" in error.value.remedy or "writable" in error.value.remedy


def test_storage_that_fails_is_a_miss_for_a_session_and_no_reason_to_stop(tmp_path: Path) -> None:
    with closing(FolderStore(tmp_path, BOUNDS)) as store:
        store.keep(MINE, Path("a"), [CHUNK])
        store._made(MINE)._index.close()
        assert held(store, [CHUNK]) == [False]


def test_a_reader_in_the_same_process_does_not_wait_for_a_writer(tmp_path: Path) -> None:
    with closing(FolderStore(tmp_path, BOUNDS)) as store:
        store.keep(MINE, Path("a"), [CHUNK])
        index = store._made(MINE)._index
        answered = threading.Event()

        def ask() -> None:
            with store.pins(ONE, 1 << 30) as pins:
                if pins.pin([name_of(CHUNK)]) == [True] and store.origins(MINE):
                    answered.set()

        with index._writing.transaction():
            thread = threading.Thread(target=ask)
            thread.start()
            assert answered.wait(PATIENCE_S)
        thread.join(PATIENCE_S)
