"""One run's figures, and what follows from many: medians with their spread, and ratios. Pure.

Limit: a ratio compares medians of runs that were interleaved in one session; across sessions it says nothing.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

TCP: Final = "tcp"
TLS: Final = "tls"
MULTIFD_TLS: Final = ("multifd-tls-2", "multifd-tls-4")
KORORA: Final = "korora"


class Ticks(msgspec.Struct, frozen=True):
    """What became of the guest's ticks between order and end."""

    received: int
    lost: int
    doubled: int
    reordered: int


class Run(msgspec.Struct, frozen=True):
    """One migration. docs/benchmark.md defines every figure."""

    way: str
    number: int
    ram_mib: int
    source: str
    wall_s: float
    transfer_s: float
    downtime_ms: float
    own_downtime_ms: float
    cpu_s: float
    cpu_until_running_s: float
    others_cpu_s: float
    bytes_sent: int
    ticks: Ticks
    decisions_ms: float = 0.0  # the rules of Korora's source, with their log
    peak_mib: dict[str, float] = {}  # each daemon
    beside_peak_mib: dict[str, float] = {}  # each interposer of a vTPM
    phases_ms: dict[str, float] = {}

    @property
    def fixed_s(self) -> float:
        return self.wall_s - self.transfer_s


class Spread(msgspec.Struct, frozen=True):
    median: float
    least: float
    most: float


FIGURES: Final = (
    "wall_s",
    "fixed_s",
    "transfer_s",
    "downtime_ms",
    "own_downtime_ms",
    "cpu_s",
    "cpu_until_running_s",
    "others_cpu_s",
    "bytes_sent",
    "decisions_ms",
)

_COMPARED: Final = {
    "wall": "wall_s",
    "transfer": "transfer_s",
    "cpu": "cpu_s",
    "cpu_until_running": "cpu_until_running_s",
}


def spread(values: Iterable[float]) -> Spread:
    found = sorted(values)
    return Spread(round(statistics.median(found), 4), round(found[0], 4), round(found[-1], 4))


def medians(runs: Sequence[Run]) -> dict[str, dict[str, Spread]]:
    """Way → figure → spread."""
    told: dict[str, dict[str, Spread]] = {}
    for way in dict.fromkeys(run.way for run in runs):
        mine = [run for run in runs if run.way == way]
        told[way] = {name: spread(getattr(run, name) for run in mine) for name in FIGURES}
        for group in ("peak_mib", "phases_ms"):
            for key in dict.fromkeys(key for run in mine for key in getattr(run, group)):
                told[way][f"{group}.{key}"] = spread(getattr(run, group).get(key, 0.0) for run in mine)
    return told


def ratios(of: Mapping[str, Mapping[str, Spread]]) -> dict[str, float]:
    """Korora's medians against QEMU's. Ways that were not measured are left out."""
    if KORORA not in of:
        return {}
    korora = of[KORORA]
    told = {"decisions_share": _ratio(korora["decisions_ms"].median, korora["wall_s"].median * 1000)}
    peers = {TCP: TCP, TLS: TLS}
    tried = [way for way in MULTIFD_TLS if way in of]
    if tried:
        peers["multifd_tls"] = min(tried, key=lambda way: of[way]["wall_s"].median)
    for name, way in peers.items():
        if way in of:
            for short, figure in _COMPARED.items():
                told[f"{short}_vs_{name}"] = _ratio(korora[figure].median, of[way][figure].median)
    if TCP in of:
        mine, theirs = korora["downtime_ms"].median, of[TCP]["downtime_ms"].median
        told["downtime_vs_tcp"] = _ratio(mine, theirs)
        told["downtime_vs_tcp_ms"] = round(mine - theirs, 1)
    return told


def peak_mib(runs: Sequence[Run]) -> float:
    """The most that any daemon ever held."""
    return max((size for run in runs for size in run.peak_mib.values()), default=0.0)


def table(of: Mapping[str, Mapping[str, Spread]]) -> str:
    """For people: Markdown, medians with least and most."""
    head = (
        "way",
        "wall s",
        "fixed s",
        "transfer s",
        "downtime ms",
        "CPU s",
        "others' CPU s",
        "MB sent",
    )
    lines = [_row(head), _row(["---"] * len(head))]
    for way, figures in of.items():
        cells: list[Any] = [way]
        cells += [_seconds(figures[name]) for name in ("wall_s", "fixed_s", "transfer_s")]
        cells.append(_whole(figures["downtime_ms"]))
        cells += [_seconds(figures["cpu_s"]), _seconds(figures["others_cpu_s"])]
        cells.append(f"{figures['bytes_sent'].median / 1e6:.0f}")
        lines.append(_row(cells))
    return "\n".join(lines)


def _row(cells: Sequence[Any]) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _seconds(of: Spread) -> str:
    return f"{of.median:.2f} ({of.least:.2f}–{of.most:.2f})"


def _whole(of: Spread) -> str:
    return f"{of.median:.0f} ({of.least:.0f}–{of.most:.0f})"


def _ratio(one: float, other: float) -> float:
    return round(one / other, 3) if other else 0.0
