"""An engine that should be there and is not: it answers *unknown*, and says why."""

from __future__ import annotations

from dataclasses import dataclass

from korora.model.scan import Answer, EngineAnswer, EngineFacts
from korora.ports.scanner import Stream


@dataclass(frozen=True, slots=True)
class Absent:
    """Implements `ports.scanner.Scanner`."""

    name: str
    problem: str

    @property
    def punctual(self) -> bool:
        return True

    def facts(self) -> EngineFacts:
        return EngineFacts(self.name, problem=self.problem)

    def scan(self, stream: Stream, within_s: float) -> EngineAnswer:
        return EngineAnswer(self.name, Answer.UNKNOWN, self.problem)

    def close(self) -> None:
        pass
