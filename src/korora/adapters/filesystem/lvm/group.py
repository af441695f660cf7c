"""What a description says of a volume group: its physical and logical volumes.

Promise: ValueError where it is not what LVM would write; a logical volume of a kind that is not read has a
`problem`. Those that are only parts of others are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from korora.adapters.filesystem.lvm.grammar import Section, Value
from korora.adapters.filesystem.lvm.metadata import SECTOR

MAX_NUMBER: Final = 1 << 50
"""Of sectors or extents: more is more than any disk has."""
_READ: Final = {"striped", "linear"}


@dataclass(frozen=True, slots=True)
class PhysicalFacts:
    """`begin`: of its first extent, in bytes; `missing`: what it holds may be out of date."""

    id: str
    begin: int
    extents: int
    missing: bool


@dataclass(frozen=True, slots=True)
class Run:
    """A segment of so many extents, in one area or striped over several: (physical volume, first extent)."""

    extents: int
    stripe_bytes: int
    areas: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Volume:
    """`runs` in order; `problem`: why it cannot be put together."""

    name: str
    runs: tuple[Run, ...]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """`number` grows with each change; `physical` by the names that the description has for them."""

    name: str
    id: str
    number: int
    extent_bytes: int
    physical: dict[str, PhysicalFacts]
    logical: Section

    @classmethod
    def of(cls, description: Section) -> Group:
        found = [(name, one) for name, one in description.items() if isinstance(one, dict)]
        if len(found) != 1:
            raise ValueError("it does not describe one volume group")
        name, group = found[0]
        extent = _number(group, "extent_size")
        if not extent:
            raise ValueError("its extents have no length")
        physical = {
            name: PhysicalFacts(
                id=_word(one, "id").replace("-", ""),
                begin=_number(one, "pe_start") * SECTOR,
                extents=_number(one, "pe_count"),
                missing="MISSING" in _words(one, "flags"),
            )
            for name, one in _sections(_section(group, "physical_volumes"))
        }
        logical = group.get("logical_volumes", {})
        if not isinstance(logical, dict):
            raise ValueError("its logical volumes are not described")
        return cls(name, _word(group, "id"), _number(group, "seqno"), extent * SECTOR, physical, logical)

    def volumes(self) -> Iterator[Volume]:
        """All that somebody could use. ValueError is a `problem` of the one that it is about."""
        stores = set(_stores(self.logical))
        for name, one in _sections(self.logical):
            if "VISIBLE" not in _words(one, "status"):
                continue  # what it is a part of is told
            if name in stores:
                yield Volume(name, (), "it holds what a snapshot keeps, which is not put together here")
                continue
            try:
                yield Volume(name, tuple(_runs(one)))
            except ValueError as error:
                yield Volume(name, (), str(error))


def _stores(logical: Section) -> Iterator[str]:
    for _, volume in _sections(logical):
        for _, segment in _sections(volume):
            for key in ("cow_store", "merging_store"):
                if isinstance(name := segment.get(key), str):
                    yield name


def _runs(volume: Section) -> Iterator[Run]:
    end = 0
    for number in range(1, _number(volume, "segment_count") + 1):
        segment = _section(volume, f"segment{number}")
        kind = _word(segment, "type")
        if kind not in _READ:
            raise ValueError(f"a logical volume of type {kind[:40]}, which is not put together here")
        extents, stripes = _number(segment, "extent_count"), _list(segment, "stripes")
        if _number(segment, "start_extent") != end or not extents:
            raise ValueError("its segments do not follow one another")
        areas = tuple(zip(stripes[::2], stripes[1::2], strict=False))
        if not areas or 2 * len(areas) != len(stripes) or _number(segment, "stripe_count") != len(areas):
            raise ValueError("its stripes are not described")
        stripe = _number(segment, "stripe_size") * SECTOR if len(areas) > 1 else 0
        yield Run(extents, stripe, tuple((_is_name(name), _is_number(extent)) for name, extent in areas))
        end += extents


# -- of a section ------------------------------------------------------------------------------------------


def _sections(section: Section) -> Iterator[tuple[str, Section]]:
    return ((name, one) for name, one in section.items() if isinstance(one, dict))


def _section(section: Section, name: str) -> Section:
    found = section.get(name)
    if not isinstance(found, dict):
        raise ValueError(f"its description has no {name}")
    return found


def _number(section: Section, name: str) -> int:
    return _is_number(section.get(name))


def _word(section: Section, name: str) -> str:
    return _is_name(section.get(name))


def _list(section: Section, name: str) -> list[str | int]:
    found = section.get(name, [])
    if not isinstance(found, list):
        raise ValueError(f"{name} is no list")
    return found


def _words(section: Section, name: str) -> set[str]:
    return {one for one in _list(section, name) if isinstance(one, str)}


def _is_number(value: Value | Section | None) -> int:
    if not isinstance(value, int) or not 0 <= value <= MAX_NUMBER:
        raise ValueError("its description has no number where one belongs")
    return value


def _is_name(value: Value | Section | None) -> str:
    if not isinstance(value, str):
        raise ValueError("its description has no word where one belongs")
    return value
