"""What an inspection works with: engines, indicators, a place for baselines and originals."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from korora import named_file
from korora.errors import KororaError
from korora.model.flag import FlagKind, Place
from korora.model.inspection import Check, Found
from korora.model.scan import EngineFacts
from korora.model.scan_configuration import ScanSettings, parse_scan_settings
from korora.ports.inspector import Order
from korora.wiring import indicators, scanning
from korora.wiring.indicator_matching import Matching, begun
from korora.wiring.inspection.baseline import Baseline
from korora.wiring.inspection.gathering import Gathering
from korora.wiring.inspection.originals import Originals
from korora.wiring.scanning import Engines, weaknesses


@dataclass(frozen=True, slots=True)
class Tools:
    """`engines` and `matching` are None where they are not asked for, or cannot be had, which is told."""

    engines: Engines | None
    matching: Matching | None
    baseline: Baseline
    originals: Originals


def tools(order: Order, gathering: Gathering, undo: ExitStack) -> Tools:
    return Tools(
        _engines(order, gathering, undo),
        _matching(order, gathering, undo),
        Baseline(Path(order.output)),
        Originals(order),
    )


def _engines(order: Order, gathering: Gathering, undo: ExitStack) -> Engines | None:
    if not gathering.wants(Check.MALWARE):
        return None
    try:
        settings, folder = _settings(order.engines)
        engines = undo.enter_context(scanning.opened(settings, folder))
    except (KororaError, OSError) as error:
        _missing(gathering, Check.MALWARE, getattr(error, "strerror", None) or str(error))
        return None
    words = "; ".join(map(_described, engines.facts))
    gathering.looked(Check.MALWARE, words=f"rule {engines.rule}; {words}")
    return engines


def _settings(path: str) -> tuple[ScanSettings, Path]:
    if not path:
        return ScanSettings(), Path("/")
    return parse_scan_settings(named_file.read(Path(path)).decode(), path), Path(path).parent


def _described(facts: EngineFacts) -> str:
    weak = ", ".join(weaknesses(facts, int(time.time())))
    said = facts.problem or f"{facts.version}, {facts.signatures or 'unknown'} signatures"
    return f"{facts.engine}: {said}" + (f" ({weak})" if weak else "")


def _matching(order: Order, gathering: Gathering, undo: ExitStack) -> Matching | None:
    if not gathering.wants(Check.INDICATORS):
        return None
    try:
        if not order.indicators:
            raise KororaError("no store of indicators is named in the policy")
        store = undo.enter_context(indicators.opened(Path(order.indicators)))
        matching = begun(store, int(time.time()))
    except (KororaError, OSError) as error:
        _missing(gathering, Check.INDICATORS, str(error))
        return None
    gathering.looked(Check.INDICATORS, words=f"{matching.comparison.indicators} indicators in force")
    return matching


def _missing(gathering: Gathering, check: Check, why: str) -> None:
    """A check that cannot be made is not a check that found nothing."""
    gathering.looked(check, unknown=1, words=f"it cannot be made: {why}")
    found = Found(
        kind=FlagKind.UNREAD, place=Place(file=f"check of {check}"), reason=f"it cannot be made: {why}"
    )
    gathering.finds(found)
