"""What every engine must do, whatever it is: the real ones, and the fakes that stand for them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fakes.clamd import FakeClamd
from fakes.scanner import MemoryScanner, eicar
from korora.adapters.scanner.clamav import ClamAv
from korora.adapters.scanner.clamd_process import ClamdLimits, start
from korora.adapters.scanner.reputation import Lists, Reputation
from korora.adapters.scanner.signature_folder import KORORAS_OWN, signatures
from korora.adapters.scanner.yara import Yara
from korora.model.scan import Answer
from korora.ports.scanner import BLOCK_BYTES, BrokenStreamError, Scanner, Stream

CLEAN = b"nothing to see here\n" * 1000


def clamd(folder: Path) -> Iterator[Scanner]:
    process = start(KORORAS_OWN, ClamdLimits(), lambda place: ClamAv(place).answers())
    yield ClamAv(process.socket, signatures(KORORAS_OWN), process)


def fake_clamd(folder: Path) -> Iterator[Scanner]:
    fake = FakeClamd(folder / "socket")
    yield ClamAv(fake.place)
    fake.close()


def yara(folder: Path) -> Iterator[Scanner]:
    yield Yara(KORORAS_OWN, folder / "cache", own=True)


def reputation(folder: Path) -> Iterator[Scanner]:
    bad, good = folder / "bad.txt", folder / "good.txt"
    bad.write_text(f"{hashlib.sha256(eicar()).hexdigest()}  EICAR test file\n")
    good.write_text("".join(f"{hashlib.sha256(one).hexdigest()}\n" for one in (b"", CLEAN)))
    yield Reputation(Lists.read([bad], [good]))


def memory(folder: Path) -> Iterator[Scanner]:
    yield MemoryScanner(eicar())


ENGINES: list[Callable[[Path], Iterator[Scanner]]] = [clamd, fake_clamd, yara, reputation, memory]


@pytest.fixture(params=ENGINES, ids=lambda engine: engine.__name__)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scanner]:
    for scanner in request.param(tmp_path):
        try:
            yield scanner
        finally:
            scanner.close()


def stream(content: bytes, piece: int = BLOCK_BYTES, size: int | None = None) -> Stream:
    return Stream(size, (content[at : at + piece] for at in range(0, len(content), piece)))


def test_it_says_who_it_is(engine: Scanner) -> None:
    facts = engine.facts()
    assert (facts.engine, facts.problem) == (engine.name, "")
    assert facts.version


def test_the_test_file_is_infected_in_its_own_words(engine: Scanner) -> None:
    answer = engine.scan(stream(eicar()), 20)
    assert (answer.engine, answer.answer) == (engine.name, Answer.INFECTED)
    assert answer.words


@pytest.mark.parametrize("content", [b"", CLEAN], ids=["empty", "text"])
def test_other_files_are_clean(engine: Scanner, content: bytes) -> None:
    assert engine.scan(stream(content), 20).answer is Answer.CLEAN


def test_a_file_that_is_in_memory_has_the_same_answers(engine: Scanner) -> None:
    contents = [CLEAN, eicar(), b"", eicar() + bytes(3 * BLOCK_BYTES), CLEAN, eicar()]
    for content in contents:
        streamed = engine.scan(stream(content), 30)
        blocks = stream(content).blocks
        assert engine.scan(Stream(len(content), blocks, at_hand=True), 30) == streamed


@pytest.mark.parametrize("piece", [1, 7, 67])
def test_how_a_file_is_cut_into_blocks_means_nothing(engine: Scanner, piece: int) -> None:
    assert engine.scan(stream(eicar(), piece), 20).answer is Answer.INFECTED
    empty_between = (part for byte in eicar() for part in (bytes([byte]), b""))
    assert engine.scan(Stream(None, empty_between), 20).answer is Answer.INFECTED


def test_a_wrong_size_beforehand_means_nothing(engine: Scanner) -> None:
    assert engine.scan(stream(eicar(), size=1), 20).answer is Answer.INFECTED
    assert engine.scan(stream(CLEAN, size=10**15), 20).answer is Answer.CLEAN


def test_a_stream_that_breaks_off_is_told_and_the_next_file_is_as_if_nothing_was(engine: Scanner) -> None:
    def breaking() -> Iterator[bytes]:
        yield eicar()
        raise BrokenStreamError("gone")

    with pytest.raises(BrokenStreamError):
        engine.scan(Stream(None, breaking()), 20)
    assert engine.scan(stream(CLEAN), 20).answer is Answer.CLEAN
    assert engine.scan(stream(eicar()), 20).answer is Answer.INFECTED


def test_many_threads_may_ask_at_once(engine: Scanner) -> None:
    files = [eicar() if number % 2 else CLEAN for number in range(40)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda content: engine.scan(stream(content), 30).answer, files))
    assert answers == [Answer.INFECTED if number % 2 else Answer.CLEAN for number in range(40)]


def test_an_engine_that_is_closed_is_unknown_and_says_so(engine: Scanner) -> None:
    engine.close()
    assert engine.scan(stream(CLEAN), 5).answer is Answer.UNKNOWN
    assert engine.facts().problem
