"""What engines say of a file, and what is concluded from it.

Four answers, and *unknown* is one of them: an engine that is down, gives up or was not asked has not said
*clean*, and nothing here makes it so.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Answer(StrEnum):
    CLEAN = "clean"
    INFECTED = "infected"
    SUSPICIOUS = "suspicious"
    UNKNOWN = "unknown"


class Rule(StrEnum):
    """How several engines' answers become one: see `agents.integrity.malware.verdict`."""

    ANY = "any"
    MAJORITY = "majority"
    WEIGHTED = "weighted"


@dataclass(frozen=True, slots=True)
class EngineAnswer:
    """One engine's answer to one file. `words`: its own, or why it has none."""

    engine: str
    answer: Answer
    words: str = ""


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What an engine is and how much it knows. `signatures` and `dated` (Unix seconds) are None if nobody
    tells; `problem` says why it cannot answer at all, `note` what one should know besides."""

    engine: str
    version: str = ""
    signatures: int | None = None
    dated: int | None = None
    problem: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`why` counts the answers, in one order whatever theirs was."""

    answer: Answer
    why: str
