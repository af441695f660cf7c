"""Which device of one configuration is which of another, and where its settings lie there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from korora.model.vm_settings import Component, Field

Pair = tuple[Component | None, Component | None]


@dataclass(frozen=True, slots=True)
class Roots:
    """Where a device's settings lie in the one file, and in the other: None where it is not there."""

    of: Mapping[str, str | None]

    def renamed(self, path: str) -> str | None:
        """The path that says the same in the other file; None of a device that is not there."""
        for end in range(len(path), 0, -1):
            if (end == len(path) or path[end] in "/.") and path[:end] in self.of:
                root = self.of[path[:end]]
                return None if root is None else root + path[end:]
        return path


def paired(before: list[Component], after: list[Component], *, by_slot: bool) -> list[Pair]:
    """By slot, then by MAC address, the rest in order; beside what is gone or new there is nothing."""
    pairs: list[tuple[int | None, int | None]] = []
    left, right = dict.fromkeys(range(len(before))), dict.fromkeys(range(len(after)))
    for key in (_slot, _mac) if by_slot else (_mac,):
        known: dict[str, int] = {}
        for index in right:
            known.setdefault(key(after[index]), index)
        for index in list(left):
            said = key(before[index])
            if said and said in known:
                other = known.pop(said)
                del left[index], right[other]
                pairs.append((index, other))
    pairs += zip(left, right, strict=False)
    rest = min(len(left), len(right))
    pairs += [(index, None) for index in list(left)[rest:]]
    pairs += [(None, index) for index in list(right)[rest:]]
    pairs.sort(key=lambda pair: (pair[0] is None, pair[0] or 0, pair[1] or 0))
    return [
        (before[one] if one is not None else None, after[other] if other is not None else None)
        for one, other in pairs
    ]


def reordered(pairs: list[Pair], after: list[Component]) -> bool:
    """Whether devices that are told apart by their place alone changed places."""
    place = {id(device): index for index, device in enumerate(after)}
    places = [place[id(now)] for was, now in pairs if was and now and was.root != now.root]
    return places != sorted(places)


def roots(pairs: list[Pair]) -> Iterator[tuple[str, str | None]]:
    """Of the file before."""
    return ((was.root, now.root if now else None) for was, now in pairs if was)


def _slot(device: Component) -> str:
    return device.slot


def _mac(device: Component) -> str:
    return device.get(Field.MAC) or ""
