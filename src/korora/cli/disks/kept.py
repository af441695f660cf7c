"""Disks that a host keeps for VMs that may return, as rows."""

from __future__ import annotations

import time
from collections.abc import Sequence

from korora.cli.render import say, size, table
from korora.model.evidence import WipeStep
from korora.model.kept import KeptDisk


def show_kept(told: Sequence[KeptDisk]) -> None:
    rows = [
        (
            one.vm,
            one.name,
            one.format,
            size(one.size),
            size(one.used),
            one.to,
            _date(one.at),
            _date(one.until),
        )
        for one in told
    ]
    if rows:
        table(("VM", "DISK", "FORMAT", "SIZE", "USED", "WENT TO", "AT", "UNTIL"), rows)
    else:
        say("nothing is kept")


def show_dropped(steps: Sequence[WipeStep]) -> None:
    for step in steps:
        proof = "" if step.verified else ", which was NOT verified"
        say(f"{step.what}: {step.method}{proof}, {size(step.bytes)}")


def _date(at: int) -> str | None:
    return None if at == 0 else time.strftime("%Y-%m-%d %H:%M", time.localtime(at))
