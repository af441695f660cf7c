"""`korora indicators`: imports are all or nothing, matches have sources, nothing compared is not clean."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from korora.cli.main import answer


class Command:
    """`korora indicators`, as a script calls it, with a store of its own."""

    def __init__(self, printed: pytest.CaptureFixture[str], folder: Path) -> None:
        self._printed = printed
        self.folder = folder
        self.store = folder / "new" / "indicators.db"

    def run(self, *words: str | Path) -> tuple[int, str]:
        code = answer(["indicators", *map(str, words), "--store", str(self.store)])
        told = self._printed.readouterr()
        return code, told.out + told.err

    def answered(self, *words: str | Path) -> tuple[int, Any]:
        code, text = self.run(*words, "--json")
        return code, json.loads(text.splitlines()[0])

    def file(self, name: str, content: str | bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def imported(self, text: str = "evil.example\n", *more: str) -> None:
        assert self.run("import", self.file("list.txt", text), *more)[0] == 0


@pytest.fixture
def indicators(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    return Command(capsys, tmp_path)


def test_an_import_says_what_was_new_merged_and_refused(indicators: Command) -> None:
    first = indicators.file("a.txt", "evil.example\nco.uk\n10.0.0.1\n")
    second = indicators.file("b.txt", "EVIL[.]example\n")
    code, told = indicators.answered("import", first, second)
    assert (code, told["imported"]) == (0, True)
    assert [(one["entries"], one["new"], one["merged"]) for one in told["files"]] == [(2, 2, 0), (1, 0, 1)]
    assert told["files"][0]["counted"] == {"refused": 1, "warning": 1}
    assert told["files"][0]["digest"] == "sha256:" + hashlib.sha256(first.read_bytes()).hexdigest()
    assert stat.S_IMODE(indicators.store.stat().st_mode) == 0o600


def test_openioc_is_recognised_and_what_is_kept_is_counted(indicators: Command) -> None:
    def term(search: str, value: str) -> str:
        inside = f'<Context search="{search}"/><Content>{value}</Content>'
        return f'<IndicatorItem condition="is">{inside}</IndicatorItem>'

    def group(operator: str, *inside: str) -> str:
        return f'<Indicator operator="{operator}">{"".join(inside)}</Indicator>'

    both = group("AND", term("FileItem/Md5sum", "0" * 32), term("FileItem/FileName", "a"))
    text = f"<OpenIOC><criteria>{group('OR', term('Network/DNS', 'evil.example'), both)}</criteria></OpenIOC>"
    code, told = indicators.answered("import", indicators.file("a.ioc", text))
    assert (code, told["files"][0]["format"], told["files"][0]["counted"]) == (0, "openioc", {"kept": 1})
    listed = indicators.answered("list")[1]["indicators"]
    assert {one["kind"] for one in listed} == {"domain", "kept"}


def test_a_broken_file_imports_nothing_of_any_file(indicators: Command) -> None:
    good, broken = (
        indicators.file("a.txt", "evil.example\n"),
        indicators.file("b.txt", "bad.example\n\0nonsense ?\n"),
    )
    code, told = indicators.answered("import", good, broken, "--format", "list")
    assert (code, told["imported"]) == (2, False)
    assert told["files"][1]["findings"][0]["where"] == "line 2"
    assert indicators.answered("list")[1]["indicators"] == []
    assert indicators.run("import", good, broken, "--format", "list", "--keep-going")[0] == 0
    assert [one["value"] for one in indicators.answered("list")[1]["indicators"]] == [
        "bad.example",
        "evil.example",
    ]


@pytest.mark.parametrize(
    "content", [b"PK\x03\x04", b"{", b'{"type":"bundle","objects":', b"\xff\xfea\0", b"<a/>"]
)
def test_a_file_that_is_none_of_the_formats_is_refused(indicators: Command, content: bytes) -> None:
    code, told = indicators.answered("import", indicators.file("x", content))
    assert (code, told["imported"]) == (2, False)
    assert told["files"][0]["counted"] == {"broken": 1}


def test_a_pipe_or_a_folder_is_not_waited_for(indicators: Command) -> None:
    os.mkfifo(indicators.folder / "pipe")
    for name in ("pipe", ".", "missing"):
        code, told = indicators.answered("import", indicators.folder / name)
        assert (code, told["error"]["kind"]) == (2, "unreadable-file")


def test_what_sources_say_differently_is_shown(indicators: Command) -> None:
    indicators.imported()
    assert indicators.run("import", indicators.file("good.txt", "evil.example\n"), "--benign")[0] == 0
    code, text = indicators.run("list", "--differing")
    assert code == 0
    assert "malicious says list.txt, benign says good.txt" in text
    code, told = indicators.answered("match", indicators.file("x", "evil.example"))
    assert told["examined"][0]["matches"][0]["indicator"]["disagreements"]
    assert code == 3


def test_the_order_of_imports_changes_nothing(indicators: Command) -> None:
    files = [indicators.file(name, "evil.example\nhttp://a.example/x\n9.9.9.9\n") for name in ("a", "b", "c")]
    told: list[list[tuple[str, list[str]]]] = []
    for order in (files, files[::-1]):
        indicators.store = indicators.folder / f"{len(told)}.db"
        assert [indicators.run("import", file)[0] for file in order] == [0, 0, 0]
        listed = indicators.answered("list")[1]["indicators"]
        told.append([(one["value"], [said["source"] for said in one["sources"]]) for one in listed])
    assert told[0] == told[1]


def test_a_match_has_its_place_its_force_and_its_sources(indicators: Command) -> None:
    digest = hashlib.sha256(b"bad").hexdigest()
    indicators.imported(f"evil.example\nhttp://mal.example/x\n{digest}\n")
    tree = indicators.folder / "tree"
    for name, content in {
        "tree/log": b"GET https://a.evil.example/ mal.example",
        "tree/bad": b"bad",
        "tree/clean": b"notevil.example",
        "tree/wide": "see evil.example".encode("utf-16-le"),
        "tree/note": digest.encode(),
    }.items():
        indicators.file(name, content)
    code, told = indicators.answered("match", tree)
    assert (code, told["files"], told["matched"], told["unknown"]) == (3, 5, 4, 0)
    found = {
        Path(one["path"]).name: [(hit["force"], hit["offset"], hit["encoding"]) for hit in one["matches"]]
        for one in told["examined"]
    }
    assert found == {
        "log": [("full", 12, "ascii"), ("host", 28, "ascii")],
        "bad": [("content", 0, "ascii")],
        "wide": [("full", 8, "utf-16")],
        "note": [("mention", 0, "ascii")],
    }
    code, text = indicators.run("match", tree)
    assert "list.txt" in text
    assert "hint: mal.example" in text


def test_a_hint_alone_is_no_match(indicators: Command) -> None:
    indicators.imported("http://mal.example/x\n")
    code, told = indicators.answered("match", indicators.file("x", "http://mal.example/other"))
    assert (code, told["matched"], len(told["examined"])) == (0, 0, 1)


def test_memory_is_looked_through_and_not_hashed(indicators: Command) -> None:
    memory = indicators.file("memory", bytes(5000) + b"evil.example" + bytes(5000))
    indicators.imported("evil.example\n" + hashlib.sha256(memory.read_bytes()).hexdigest())
    code, told = indicators.answered("match", "--memory", memory)
    assert [(hit["force"], hit["offset"]) for hit in told["examined"][0]["matches"]] == [("full", 5000)]
    assert code == 3


def holed(path: Path) -> Path:
    """As long as a file can be here, with text in the middle."""
    for bits in range(63, 40, -1):
        with path.open("wb") as file, suppress(OSError):
            file.truncate((1 << bits) - 1)
            file.seek(1 << bits - 1)
            file.write(b" evil.example ")
            return path
    raise AssertionError("no file here can have holes")


def test_a_file_of_exabytes_is_looked_through_at_once_and_unknown_as_a_whole(indicators: Command) -> None:
    indicators.imported("evil.example\n" + hashlib.sha256(b"other").hexdigest())
    file = holed(indicators.folder / "holed")
    code, told = indicators.answered("match", file)
    (examined,) = told["examined"]
    assert [hit["value"] for hit in examined["matches"]] == ["evil.example"]
    assert "holes are longer" in examined["unknown"]
    assert code == 3
    assert examined["matches"][0]["offset"] == (file.stat().st_size + 1) // 2 + 1
    code, told = indicators.answered("match", "--memory", file)
    assert (code, told["unknown"]) == (3, 0)


def test_a_file_of_holes_alone_is_never_clean_when_its_digest_was_asked_for(indicators: Command) -> None:
    indicators.imported(hashlib.sha256(b"other").hexdigest())
    (indicators.folder / "holed").open("wb").truncate(1 << 40)
    code, told = indicators.answered("match", indicators.folder / "holed")
    assert (code, told["unknown"]) == (6, 1)


def test_holes_count_in_the_digest(indicators: Command) -> None:
    content = b"a" * 5000 + bytes(3 << 20) + b"z" * 5001
    file = indicators.folder / "holed"
    with file.open("wb") as written:
        written.write(content[:5000])
        written.seek(5000 + (3 << 20))
        written.write(content[-5001:])
    indicators.imported(hashlib.sha256(content).hexdigest())
    code, told = indicators.answered("match", file)
    assert (code, [hit["force"] for hit in told["examined"][0]["matches"]]) == (3, ["content"])


def test_what_cannot_be_read_is_unknown_and_never_clean(indicators: Command) -> None:
    indicators.imported()
    code, told = indicators.answered("match", indicators.folder / "missing", indicators.file("x", "fine"))
    assert (code, told["unknown"], told["examined"][0]["unknown"]) == (6, 1, "No such file or directory")


def test_a_file_whose_reading_fails_midway_is_unknown(indicators: Command) -> None:
    indicators.imported()
    code, text = indicators.run("match", "/proc/self/mem")  # nothing is mapped at its beginning
    assert code == 6
    assert text.startswith("? /proc/self/mem: unknown: Input/output error")


def test_without_indicators_nothing_was_compared(indicators: Command) -> None:
    path = indicators.file("x", "evil.example")
    code, text = indicators.run("match", path)
    assert code == 2
    assert not indicators.store.exists()
    indicators.imported("evil.example\n", "--benign")
    code, text = indicators.run("match", path)
    assert code == 2
    assert "nothing was compared" in text


def test_an_expired_indicator_is_not_looked_for(indicators: Command) -> None:
    row = '"2020-01-01 00:00:00","9.9.9.9","443","online","2020-01-02","QakBot"\n'
    head = '"first_seen_utc","dst_ip","dst_port","c2_status","last_online","malware"\n'
    assert indicators.run("import", indicators.file("f.csv", head + row), "--valid-days", "30")[0] == 0
    assert indicators.answered("list")[1]["indicators"][0]["standing"] == "expired"
    assert indicators.run("match", indicators.file("x", "9.9.9.9"))[0] == 2


def test_hostile_text_cannot_move_the_cursor(indicators: Command) -> None:
    head = '"first_seen_utc","dst_ip","dst_port","c2_status","last_online","malware"\n'
    assert (
        indicators.run("import", indicators.file("f.csv", head + '"","9.9.9.9","1","","","\x1b[31mred\n"\n'))[
            0
        ]
        == 0
    )
    path = indicators.folder / os.fsdecode(b"tree\x1b[2J\xff")
    path.write_bytes(b"9.9.9.9")
    for words in (["list"], ["match", str(path)]):
        _, text = indicators.run(*words)
        assert "\x1b" not in text
    assert indicators.answered("match", path)[0] == 3


def test_links_and_what_has_no_content_are_passed_over(indicators: Command) -> None:
    indicators.imported()
    indicators.file("tree/x", "fine")
    (indicators.folder / "tree" / "link").symlink_to(indicators.folder / "tree")
    os.mkfifo(indicators.folder / "tree" / "pipe")
    code, told = indicators.answered("match", indicators.folder / "tree")
    assert (code, told["files"], told["passed_over"]) == (0, 1, 2)


def test_the_store_itself_is_passed_over(indicators: Command) -> None:
    indicators.imported()
    fine = indicators.file("x", "fine")
    code, told = indicators.answered("match", indicators.store, fine)
    assert (code, told["files"], told["passed_over"]) == (0, 1, 1)


@pytest.mark.parametrize("piped", [False, True])
def test_a_folder_without_any_file_is_unknown(indicators: Command, piped: bool) -> None:
    indicators.imported()
    tree = indicators.folder / "tree"
    tree.mkdir()
    if piped:
        os.mkfifo(tree / "pipe")
    code, told = indicators.answered("match", tree)
    assert (code, told["files"], told["unknown"], told["passed_over"]) == (6, 0, 1, int(piped))
    assert "there is no file in it" in indicators.run("match", tree)[1]


def test_a_file_in_which_nothing_is_gives_a_warning(indicators: Command) -> None:
    for name, content in (("a.txt", ""), ("b.txt", "# END\n"), ("c.json", '{"type": "bundle"}')):
        code, told = indicators.answered("import", indicators.file(name, content))
        assert (code, told["files"][0]["counted"]) == (0, {"warning": 1})


@pytest.mark.parametrize(
    "words", [("import", "x", "--format", "csv"), ("list", "--kind", "email"), ("match",)]
)
def test_a_wrong_command_line_is_a_usage_error(indicators: Command, words: tuple[str, ...]) -> None:
    indicators.imported()
    assert indicators.answered(*words)[0] == 2


def test_a_file_that_is_no_store_is_an_error(indicators: Command) -> None:
    indicators.store = indicators.file("other.db", b"this is no database at all, but long enough" * 50)
    assert indicators.answered("list")[1]["error"]["kind"] == "indicator-store-damaged"
