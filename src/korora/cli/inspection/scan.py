"""`korora scan`: malware in files, by several engines, each in its own words."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from korora.cli.inspection.files import Paths
from korora.cli.inspection.image import Allowed, Declared
from korora.cli.options import AsJson
from korora.cli.render import mark, say, say_json, size
from korora.errors import ExitCode, UsageError
from korora.model.scan import Answer, EngineFacts, Rule

if TYPE_CHECKING:
    from korora.model.files import Problem
    from korora.model.scan_configuration import ScanSettings
    from korora.wiring.files_inside import FilesInside
    from korora.wiring.scanning import Engines, Scanned

KEPT_MAX = 10_000
_SIGNS = {Answer.CLEAN: "✓", Answer.INFECTED: "✗", Answer.SUSPICIOUS: "~", Answer.UNKNOWN: "?"}
_WORDS_CHARS = 400


def scan(
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="PATH…", help="Files, and folders with all below.")
    ] = None,
    image: Annotated[
        Path | None, typer.Option("--image", metavar="IMAGE", help="The files inside of a disk image.")
    ] = None,
    declared: Declared = None,
    allow: Allowed = None,
    patterns: Paths = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="scan.toml: engines and limits; default: ClamAV and YARA."),
    ] = None,
    rule: Annotated[
        Rule | None, typer.Option(help="When several engines say infected; default: any, or the FILE's.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Look for malware in every file, with every engine: of this machine, or inside of a disk image, which is
    neither mounted nor copied.

    Exit code 0 when every engine called every file clean, 5 when a file is infected, 6 when none is and one
    is suspicious or unknown.
    """
    from korora.model.files import Problem
    from korora.wiring.scanning import Passed, files, opened

    if bool(paths) == (image is not None):
        raise UsageError("name files and folders, or one --image", kind="usage", remedy="give one of the two")
    settings, folder = _settings(config)
    summary, passed = _Summary(), Passed()
    with opened(settings, folder, rule) as engines:
        if not as_json:
            _show_engines(engines)
        inside = _inside(image, declared, allow, patterns, engines) if image is not None else None
        for scanned in inside.look() if inside else engines.scan(files(paths or [], passed)):
            if summary.add(scanned) and not as_json:
                _show(scanned)
    if inside is not None:
        summary.unread = inside.unread()
    elif not summary.files:
        summary.unread = [Problem(", ".join(map(str, paths or [])), "there is no file in it")]
    weak = _weak(engines)
    if as_json:
        say_json(_object(engines, summary, passed.count, weak))
    else:
        _show_summary(summary, passed.count, weak)
    if summary.verdicts[Answer.INFECTED]:
        raise typer.Exit(ExitCode.INTEGRITY)
    if summary.files != summary.verdicts[Answer.CLEAN] or summary.unread:
        raise typer.Exit(ExitCode.TOOL)


def _inside(
    image: Path, declared: Declared, allow: Allowed, patterns: Paths, engines: Engines
) -> FilesInside:
    from korora.wiring.files_inside import FilesInside
    from korora.wiring.image_files import only_disk
    from korora.wiring.images import looked_at

    disk = only_disk(looked_at(image, declared, allow or ()))
    return FilesInside(disk, engines=engines, paths=patterns or (), contents=(), digests=False)


def _settings(config: Path | None) -> tuple[ScanSettings, Path]:
    from korora.cli.site import read_text
    from korora.model.scan_configuration import ScanSettings, parse_scan_settings

    if config is None:
        return ScanSettings(), Path.cwd()
    text = read_text(config, "the configuration of engines")
    return parse_scan_settings(text, str(config)), config.absolute().parent


@dataclass(slots=True)
class _Summary:
    files: int = 0
    size: int = 0
    verdicts: Counter[Answer] = field(default_factory=Counter)
    kept: list[Scanned] = field(default_factory=list)
    unread: list[Problem] = field(default_factory=list)  # of an image, beside its files

    def add(self, scanned: Scanned) -> bool:
        """Whether it is to be told: what is not clean is."""
        self.files += 1
        self.size += scanned.size
        self.verdicts[scanned.verdict.answer] += 1
        told = scanned.verdict.answer is not Answer.CLEAN
        if told and len(self.kept) < KEPT_MAX:
            self.kept.append(scanned)
        return told


def _weak(engines: Engines) -> list[str]:
    from korora.wiring.scanning import weaknesses

    now = int(time.time())
    said = [f"{facts.engine} {why}" for facts in engines.facts for why in weaknesses(facts, now)]
    return said + [f"{name} is not configured" for name in engines.off]


# -- for people --------------------------------------------------------------------------------------------


def _show_engines(engines: Engines) -> None:
    for facts in engines.facts:
        say(f"{mark(not facts.problem)} {facts.engine}: {_line(_described(facts))}")
    for name in engines.off:
        say(f"{mark(None)} {name}: not configured")


def _described(facts: EngineFacts) -> str:
    if facts.problem:
        return f"unknown to every file: {facts.problem}"
    count = "an unknown number of" if facts.signatures is None else f"{facts.signatures:,}"
    dated = f", newest of {_date(facts.dated)}" if facts.dated else ""
    return f"{facts.version}, {count} signatures{dated}" + (f" ({facts.note})" if facts.note else "")


def _show(scanned: Scanned) -> None:
    verdict = scanned.verdict
    say(f"{_SIGNS[verdict.answer]} {_line(scanned.name, 2000)}: {verdict.answer} ({verdict.why})")
    for one in scanned.answers:
        say(f"    {one.engine}: {one.answer}{f': {_line(one.words)}' if one.words else ''}")


def _show_summary(summary: _Summary, passed: int, weak: list[str]) -> None:
    verdicts = summary.verdicts
    counts = ", ".join(f"{verdicts[answer]} {answer}" for answer in Answer)
    good = mark(summary.files == verdicts[Answer.CLEAN] and not summary.unread)
    for one in summary.unread:
        say(f"? unknown: {_line(one.where, 2000)}: {_line(one.problem)}")
    over = f"; {passed} passed over" if passed else ""
    say(f"{good} {summary.files} files, {size(summary.size)}: {counts}{over}")
    if weak:
        say(f"! clean says little here: {'; '.join(_line(one) for one in weak)}")


def _line(text: str, limit: int = _WORDS_CHARS) -> str:
    """On one line, shortened."""
    plain = text.replace("\n", "\\n").replace("\t", "\\t")
    return plain if len(plain) <= limit else f"{plain[:limit]}…"


def _date(seconds: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))


# -- for scripts -------------------------------------------------------------------------------------------


def _object(engines: Engines, summary: _Summary, passed: int, weak: list[str]) -> dict[str, object]:
    return {
        "rule": engines.rule,
        "engines": [asdict(facts) for facts in engines.facts],
        "not_configured": engines.off,
        "clean_is_weak": weak,
        "files": summary.files,
        "bytes": summary.size,
        "passed_over": passed,
        "unread": [{"where": one.where, "problem": one.problem} for one in summary.unread],
        "verdicts": {answer.value: summary.verdicts[answer] for answer in Answer},
        "not_kept": summary.files - summary.verdicts[Answer.CLEAN] - len(summary.kept),
        "examined": [_examined(scanned) for scanned in summary.kept],
    }


def _examined(scanned: Scanned) -> dict[str, object]:
    return {
        "path": scanned.name,
        "bytes": scanned.size,
        "verdict": scanned.verdict.answer,
        "why": scanned.verdict.why,
        "answers": [asdict(one) for one in scanned.answers],
    }
