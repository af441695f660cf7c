"""`korora scan`: infected, unknown and clean have each their exit code, and clean is never said lightly."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from fakes.clamd import FakeClamd
from fakes.scanner import eicar
from korora.adapters.indicators.sqlite import SqliteIndicators
from korora.cli.main import answer
from korora.model.indicator import Entry, Kind, Provenance
from korora.wiring import scanning


class Command:
    """`korora scan`, as a script calls it, over a folder of its own."""

    def __init__(self, printed: pytest.CaptureFixture[str], folder: Path) -> None:
        self._printed = printed
        self.folder = folder
        self.files = folder / "files"
        self.files.mkdir()

    def run(self, *words: str | Path) -> tuple[int, str]:
        code = answer(["scan", *map(str, words or [self.files])])
        told = self._printed.readouterr()
        return code, told.out + told.err

    def answered(self, *words: str | Path) -> tuple[int, Any]:
        code, text = self.run(*(words or [self.files]), "--json")
        return code, json.loads(text.splitlines()[0])

    def file(self, name: str | bytes, content: bytes = b"nothing to see here\n") -> Path:
        path = self.files / os.fsdecode(name)
        path.write_bytes(content)
        return path

    def settings(self, text: str) -> Path:
        path = self.folder / "scan.toml"
        path.write_text(text)
        return path


@pytest.fixture
def scan(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(scanning, "SYSTEM_SOCKET", tmp_path / "no-clamd")
    monkeypatch.setattr(scanning, "SYSTEM_SIGNATURES", tmp_path / "no-signatures")
    return Command(capsys, tmp_path)


def test_clean_files_are_0_and_the_output_says_how_little_that_says(scan: Command) -> None:
    scan.file("a.txt")
    code, text = scan.run()
    assert code == 0
    assert "clamav has only 2 signatures" in text
    assert "reputation is not configured" in text
    assert "1 clean, 0 infected" in text


def test_an_infected_file_is_5_with_every_engines_own_words(scan: Command) -> None:
    scan.file("eicar.com", eicar())
    code, told = scan.answered()
    assert code == 5
    [found] = told["examined"]
    assert found["verdict"] == "infected"
    assert {one["engine"]: one["words"] for one in found["answers"]} == {
        "clamav": "Korora.Test.EICAR.UNOFFICIAL",
        "yara": "rule korora_test_eicar (korora.yar)",
    }


def test_a_file_that_is_gone_or_may_not_be_read_is_6(scan: Command) -> None:
    os.mkfifo(scan.folder / "pipe")
    code, told = scan.answered(scan.folder / "gone", scan.folder / "pipe")
    assert code == 6
    assert [one["verdict"] for one in told["examined"]] == ["unknown", "unknown"]
    assert "No such file" in told["examined"][0]["answers"][0]["words"]
    assert "it is no file" in told["examined"][1]["answers"][0]["words"]


def test_infected_weighs_more_than_unknown(scan: Command) -> None:
    scan.file("eicar.com", eicar())
    assert scan.run(scan.files, scan.folder / "gone")[0] == 5


@pytest.mark.parametrize(
    "settings",
    [
        "[clamav]\nsocket = 'nobody'",
        "[clamav]\nsignatures = 'none'",
        "[yara]\nrules = 'none'",
        "[reputation]",
    ],
)
def test_an_engine_that_cannot_answer_makes_nothing_clean(scan: Command, settings: str) -> None:
    scan.file("a.txt")
    code, told = scan.answered(scan.files, "--config", scan.settings(settings))
    assert (code, told["verdicts"]["unknown"], told["verdicts"]["clean"]) == (6, 1, 0)


def test_rules_that_do_not_compile_are_6_and_told(scan: Command) -> None:
    scan.file("a.txt")
    (scan.folder / "rules").mkdir()
    (scan.folder / "rules" / "a.yar").write_text("rule a {")
    code, text = scan.run(scan.files, "--config", scan.settings("[yara]\nrules = 'rules'"))
    assert code == 6
    assert "✗ yara: unknown to every file: rules do not compile" in text


def test_the_rule_decides_what_one_engine_is_worth(scan: Command) -> None:
    scan.file("eicar.com", eicar())
    (scan.folder / "rules").mkdir()
    (scan.folder / "rules" / "a.yar").write_text("rule a { condition: false }")
    base = "[yara]\nrules = 'rules'\n"
    assert scan.run(scan.files, "--config", scan.settings(base))[0] == 5
    assert scan.run(scan.files, "--config", scan.settings(base), "--rule", "majority")[0] == 6
    heavy = base + "[weights]\nclamav = 2\n"
    assert scan.run(scan.files, "--config", scan.settings(heavy), "--rule", "weighted")[0] == 5


def test_lists_and_indicators_are_a_reputation(scan: Command) -> None:
    scan.file("a.txt", b"listed")
    scan.file("b.txt", b"an indicator")
    scan.file("c.txt", b"known to be good")
    (scan.folder / "bad.txt").write_text(hashlib.md5(b"listed", usedforsecurity=False).hexdigest())
    (scan.folder / "good.txt").write_text(hashlib.sha256(b"known to be good").hexdigest())
    store = SqliteIndicators(scan.folder / "indicators.db")
    value = hashlib.sha1(b"an indicator", usedforsecurity=False).hexdigest()
    store.write([[Entry(Kind.SHA1, value, Provenance("a feed"))]])
    store.close()
    lists = "known_bad = ['bad.txt']\nknown_good = ['good.txt']\nindicators = 'indicators.db'"
    config = scan.settings(f"[clamav]\nused = false\n[yara]\nused = false\n[reputation]\n{lists}")
    code, told = scan.answered(scan.files, "--config", config)
    assert (code, told["verdicts"]) == (5, {"clean": 1, "infected": 2, "suspicious": 0, "unknown": 0})
    assert told["examined"][1]["answers"][0]["words"] == f"sha1 {value} is an indicator of a feed"


def test_a_key_that_others_can_read_is_refused(scan: Command) -> None:
    key = scan.folder / "key"
    key.write_text("secret")
    key.chmod(0o644)
    config = scan.settings("[reputation.virustotal]\nkey_file = 'key'")
    code, text = scan.run(scan.files, "--config", config)
    assert (code, "others can read it" in text, "secret" in text) == (2, True, False)


def test_a_clamd_that_runs_is_used(scan: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeClamd(tmp_path / "clamd")
    monkeypatch.setattr(scanning, "SYSTEM_SOCKET", fake.place)
    scan.file("eicar.com", eicar())
    code, text = scan.run()
    fake.close()
    assert code == 5
    assert "daily 27750" in text
    assert "newest of 2025-09-02" in text
    assert "clamav: infected: Eicar-Signature" in text
    assert "days old" in text


def test_names_cannot_write_on_the_terminal(scan: Command) -> None:
    scan.file(b"bad\xff\x1b[31m\nname", eicar())
    code, text = scan.run()
    assert code == 5
    assert "\x1b" not in text
    assert "\\nname: infected" in text
    assert "udcff" in scan.run(scan.files, "--json")[1]


def test_a_line_of_4_gib_is_6_in_bounded_time(scan: Command) -> None:
    with scan.file("line").open("r+b") as file:
        file.truncate(4 << 30)
    config = scan.settings("[clamav]\nstream_mib = 4\n[yara]\nread_mib = 4")
    code, told = scan.answered(scan.files, "--config", config)
    assert code == 6
    assert "size limit exceeded" in told["examined"][0]["answers"][0]["words"]
    assert told["bytes"] < 64 << 20


def test_links_are_passed_over_and_counted(scan: Command) -> None:
    scan.file("a.txt")
    (scan.files / "link").symlink_to("/etc/passwd")
    code, told = scan.answered()
    assert (code, told["files"], told["passed_over"]) == (0, 1, 1)


def test_a_folder_without_any_file_is_6_and_told(scan: Command) -> None:
    code, told = scan.answered()
    assert (code, told["files"], told["unread"][0]["problem"]) == (6, 0, "there is no file in it")
    (scan.files / "link").symlink_to("/etc/passwd")
    assert scan.answered()[0] == 6


def test_what_was_started_has_ended(scan: Command) -> None:
    scan.file("a.txt")
    before = children()
    scan.run()
    assert children() == before


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())
