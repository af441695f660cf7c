"""The report as one HTML page that needs nothing else: no script, font or picture, nothing from elsewhere.

Promise: whatever a receipt, a host or a file name says is shown as text and is never markup. What a colour
says is also said in words; headings and tables are marked as such; it prints.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Final

from korora.cli.evaluation.gathering import Gathered
from korora.cli.evaluation.telling import SIGNS, found_of, sign_of, summary
from korora.cli.render import clean
from korora.policy.evaluation.evidence import Link
from korora.policy.evaluation.scoring import Report, Scored, Shown

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_MEANING: Final = (
    "The score says how much of the ideal was shown, not how likely harm is."
    " What was not looked at counts as not shown."
)
_STYLE: Final = """
:root { color-scheme: light; }
body { font: 1rem/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 62rem;
       margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2rem; } h3 { font-size: 1.05rem; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1rem; }
caption { text-align: left; color: #444; }
th, td { border: 1px solid #888; padding: .3rem .5rem; text-align: left; vertical-align: top;
         overflow-wrap: anywhere; }
thead th { background: #eee; }
code { font-size: .85rem; }
ul.where { margin: 0; padding-left: 1rem; }
.total { font-size: 1.25rem; font-weight: bold; }
.met { color: #0b5d1e; } .partly { color: #6b4200; } .not-met { color: #8f1414; }
.not-looked-at { color: #444; }
.verdict { font-weight: bold; white-space: nowrap; }
.broken { border: 2px solid #8f1414; padding: 0 1rem; }
a { color: #0b3d91; }
a:focus { outline: 3px solid #0b3d91; }
@media print { body { max-width: none; margin: 0; font-size: 10pt; } section { break-inside: avoid; }
               a { color: inherit; text-decoration: none; } }
"""


def page(report: Report, gathered: Gathered, made_at: int, version: str) -> str:
    """The whole page."""
    title = f"Evaluation of {_text(report.target.name)}"
    return "\n".join(
        (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>",
            f"<h1>{title}</h1>",
            *_opening(report, made_at),
            *_broken(report),
            *_overview(report),
            *_advice(report),
            "<h2>Criteria and their evidence</h2>",
            *(line for one in report.scored for line in _criterion(one)),
            *_process(gathered),
            f"</main>\n<footer><p>Korora {_text(version)}</p></footer>\n</body>\n</html>\n",
        )
    )


def _opening(report: Report, made_at: int) -> Iterator[str]:
    made = f"{datetime.fromtimestamp(made_at, UTC):%Y-%m-%d %H:%M} UTC"
    yield f'<p class="total">{_text(summary(report))}</p>'
    yield f"<p>Made at {made}. Measured against: {_text(report.yardstick.ideal)}</p>"
    if report.target.subjects:
        yield f"<p>Hosts: {_text(', '.join(report.target.subjects))}</p>"
    yield f"<p>{_MEANING}</p>"


def _broken(report: Report) -> Iterator[str]:
    if not report.broken:
        return
    yield '<section class="broken">\n<h2>What does not hold</h2>\n<ul>'
    for finding in report.broken:
        subject = f"{finding.subject}: " if finding.subject else ""
        yield f"<li><strong>{_text(subject + finding.fact)}</strong>: {_text(finding.found)}</li>"
    yield "</ul>\n</section>"


def _overview(report: Report) -> Iterator[str]:
    yield "<h2>Result</h2>"
    rows = (
        (
            f'<a href="#{one.criterion.id}">{_text(one.criterion.asked)}</a>',
            _text(one.criterion.requirement),
            _verdict(one),
            f"{one.percent} %",
            str(one.criterion.weight),
        )
        for one in report.scored
    )
    header = ("Criterion", "Requirement", "Verdict", "Score", "Weight")
    yield from _table("Every criterion, with its score and its weight in the total", header, rows)


def _advice(report: Report) -> Iterator[str]:
    yield "<h2>What would raise the score</h2>"
    if not report.advice:
        yield "<p>Nothing: it is as in the ideal.</p>"
        return
    rows = (
        (
            f'<a href="#{advice.criterion.id}">{_text(advice.criterion.asked)}</a>',
            f"{advice.points:.1f}",
            _list(map(_text, advice.remedies)),
        )
        for advice in report.advice
    )
    yield from _table("The most valuable first", ("Criterion", "Points at most", "What to do"), rows)


def _criterion(one: Scored) -> Iterator[str]:
    asked = one.criterion
    yield f'<section id="{asked.id}">\n<h3>{_text(f"{asked.requirement}: {asked.asked}")}</h3>'
    yield f"<p>{_verdict(one)}, {one.percent} %. In the ideal {_text(asked.ideal)}.</p>"
    header = ("Needed", "Of", "Found", "Where")
    yield from _table(f"Evidence for {_text(asked.id)}", header, map(_row, one.shown))
    yield "</section>"


def _row(shown: Shown) -> tuple[str, ...]:
    links = shown.finding.links if shown.finding is not None else ()
    return (
        _text(shown.need.text),
        _text(shown.subject or "the target"),
        f"{sign_of(shown)} {_text(found_of(shown))}",
        _list(map(_link, links)) if links else "nowhere",
    )


def _process(gathered: Gathered) -> Iterator[str]:
    yield "<h2>How it was made</h2>\n<ol>"
    yield from (f"<li>{_text(step)}</li>" for step in gathered.process)
    yield "</ol>"


def _verdict(one: Scored) -> str:
    kind = one.verdict.replace(" ", "-")
    return f'<span class="verdict {kind}">{SIGNS[one.verdict]} {one.verdict}</span>'


def _link(link: Link) -> str:
    shown = f"<code>{_text(link.where)}</code>"
    if link.file:
        shown = f'<a href="{_text(Path(link.file).as_uri())}">{shown}</a>'
    return f"{_text(link.place)}: {shown}"


def _table(caption: str, header: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """Cells are markup; whoever makes them has escaped them. The first of a row is its header."""
    yield f"<table>\n<caption>{caption}</caption>\n<thead><tr>"
    yield "".join(f'<th scope="col">{name}</th>' for name in header)
    yield "</tr></thead>\n<tbody>"
    for first, *rest in rows:
        cells = "".join(f"<td>{cell}</td>" for cell in rest)
        yield f'<tr><th scope="row">{first}</th>{cells}</tr>'
    yield "</tbody>\n</table>"


def _list(items: Iterable[str]) -> str:
    return '<ul class="where">' + "".join(f"<li>{item}</li>" for item in items) + "</ul>"


def _text(text: str) -> str:
    return escape(clean(text), quote=True)
