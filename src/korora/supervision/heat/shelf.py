"""The popularity of a VM's disks in one file of its folder, whole or not at all.

A record is a msgpack map: the name of each disk → its record (agents.dataorg.record). What cannot be used is
as if it were not there: all of it is learnt again. The file goes when the folder goes, so with the VM.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
import structlog

from korora.agents.dataorg.popularity import Popularity
from korora.agents.dataorg.record import RECORD_MAX_BYTES, decoded, encoded
from korora.errors import IntegrityError
from korora.supervision.life import read_bounded, write_whole

FILE: Final = "heat"
DISKS_MAX: Final = 16
"""Of a VM with more disks the rest is not kept: the daemon's memory is bounded."""
_LIMIT_BYTES: Final = DISKS_MAX * (RECORD_MAX_BYTES + 1024)

_log = structlog.get_logger("korora.supervision")


def write_heat(directory: Path, disks: Mapping[str, Popularity]) -> None:
    """Replace the file. ToolError when it cannot be written; the old one stays then. Blocking."""
    write_whole(directory / FILE, msgspec.msgpack.encode({name: encoded(one) for name, one in disks.items()}))


def read_heat(directory: Path) -> dict[str, Popularity]:
    """What was kept; a damaged record is left out, with a line in the log. Blocking."""
    data = read_bounded(directory / FILE, _LIMIT_BYTES)
    if data is None:
        return {}
    try:
        records = msgspec.msgpack.decode(data, type=dict[str, bytes])
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as problem:
        _log.warning("heat-not-read", file=str(directory / FILE), error=str(problem))
        return {}
    found = {}
    for name, record in list(records.items())[:DISKS_MAX]:
        try:
            found[name] = decoded(record)
        except IntegrityError as problem:
            _log.warning("heat-not-read", file=str(directory / FILE), disk=name, error=problem.message)
    return found
