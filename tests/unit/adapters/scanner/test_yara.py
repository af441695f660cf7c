"""Rules are compiled once, apart from us; a rule that breaks or blows up costs a file its answer alone."""

from __future__ import annotations

import os
import signal
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fakes.scanner import eicar
from korora.adapters.scanner import yara_rules
from korora.adapters.scanner.signature_folder import KORORAS_OWN
from korora.adapters.scanner.yara import Yara
from korora.adapters.scanner.yara_process import Worker
from korora.errors import ToolError
from korora.model.scan import Answer
from korora.ports.scanner import Stream

ENDLESS = """rule endless {
    condition: uint8(0) == 0x78 and for any i in (0..100000000000): (uint8(i % filesize) == 7 and i < 0)
}"""


def of(*blocks: bytes) -> Stream:
    return Stream(None, iter(blocks))


class Folder:
    """Rules, and engines over them that are closed at the end."""

    def __init__(self, place: Path) -> None:
        self.rules, self.cache = place / "rules", place / "cache"
        self.rules.mkdir()
        self._made: list[Yara] = []

    def rule(self, text: str, name: str = "a.yar") -> Folder:
        (self.rules / name).parent.mkdir(exist_ok=True)
        (self.rules / name).write_text(text)
        return self

    def engine(self, read_bytes: int = 1 << 20) -> Yara:
        self._made.append(Yara(self.rules, self.cache, read_bytes=read_bytes))
        return self._made[-1]

    def close(self) -> None:
        for engine in self._made:
            engine.close()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    made = Folder(tmp_path)
    yield made
    made.close()


NEEDLE = 'rule needle { strings: $a = "needle" condition: $a }'


def test_a_match_is_told_with_rule_and_file(folder: Folder) -> None:
    told = folder.rule(NEEDLE, "more/b.yara").engine().scan(of(b"hay ", b"needle"), 10)
    assert (told.answer, told.words) == (Answer.INFECTED, "rule needle (more/b.yara)")


def test_the_same_name_in_two_files_is_two_rules(folder: Folder) -> None:
    engine = folder.rule(NEEDLE).rule(NEEDLE, "b.yar").engine()
    assert engine.facts().signatures == 2
    assert engine.scan(of(b"needle"), 10).words == "rule needle (a.yar), needle (b.yar)"


def test_a_rule_that_is_tagged_suspicious_is_no_proof(folder: Folder) -> None:
    tagged = folder.rule('rule odd : suspicious { strings: $a = "odd" condition: $a }').rule(NEEDLE, "b.yar")
    engine = tagged.engine()
    assert engine.scan(of(b"odd"), 10).answer is Answer.SUSPICIOUS
    assert engine.scan(of(b"odd needle"), 10).answer is Answer.INFECTED


def test_of_a_long_file_a_match_counts_and_no_match_is_unknown(folder: Folder) -> None:
    engine = folder.rule(NEEDLE).engine(read_bytes=1 << 20)
    assert engine.scan(of(b"needle", bytes(2 << 20)), 10).answer is Answer.INFECTED
    told = engine.scan(of(bytes(1 << 20), b"needle"), 10)
    assert (told.answer, told.words) == (
        Answer.UNKNOWN,
        "its first 1 MiB match no rule; the rest was not read",
    )
    assert engine.scan(of(bytes(1 << 20)), 10).answer is Answer.CLEAN


def test_a_rule_that_never_ends_is_unknown_in_time_and_the_next_file_is_answered(folder: Folder) -> None:
    engine = folder.rule(ENDLESS).engine()
    told = engine.scan(of(b"x" * 10_000), 1)
    assert (told.answer, "too long" in told.words) == (Answer.UNKNOWN, True)
    assert engine.scan(of(b"y"), 10).answer is Answer.CLEAN


@pytest.mark.parametrize(
    "text",
    ["rule a {", "rule a { condition: nothing }", 'include "/etc/passwd"', "\0", "rule a { strings: $x"],
)
def test_rules_that_do_not_compile_are_unknown_with_the_compilers_words(folder: Folder, text: str) -> None:
    engine = folder.rule(NEEDLE).rule(text, "broken.yar").engine()
    told = engine.scan(of(b"needle"), 10)
    assert told.answer is Answer.UNKNOWN
    assert engine.facts().problem == told.words
    assert "rules do not compile" in told.words


def test_rules_in_no_encoding_are_unknown(folder: Folder) -> None:
    (folder.rules / "a.yar").write_bytes(b"// \xff\xfe\n" + NEEDLE.encode())
    assert "not UTF-8" in folder.engine().facts().problem


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("gone")])
def test_a_file_of_rules_that_cannot_be_read_is_not_left_out(
    folder: Folder, make: Callable[[Path], None]
) -> None:
    folder.rule("rule fine { condition: false }")
    make(folder.rules / "b.yar")
    answer = folder.engine().scan(of(b"x"), 10)
    assert answer.answer is Answer.UNKNOWN
    assert "b.yar" in answer.words


def test_no_rules_are_unknown_and_not_clean(folder: Folder) -> None:
    assert "no .yar or .yara" in folder.engine().facts().problem
    assert folder.engine().scan(of(b"x"), 10).answer is Answer.UNKNOWN


def test_what_was_compiled_is_kept_privately_and_used_again(folder: Folder) -> None:
    folder.rule(NEEDLE).engine()
    [kept] = folder.cache.iterdir()
    assert (stat.S_IMODE(folder.cache.stat().st_mode), stat.S_IMODE(kept.stat().st_mode)) == (0o700, 0o600)
    os.utime(kept, (5, 5))
    assert folder.engine().scan(of(b"needle"), 10).answer is Answer.INFECTED
    assert kept.stat().st_mtime == 5


def test_other_rules_are_compiled_anew(folder: Folder) -> None:
    folder.rule(NEEDLE).engine()
    assert folder.rule(NEEDLE.replace("needle", "thread")).engine().scan(of(b"thread"), 10).words
    assert len(list(folder.cache.iterdir())) == 2


def test_of_what_was_compiled_the_newest_are_kept(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yara_rules, "KEPT_MAX", 2)
    for word in ("one", "two", "three", "four"):
        folder.rule(NEEDLE.replace("needle", word)).engine()
    assert len(list(folder.cache.iterdir())) == 2
    assert folder.engine().scan(of(b"four"), 10).answer is Answer.INFECTED


def test_closing_ends_a_scan_that_runs(folder: Folder) -> None:
    engine = folder.rule(ENDLESS).engine()
    threading.Timer(0.5, engine.close).start()
    began = time.monotonic()
    assert engine.scan(of(b"x" * 1000), 60).answer is Answer.UNKNOWN
    assert time.monotonic() - began < 55  # not the scan's own deadline
    assert engine._busy == set()


@pytest.mark.parametrize("damage", [b"", b"x", bytes(40)])
def test_a_damaged_cache_is_made_anew(folder: Folder, damage: bytes) -> None:
    folder.rule(NEEDLE).engine()
    [kept] = folder.cache.iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(whole[:30] + damage)
    assert folder.engine().scan(of(b"needle"), 10).answer is Answer.INFECTED
    assert kept.read_bytes()[:32] != damage


def test_a_cache_that_others_can_write_to_is_not_used(folder: Folder) -> None:
    folder.cache.mkdir()
    folder.cache.chmod(0o777)
    assert "others can write" in folder.rule(NEEDLE).engine().facts().problem


def test_a_worker_that_is_killed_costs_one_file(folder: Folder) -> None:
    engine = folder.rule(NEEDLE).engine()
    os.kill(engine._idle[0].pid, signal.SIGKILL)
    told = engine.scan(of(b"needle"), 10)
    assert (told.answer, "signal 9" in told.words) == (Answer.UNKNOWN, True)
    assert engine.scan(of(b"needle"), 10).answer is Answer.INFECTED


def test_a_worker_ends_with_whoever_started_it() -> None:
    worker = Worker("scan")
    worker._connection.close()
    assert worker._process.wait(20) == 0


def test_korora_knows_the_test_files(tmp_path: Path) -> None:
    engine = Yara(KORORAS_OWN, tmp_path / "cache", own=True)
    assert engine.facts().dated is None
    found = engine.scan(of(Path("/usr/share/clamav-testfiles/clam.exe").read_bytes()), 10)
    assert found.words == "rule korora_test_clamav (korora.yar)"
    assert engine.scan(of(b" ", eicar()), 10).answer is Answer.CLEAN
    engine.close()


def test_too_many_rules_are_refused(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.rule(NEEDLE).rule(NEEDLE, "b.yar")
    for bound in ("SOURCES_MAX", "SOURCES_MAX_BYTES"):
        with monkeypatch.context() as patched:
            patched.setattr(yara_rules, bound, 1)
            with pytest.raises(ToolError, match="more than"):
                yara_rules.read(folder.rules)
