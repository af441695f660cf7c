"""MetaDefender Cloud of OPSWAT, API v4: `GET /hash/{hash}`, key in `apikey`."""

from __future__ import annotations

from typing import Any, Final

from korora.adapters.scanner.online.asking import Kind, Question, Told, at, number, refusal, text
from korora.model.scan import Answer

_NOT_FOUND: Final = 404003
_RESULTS: Final = {0: Answer.CLEAN, 1: Answer.INFECTED, 2: Answer.SUSPICIOUS}


def _question(url: str, key: str, sha256: str) -> Question:
    return Question("GET", f"{url}/hash/{sha256}", {"apikey": key})


def _understood(status: int, document: Any) -> Told:
    if status == 404 and at(document, "error", "code") == _NOT_FOUND:
        return Told(None, "it does not know the file")
    results = at(document, "scan_results")
    if status != 200 or not isinstance(results, dict):
        return refusal(status)
    said, found = text(results.get("scan_all_result_a")), number(results.get("total_detected_avs"))
    words = f"{said or 'no result'}, {found} of {number(results.get('total_avs'))} engines"
    if results.get("progress_percentage", 100) != 100:
        return Told(Answer.UNKNOWN, f"{words}, not finished")
    result = results.get("scan_all_result_i")
    answer = _RESULTS.get(result, Answer.UNKNOWN) if type(result) is int else Answer.UNKNOWN
    if answer is Answer.CLEAN and (found or not number(results.get("total_avs"))):
        answer = Answer.SUSPICIOUS if found else Answer.UNKNOWN
    return Told(answer, words)


METADEFENDER: Final = Kind(
    "metadefender", "https://api.metadefender.com/v4", 10, 1000, _question, _understood
)
