"""VirusTotal, API v3: `GET /files/{hash}`, key in `x-apikey`. The public quota is 4 a minute, 500 a day."""

from __future__ import annotations

from typing import Any, Final

from korora.adapters.scanner.online.asking import Kind, Question, Told, at, number, refusal, text
from korora.model.scan import Answer

INFECTED_AT: Final = 3
"""So many of its engines: one or two of some seventy are wrong often."""
CLEAN_AT: Final = 10
"""So many must have looked and found nothing."""


def _question(url: str, key: str, sha256: str) -> Question:
    return Question("GET", f"{url}/files/{sha256}", {"x-apikey": key})


def _understood(status: int, document: Any) -> Told:
    if status == 404 and at(document, "error", "code") == "NotFoundError":
        return Told(None, "it does not know the file")
    stats = at(document, "data", "attributes", "last_analysis_stats")
    if status != 200 or not isinstance(stats, dict):
        return refusal(status)
    bad, odd = number(stats.get("malicious")), number(stats.get("suspicious"))
    good = number(stats.get("undetected")) + number(stats.get("harmless"))
    label = text(
        at(document, "data", "attributes", "popular_threat_classification", "suggested_threat_label")
    )
    words = f"{bad} of {bad + odd + good} engines say malicious, {odd} suspicious" + (
        f": {label}" * bool(label)
    )
    return Told(_answer(bad, odd, good), words)


def _answer(bad: int, odd: int, good: int) -> Answer:
    if bad >= INFECTED_AT:
        return Answer.INFECTED
    if bad or odd:
        return Answer.SUSPICIOUS
    return Answer.CLEAN if good >= CLEAN_AT else Answer.UNKNOWN


VIRUSTOTAL: Final = Kind("virustotal", "https://www.virustotal.com/api/v3", 4, 500, _question, _understood)
