"""The report's page: text from elsewhere stays text, nothing is fetched or run, and everybody can read it."""

from __future__ import annotations

import re
from html import escape
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import evaluated_site, receipts
from korora.cli.evaluation.gathering import Gathered
from korora.cli.evaluation.page import page
from korora.cli.main import answer
from korora.cli.render import clean
from korora.model.evidence import WipeCertificate
from korora.policy.evaluation.evidence import Finding, Kind, Link, Place, Standing, Target, filed
from korora.policy.evaluation.migration import MIGRATION
from korora.policy.evaluation.scoring import evaluate
from korora.protocol.receipt.document import GuestBoot

ATTACKS = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</style><script>alert(1)</script>",
    "</title><svg onload=alert(1)>",
    "&lt;script&gt;&#60;script&#62;",
    "javascript:alert(1)",
    "\x1b[2J\x00\u202egnp.exe",
)
TAGS = {
    "html", "head", "meta", "title", "style", "body", "main", "footer", "section", "h1", "h2", "h3", "p",
    "ol", "ul", "li", "a", "code", "span", "strong", "table", "caption", "thead", "tbody", "tr", "th", "td",
}  # fmt: skip
ATTRIBUTES = {"lang", "charset", "http-equiv", "content", "name", "class", "id", "scope", "href"}
EMPTY = {"meta"}


class Read(HTMLParser):
    """What a browser makes of the page."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def is_harmless(read: Read) -> None:
    assert {tag for tag, _ in read.tags} <= TAGS
    for tag, attributes in read.tags:
        assert set(attributes) <= ATTRIBUTES, (tag, attributes)
    for link in read.named("a"):
        assert re.match(r"#[a-z-]+$|file:///", link["href"] or ""), link
    (policy,) = [meta["content"] for meta in read.named("meta") if "http-equiv" in meta]
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def page_of(text: str) -> str:
    """A report in which everything that may come from elsewhere is this text."""
    link = Link(Place.RECEIPT, text, f"/{text}".replace("\0", ""))
    facts = {need.fact for criterion in MIGRATION.criteria for need in criterion.needs} | {"bundle"}
    findings = [Finding(fact, Standing.GOOD, text, (link,), remedy=text) for fact in facts - {"wipe", "time"}]
    findings += [Finding("wipe", Standing.LACKING, text, remedy=text), Finding("time", Standing.BROKEN, text)]
    target = Target(Kind.MIGRATION, text, (text,))
    evidence = filed(findings)
    return page(evaluate(target, MIGRATION, evidence), Gathered(target, evidence, (text,)), 0, text)


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_comes_from_elsewhere_is_never_markup(attack: str) -> None:
    text = page_of(attack)
    is_harmless(Read(text))
    assert "<script" not in text
    assert escape(clean(attack), quote=True) in text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)


@given(st.text())
def test_no_text_at_all_becomes_markup(text: str) -> None:
    is_harmless(Read(page_of(text)))


def test_the_text_is_there_to_be_read() -> None:
    assert ATTACKS[0] in Read(page_of(ATTACKS[0])).text


def test_a_receipt_whose_hosts_wrote_markup_is_shown_as_they_wrote_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated_site.prepared(tmp_path, monkeypatch)
    told = evaluated_site.near_ideal(
        guest_boot=GuestBoot(verdict=ATTACKS[0], findings=(ATTACKS[1],)),
        wipe=WipeCertificate((), (ATTACKS[3],)),
        prechecks=(ATTACKS[2],),
    )
    receipt, written = tmp_path / "<b>&receipt.json", tmp_path / "page.html"
    receipt.write_bytes(receipts.bundle(told))
    assert answer(["evaluate", "--receipt", str(receipt), "--html", str(written)]) == 0
    read = Read(written.read_text())
    is_harmless(read)
    for shown in (ATTACKS[0], ATTACKS[1], ATTACKS[3], "<b>&receipt.json"):
        assert shown in read.text


def test_the_page_can_be_read_by_ear_and_by_hand() -> None:
    read = Read(page_of("plain"))
    assert read.named("html") == [{"lang": "en"}]
    assert len(read.named("h1")) == len(read.named("main")) == len(read.named("title")) == 1
    headings = [int(tag[1]) for tag, _ in read.tags if re.fullmatch(r"h\d", tag)]
    assert all(later <= earlier + 1 for earlier, later in pairwise(headings))
    assert len(read.named("caption")) == len(read.named("table"))
    assert {cell["scope"] for cell in read.named("th")} == {"col", "row"}
    targets = {section["id"] for section in read.named("section") if "id" in section}
    inside = {(link["href"] or "")[1:] for link in read.named("a") if (link["href"] or "").startswith("#")}
    assert inside == targets == {criterion.id for criterion in MIGRATION.criteria}


def test_what_a_colour_says_is_said_in_words_too() -> None:
    text = page_of("plain")
    verdicts = re.findall(r'<span class="verdict ([a-z-]+)">(.) ([a-z ]+)</span>', text)
    assert {(kind, words) for kind, _, words in verdicts} >= {("met", "met"), ("not-met", "not met")}
    assert all(kind == words.replace(" ", "-") for kind, _, words in verdicts)


def test_every_colour_of_text_stands_out_from_the_white_behind_it() -> None:
    colours = re.findall(r"[{;\s]color: (#[0-9a-f]{6})", page_of("plain"))
    assert len(colours) > 4
    for colour in colours:
        assert contrast(colour) >= 4.5, colour  # WCAG 2.1, 1.4.3


def contrast(colour: str) -> float:
    """To white, as WCAG 2.1 reckons it."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 1.05 / (0.2126 * red + 0.7152 * green + 0.0722 * blue + 0.05)


def test_it_prints_without_what_only_a_screen_has() -> None:
    assert "@media print" in page_of("plain")
