"""What findings lead to: the site's dispositions over what was found, and what a person has accepted (E5).

Pure. Promise: a check that was asked for and could not look at something, or was not come to at all, says
*unknown*, and whoever blocks the unknown blocks that. A finding that blocks does so with or without a flag.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from korora.model.flag import Flag
from korora.model.inspection import CHECK_OF, Check, CheckResult, Disposition, Examined, Found, Looked

FLAGGING: Final = frozenset({Disposition.FLAG, Disposition.BLOCK})


@dataclass(frozen=True, slots=True)
class Judged:
    """`results` of every check that is not off; `blocking`: open flags for which the VM must stay; `beyond`:
    why it must stay besides, in words, where no flag says so."""

    results: tuple[CheckResult, ...]
    blocking: tuple[Flag, ...]
    beyond: tuple[str, ...] = ()


def flagged(checks: Mapping[Check, Disposition], examined: Examined) -> list[Found]:
    """What of the findings is to be flagged, each once."""
    return list(dict.fromkeys(one for one in examined.found if checks[CHECK_OF[one.kind]] in FLAGGING))


def judged(checks: Mapping[Check, Disposition], examined: Examined, flags: Iterable[Flag]) -> Judged:
    """`flags`: of the VM, those of this inspection among them."""
    flags = tuple(flags)
    still_open = [flag for flag in flags if flag.is_open]
    found = Counter(CHECK_OF[one.kind] for one in examined.found)
    for kind, dropped in examined.dropped.items():
        found[CHECK_OF[kind]] += dropped
    opened = Counter(CHECK_OF[flag.kind] for flag in still_open)
    looked = {one.check: one for one in examined.looked}
    results = tuple(
        _result(check, disposition, looked.get(check), found[check], opened[check])
        for check, disposition in checks.items()
        if disposition is not Disposition.OFF
    )
    blocking = blocked_by(checks, still_open)
    beyond = (*_without_flag(checks, examined, flags), *_beyond(checks, examined, looked))
    return Judged(results, blocking, beyond)


def blocked_by(checks: Mapping[Check, Disposition], flags: Iterable[Flag]) -> tuple[Flag, ...]:
    """The open flags for which the VM must stay."""
    return tuple(flag for flag in flags if flag.is_open and checks[CHECK_OF[flag.kind]] is Disposition.BLOCK)


def _without_flag(
    checks: Mapping[Check, Disposition], examined: Examined, flags: Iterable[Flag]
) -> Iterator[str]:
    """A record is bounded, and whoever fills it with flags must not hide a finding behind them."""
    known = {(flag.kind, flag.place, flag.content) for flag in flags}
    left = Counter(
        one.kind
        for one in dict.fromkeys(examined.found)
        if checks[CHECK_OF[one.kind]] is Disposition.BLOCK and (one.kind, one.place, one.content) not in known
    )
    for kind, count in left.items():
        yield f"{count} findings of the kind {kind} for which the record of flags has no room"


def _beyond(
    checks: Mapping[Check, Disposition], examined: Examined, looked: Mapping[Check, Looked]
) -> Iterator[str]:
    for kind, dropped in examined.dropped.items():
        if checks[CHECK_OF[kind]] is Disposition.BLOCK and dropped:
            yield f"{dropped} more findings of the kind {kind}"
    if checks[Check.UNKNOWN] is Disposition.BLOCK:
        for check, disposition in checks.items():
            if disposition is not Disposition.OFF and check is not Check.UNKNOWN and check not in looked:
                yield f"the check of {check} was not come to"


def _result(
    check: Check, disposition: Disposition, looked: Looked | None, found: int, opened: int
) -> CheckResult:
    return CheckResult(
        check=check,
        disposition=disposition,
        examined=looked.examined if looked else 0,
        found=found,
        open=opened,
        unknown=looked.unknown if looked else 1,
        words=looked.words if looked else "it was not come to",
    )
