"""The documents lead nowhere that is not there, speak of the project alone, and keep up with the code."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from korora.model.ownership import Status
from korora.protocol import messages

ROOT = Path(__file__).parents[3]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
REQUIREMENTS = [
    *(
        f"{letter}{number}"
        for letter, last in (("A", 7), ("E", 5), ("S", 8))
        for number in range(1, last + 1)
    ),
    *(
        f"{letter}{number}"
        for letter, last in (("P", 5), ("W", 8), ("H", 3))
        for number in range(1, last + 1)
    ),
]
FORBIDDEN = {
    "a place outside the project": re.compile(r"/work\b|\.\./shared|(?<![\w/])/root/"),
    "an issue's number": re.compile(r"(?<![\w&/])#\d+\b|\bissue \d+", re.IGNORECASE),
    "a package registry": re.compile(
        r"pypi\.org|pythonhosted|npmjs|deb\.debian\.org|proxy\.golang|crates\.io"
    ),
    "a word that promises too much": re.compile(
        r"\b(unbreakable|military.grade|100 ?% secure|bullet.?proof)\b"
    ),
}


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def links(page: Path) -> Iterator[str]:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" not in target and not target.startswith("#"):
            yield target.split("#")[0]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    assert [link for link in links(page) if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_page_speaks_of_the_project_alone(page: Path) -> None:
    text = page.read_text()
    found = {what: match[0] for what, pattern in FORBIDDEN.items() if (match := pattern.search(text))}
    assert found == {}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_path_that_is_named_exists(page: Path) -> None:
    text = page.read_text()
    named = re.findall(r"`((?:src/korora|tests|bench|script|docs)/[\w./-]*)(?:::\w+)?`", text)
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_requirement_has_its_line_in_the_paper() -> None:
    rows = re.findall(r"^\| ([A-Z]\d) \|", (ROOT / "docs/PAPER.md").read_text(), re.MULTILINE)
    assert rows == REQUIREMENTS


def test_what_is_called_done_names_code_and_test() -> None:
    for line in (ROOT / "docs/PAPER.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 5 and cells[-1].startswith("done"):
            assert "`src/korora/" in cells[2], line
            assert "`tests/" in cells[3], line


def test_a_test_that_the_threat_model_names_is_there() -> None:
    text = (ROOT / "docs/THREAT_MODEL.md").read_text()
    last, missing = Path(), []
    for file, test in re.findall(r"`((?:[\w/]+/)?test_\w+\.py)?(?:::(test_\w+))?`", text):
        if file:
            found = [
                path for path in (ROOT / "tests").rglob(Path(file).name) if str(path).endswith(f"/{file}")
            ]
            assert len(found) == 1, file
            last = found[0]
        if test and f"def {test}(" not in last.read_text():
            missing.append(f"{file or last.name}::{test}")
    assert missing == []


def test_every_message_of_the_protocol_is_specified_with_its_fields() -> None:
    text = (ROOT / "docs/PROTOCOL.md").read_text()
    rows = {
        row[0]: row[1]
        for row in re.findall(r"^\| `([a-z-]+)` \| (?:both|source|destination) \|(.*)\|$", text, re.MULTILINE)
    }
    kinds = {kind.__struct_config__.tag: kind for kind in messages.Message.__subclasses__()}
    assert set(rows) == set(kinds)
    for tag, kind in kinds.items():
        assert [field for field in kind.__struct_fields__ if f"`{field}`" not in rows[str(tag)]] == [], tag


def test_the_drawn_ownership_is_the_one_in_force() -> None:
    spec = importlib.util.spec_from_file_location("ownership_doc", ROOT / "script/ownership_doc.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = (ROOT / "docs/ownership.md").read_text()
    assert page == module.drawn()
    assert all(status.value in page for status in Status)


def test_decisions_are_numbered_without_gaps() -> None:
    numbers = [int(page.name[:4]) for page in sorted((ROOT / "docs/adr").glob("*.md"))]
    assert numbers == list(range(1, len(numbers) + 1))
    for page in (ROOT / "docs/adr").glob("*.md"):
        assert page.read_text().startswith(f"# {int(page.name[:4])}. ")
        assert all(f"## {part}" in page.read_text() for part in ("Context", "Decision", "Alternatives"))
