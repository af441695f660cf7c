"""Files go to clamd in counted pieces; whatever it does instead of answering is unknown."""

from __future__ import annotations

import io
import os
import socket
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.clamd import FakeClamd
from fakes.scanner import eicar
from korora.adapters.scanner.clamav import ClamAv, understood, understood_version
from korora.adapters.scanner.clamd_process import ClamdLimits, configuration, start
from korora.adapters.scanner.signature_folder import KORORAS_OWN, signatures
from korora.errors import ToolError
from korora.model.scan import Answer
from korora.ports.scanner import Stream

SMALL = ClamdLimits(stream_bytes=1 << 20, scan_bytes=4 << 20, depth=5)
TEST_FILES = Path("/usr/share/clamav-testfiles")


@pytest.fixture(scope="module")
def real() -> Iterator[ClamAv]:
    process = start(KORORAS_OWN, SMALL, lambda place: ClamAv(place).answers())
    yield ClamAv(process.socket, signatures(KORORAS_OWN), process)
    process.end()


def of(*blocks: bytes) -> Stream:
    return Stream(None, iter(blocks))


@given(st.lists(st.binary(max_size=300), max_size=20))
@settings(max_examples=60, deadline=None)
def test_what_clamd_gets_is_the_file(tmp_path_factory: pytest.TempPathFactory, blocks: list[bytes]) -> None:
    fake = FakeClamd(tmp_path_factory.mktemp("clamd") / "s")
    try:
        assert ClamAv(fake.place).scan(of(*blocks), 10).answer is Answer.CLEAN
        assert fake.streams == [[block for block in blocks if block]]
    finally:
        fake.close()


@given(st.binary(max_size=200))
def test_clean_is_one_sentence_and_no_other(reply: bytes) -> None:
    assert (understood(reply).answer is Answer.CLEAN) == (reply.strip() == b"stream: OK")


@pytest.mark.parametrize(
    ("reply", "answer", "words"),
    [
        (b"stream: OK", "clean", "OK"),
        (b"stream: Win.Test.EICAR_HDB-1 FOUND", "infected", "Win.Test.EICAR_HDB-1"),
        (b"stream: Heuristics.Phishing.Email FOUND", "suspicious", "Heuristics.Phishing.Email"),
        (b"stream: PUA.Win.Packer FOUND", "suspicious", "PUA.Win.Packer"),
        (b"stream: Heuristics.Limits.Exceeded.MaxScanSize FOUND", "unknown", "Heuristics.Limits.Exceeded"),
        (b"stream: Heuristics.Encrypted.Zip FOUND", "unknown", "Heuristics.Encrypted.Zip"),
        (b"INSTREAM size limit exceeded. ERROR", "unknown", "size limit exceeded"),
        (b"stream: Time limit reached ERROR", "unknown", "Time limit"),
        (b"stream: \xff\x00 FOUND", "infected", "\\xff"),
        (b"", "unknown", "empty"),
    ],
)
def test_clamds_sentences(reply: bytes, answer: str, words: str) -> None:
    told = understood(reply)
    assert told.answer == answer
    assert words in told.words


def test_the_version_dates_the_signatures() -> None:
    assert understood_version(b"ClamAV 1.4.3/27750/Tue Sep  2 08:27:33 2025") == (
        "ClamAV 1.4.3, daily 27750",
        1756801653,
    )
    assert understood_version(b"ClamAV 1.4.3") == ("ClamAV 1.4.3", None)
    assert understood_version(b"ClamAV 1.4.3/1/yesterday") == ("ClamAV 1.4.3", None)


def test_no_clamd_is_unknown(tmp_path: Path) -> None:
    engine = ClamAv(tmp_path / "none")
    assert engine.scan(of(b"x"), 5).answer is Answer.UNKNOWN
    assert "No such file" in engine.facts().problem
    assert not engine.answers()


@pytest.mark.parametrize("reply", [b"", b"stream: O", b"stream: OK", b"x" * 100_000])
def test_clamd_that_ends_in_the_middle_of_its_answer_is_unknown(tmp_path: Path, reply: bytes) -> None:
    fake = FakeClamd(tmp_path / "s", says=lambda _: reply)
    assert ClamAv(fake.place).scan(of(b"x"), 5).answer is Answer.UNKNOWN
    fake.close()


def test_clamd_that_says_nothing_is_unknown_in_time(tmp_path: Path) -> None:
    release = threading.Event()
    fake = FakeClamd(tmp_path / "s", says=lambda _: b"stream: OK\0" if release.wait(30) else b"")
    told = ClamAv(fake.place).scan(of(b"x"), 0.3)
    release.set()
    assert (told.answer, "no answer in time" in told.words) == (Answer.UNKNOWN, True)
    fake.close()


def test_clamd_that_takes_nothing_is_unknown_in_time(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen()
        told = ClamAv(tmp_path / "s").scan(of(*[bytes(1 << 18)] * 50), 0.5)
        assert told.answer is Answer.UNKNOWN


def test_a_file_that_is_too_long_is_unknown_with_clamds_words(tmp_path: Path) -> None:
    fake = FakeClamd(tmp_path / "s", limit=1000)
    told = ClamAv(fake.place).scan(of(*[b"x" * 600] * 10_000), 10)
    assert told.answer is Answer.UNKNOWN
    assert "INSTREAM size limit exceeded" in told.words or "ended unheard" in told.words
    fake.close()


# -- what is in memory -------------------------------------------------------------------------------------


def held(*blocks: bytes) -> Stream:
    return Stream(None, iter(blocks), at_hand=True)


_HELD = st.lists(st.lists(st.binary(max_size=300), max_size=4), max_size=8)


@given(_HELD)
@settings(max_examples=60, deadline=None)
def test_what_is_in_memory_goes_as_a_descriptor_one_file_after_another(
    tmp_path_factory: pytest.TempPathFactory, files: list[list[bytes]]
) -> None:
    fake = FakeClamd(tmp_path_factory.mktemp("clamd") / "s")
    engine = ClamAv(fake.place)
    try:
        for blocks in files:
            assert engine.scan(held(*blocks), 10).answer is Answer.CLEAN
        assert engine.scan(held(eicar()), 10).answer is Answer.INFECTED
        assert fake.descriptors == [*(b"".join(blocks) for blocks in files), eicar()]
        assert fake.streams == []
    finally:
        engine.close()
        fake.close()


@pytest.mark.parametrize(
    "refuses",
    [b"", b"UNKNOWN COMMAND\0", b"fd[12]: Can't allocate memory ERROR\0", b"No file descriptor. ERROR\0"],
)
def test_a_clamd_that_takes_no_descriptor_is_sent_the_file_and_is_given_none_again(
    tmp_path: Path, refuses: bytes
) -> None:
    fake = FakeClamd(tmp_path / "s", refuses=refuses)
    engine = ClamAv(fake.place)
    answers = [engine.scan(held(b"a", content), 10).answer for content in (b"hay", eicar(), b"more")]
    answers.append(engine.scan(held(eicar()), 10).answer)
    assert answers == [Answer.CLEAN] * 3 + [Answer.INFECTED]
    assert fake.streams == [[b"a", b"hay"], [b"a", eicar()], [b"a", b"more"], [eicar()]]
    engine.close()
    fake.close()


def test_a_descriptor_of_which_clamd_says_nothing_is_unknown_in_time(tmp_path: Path) -> None:
    release = threading.Event()
    fake = FakeClamd(tmp_path / "s", says=lambda _: b"stream: OK\0" if release.wait(30) else b"")
    told = ClamAv(fake.place).scan(held(b"x"), 0.3)
    release.set()
    assert (told.answer, "no answer in time" in told.words) == (Answer.UNKNOWN, True)
    fake.close()


def memories() -> int:
    """Of this process, that a session holds."""
    links = Path("/proc/self/fd").iterdir()
    return sum("memfd:korora" in str(one.readlink()) for one in links if one.is_symlink())


def test_sessions_leave_no_memory_behind(tmp_path: Path) -> None:
    fake = FakeClamd(tmp_path / "s")
    engine, before = ClamAv(fake.place), memories()
    engine.scan(held(b"x"), 10)
    assert memories() == before + 1
    engine.close()
    assert memories() == before
    fake.close()


# -- the real one ------------------------------------------------------------------------------------------


def test_a_line_of_endless_length_is_unknown_to_the_real_one_and_costs_nothing(real: ClamAv) -> None:
    drawn = 0

    def line() -> Iterator[bytes]:
        nonlocal drawn
        while True:
            drawn += 1
            yield b"x" * (1 << 18)

    told = real.scan(Stream(4 << 30, line()), 20)
    assert told.answer is Answer.UNKNOWN
    assert drawn < 100


def test_an_archive_that_holds_the_test_file_is_infected(real: ClamAv) -> None:
    assert real.scan(of(zipped(eicar())), 20).answer is Answer.INFECTED


def test_an_archive_that_is_too_deep_is_unknown(real: ClamAv) -> None:
    nested = eicar()
    for _ in range(10):
        nested = zipped(nested)
    told = real.scan(of(nested), 20)
    assert (told.answer, told.words) == (Answer.UNKNOWN, "Heuristics.Limits.Exceeded.MaxRecursion")


@pytest.mark.parametrize("name", ["clam.zip", "clam.tar.gz", "clam.7z", "clam.exe", "clam.pdf", "clam.cab"])
def test_debians_test_files_are_infected(real: ClamAv, name: str) -> None:
    told = real.scan(of((TEST_FILES / name).read_bytes()), 20)
    assert (told.answer, told.words) == (Answer.INFECTED, "Korora.Test.ClamAV.UNOFFICIAL")


@given(st.binary(max_size=2000))
@settings(max_examples=30, deadline=None)
def test_any_bytes_have_an_answer(real: ClamAv, content: bytes) -> None:
    assert real.scan(of(b"PK\x03\x04", content), 20).answer in set(Answer)


def test_it_says_how_many_signatures_it_loaded(real: ClamAv) -> None:
    facts = real.facts()
    assert (facts.signatures, facts.dated, facts.version.split()[0]) == (2, None, "ClamAV")


def test_a_clamd_of_our_own_ends_and_leaves_nothing() -> None:
    process = start(KORORAS_OWN, SMALL, lambda place: ClamAv(place).answers())
    folder = process.socket.parent
    assert folder.stat().st_mode & 0o077 == 0
    process.end()
    process.end()
    assert not folder.exists()
    assert not Path(f"/proc/{process.pid}").exists()


def test_a_clamd_that_dies_leaves_its_files_unknown() -> None:
    process = start(KORORAS_OWN, SMALL, lambda place: ClamAv(place).answers())
    engine = ClamAv(process.socket, process=process)
    os.kill(process.pid, 9)
    assert engine.scan(of(b"x"), 5).answer is Answer.UNKNOWN
    engine.close()


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that the account of clamd comes to."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_signatures_that_it_cannot_load_are_told_in_its_words(public: Path) -> None:
    (public / "broken.ndb").write_text("nonsense\n")
    with pytest.raises(ToolError, match=r"it ended: .*Malformed database"):
        start(public, SMALL, lambda place: ClamAv(place).answers(), 20)


def test_the_sites_own_signatures_are_used_where_they_are(public: Path) -> None:
    (public / "site.ndb").write_text(f"Site.Needle:0:*:{b'needle'.hex()}\n")
    process = start(public, SMALL, lambda place: ClamAv(place).answers(), 20)
    engine = ClamAv(process.socket, signatures(public), process)
    told = engine.scan(of(b"hay, needle"), 10)
    facts = engine.facts()
    engine.close()
    assert (told.answer, told.words) == (Answer.INFECTED, "Site.Needle.UNOFFICIAL")
    assert (facts.signatures, facts.dated) == (1, int((public / "site.ndb").stat().st_mtime))


def test_no_path_can_slip_a_line_into_its_configuration() -> None:
    with pytest.raises(ValueError, match="cannot be told"):
        configuration(Path("/run"), Path('/x"\nLocalSocket /y'), SMALL)


def zipped(content: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", content)
    return packed.getvalue()


def test_a_folder_of_signatures_says_how_many_and_how_old(tmp_path: Path) -> None:
    head = "ClamAV-VDB:02 Sep 2025 08-27 +0000:27750:2076000:90:X:X:builder:1756801653".ljust(512)
    (tmp_path / "daily.cvd").write_bytes(head.encode() + b"\x00\xff")
    (tmp_path / "own.ndb").write_text("# none\nA:0:*:4141\n\nB:0:*:4242\n")
    os.utime(tmp_path / "own.ndb", (1000, 1000))
    found = signatures(tmp_path)
    assert found is not None
    assert (found.count, found.dated) == (2_076_002, 1756801653)
    assert signatures(tmp_path / "none") is None
    (tmp_path / "empty").mkdir()
    assert signatures(tmp_path / "empty") is None
