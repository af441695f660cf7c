"""An appraiser that compares PCR 4 and the event log with the first it saw, and never trusts b"evil"."""

from __future__ import annotations

import json

from korora.model.evidence import PcrValues
from korora.supervision.boots.appraiser import Judgement


class FakeAppraiser:
    """Implements `supervision.boots.appraiser.BootAppraiser`."""

    def learn(self, event_log: bytes | None, pcrs: PcrValues) -> tuple[bytes, Judgement]:
        if event_log == b"evil":
            return b"", Judgement(False, ("the event log does not replay to the PCRs",), None)
        return json.dumps({"4": pcrs[4], "log": (event_log or b"").hex()}).encode(), Judgement(True, (), True)

    def appraise(self, baseline: bytes, event_log: bytes | None, pcrs: PcrValues) -> Judgement:
        known = json.loads(baseline)
        if known["4"] != pcrs[4] or known["log"] != (event_log or b"").hex():
            return Judgement(False, ("PCR 4 is not as in the baseline",), True)
        return Judgement(True, (), True)
