"""Hosts, copies of one disk, and a QEMU that keeps bitmaps as the real one does; everything may break.

A disk is a few numbers. Every write is a number that was never there before, so what is left out shows.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field

from korora.agents.dataorg.bitmaps import Bitmap, CompareHashes, Decision, Disk, Kept, SendRanges, Tracking
from korora.model.identity import Digest, blake3_digest

Decide = Callable[[Kept | None, Tracking | None, Disk], Decision]
CHUNK = 1 << 20


@dataclass
class Stored:
    """A bitmap in an image's file."""

    dirty: set[int]
    in_use: bool = False


@dataclass
class Image:
    """What is on a storage. `stores`: whether its format keeps bitmaps; `apart`: the content is elsewhere."""

    content: list[int]
    stores: bool = True
    apart: bool = False
    bitmaps: dict[str, Stored] = field(default_factory=dict)


@dataclass
class Loaded:
    """A bitmap in QEMU's memory."""

    dirty: set[int]
    persistent: bool
    inconsistent: bool = False


@dataclass
class World:
    """The VM is `at` one host, and runs there if `run` is not 0. Hosts keep copies, and what they tracked."""

    at: str = "a"
    run: int = 0
    stores: bool = True
    apart: bool = False
    image: Image = field(default_factory=lambda: Image([1, 2]))
    copies: dict[str, list[int]] = field(default_factory=dict)
    tracked: dict[str, Tracking] = field(default_factory=dict)
    """At the host where the VM is; it goes where the VM goes."""
    loaded: dict[str, Loaded] = field(default_factory=dict)
    overlay: dict[int, int] | None = None
    backups: dict[str, Image] = field(default_factory=dict)
    epoch: int = 1
    runs: int = 0
    numbers: int = 2
    decisions: list[Decision] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.image.stores, self.image.apart = self.stores, self.apart
        self.start()

    # -- QEMU ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        if self.run:
            return
        self.runs += 1
        self.run = self.runs
        self.loaded = {
            name: Loaded(set(one.dirty), persistent=True, inconsistent=one.in_use)
            for name, one in self.image.bitmaps.items()
        }
        for one in self.image.bitmaps.values():
            one.in_use = True  # until it is closed

    def stop(self) -> None:
        if not self.run:
            return
        self.fold()
        kept = {name: one for name, one in self.loaded.items() if one.persistent and self.image.stores}
        self.image.bitmaps = {name: Stored(one.dirty, in_use=one.inconsistent) for name, one in kept.items()}
        self.run, self.loaded = 0, {}

    def kill(self) -> None:
        """What was in memory is gone; an overlay is folded back by what starts it again."""
        if not self.run:
            return
        for at, number in (self.overlay or {}).items():
            self.image.content[at] = number
        self.run, self.loaded, self.overlay = 0, {}, None

    def write(self, at: int) -> None:
        if not self.run:
            return
        self.numbers += 1
        if self.overlay is not None:
            self.overlay[at] = self.numbers
        else:
            self._write_below(at, self.numbers)

    def _write_below(self, at: int, number: int) -> None:
        self.image.content[at] = number
        for one in self.loaded.values():
            if not one.inconsistent:
                one.dirty.add(at)

    def grow(self) -> None:
        if self.run and self.overlay is None and len(self.image.content) < 3:
            self.image.content.append(0)
            self.write(len(self.image.content) - 1)

    def outsource(self) -> None:
        """An overlay takes the guest's writes."""
        if self.run and self.overlay is None:
            self.overlay = {}

    def fold(self) -> None:
        overlay, self.overlay = self.overlay, None
        for at, number in (overlay or {}).items():
            self._write_below(at, number)

    # -- people --------------------------------------------------------------------------------------------

    def save(self) -> None:
        """A copy of the image's file on this host, whatever state it is in."""
        self.backups[self.at] = deepcopy(self.image)

    def restore(self) -> None:
        backup = self.backups.get(self.at)
        if self.run or backup is None:
            return
        if self.image.apart:
            self.image.content = list(backup.content)  # the file with the content, alone
        else:
            self.image = deepcopy(backup)

    def scribble(self) -> None:
        """Another program writes to the file with the content."""
        if not self.run and self.image.apart:
            self.numbers += 1
            self.image.content[0] = self.numbers

    def lose_notes(self) -> None:
        """The daemon's state is gone."""
        self.tracked = {}

    def lose_copy(self) -> None:
        """A host needs the room, or its copy was written to."""
        for host in sorted(self.copies):
            self.copies[host] = [-number for number in self.copies[host]]

    # -- moves ---------------------------------------------------------------------------------------------

    @property
    def content(self) -> list[int]:
        seen = list(self.image.content)
        for at, number in (self.overlay or {}).items():
            seen[at] = number
        return seen

    def move(
        self, to: str, decide: Decide, *, carry: bool = False, note: bool = True, add: bool = True
    ) -> None:
        """To another host. There a bitmap begins for the one that it leaves; with `carry` those of further
        hosts go on. `note`, `add`: a crash comes before the one or the other is done.
        """
        if not self.run or to == self.at:
            return
        arrived, _ = self.arrived(to, decide)
        assert arrived == self.content, f"{to} would have {arrived}, not {self.content}"
        carried = self._carried(to, decide) if carry else {}
        self.epoch += 1
        left, self.at = self.at, to
        self.copies[left] = self.content
        self.copies.pop(to, None)
        self.image = Image(arrived, self.stores, self.apart)
        self.overlay = None
        self.runs += 1
        self.run = self.runs
        self.tracked = {host: tracking for host, (tracking, _) in carried.items()}
        self.loaded = {tracking.bitmap: Loaded(dirty, self.stores) for tracking, dirty in carried.values()}
        tracking = Tracking(left, root(arrived), len(arrived) * CHUNK, self.epoch, str(self.run), self.stores)
        if note:
            self.tracked[left] = tracking
        if add:
            self.loaded[tracking.bitmap] = Loaded(set(), self.stores)

    def arrived(self, to: str, decide: Decide) -> tuple[list[int], Decision]:
        """What that host would have after the move."""
        copy = self.copies.get(to)
        kept = Kept(root(copy), len(copy) * CHUNK) if copy is not None else None
        decision = decide(kept, self.tracked.get(to), self.seen())
        self.decisions.append(decision)
        if isinstance(decision, CompareHashes):
            return list(self.content), decision
        assert copy is not None
        assert isinstance(decision, SendRanges)
        made = list(copy)
        made += [0] * (len(self.content) - len(made))
        for at in self.loaded[decision.bitmap].dirty:
            made[at] = self.content[at]
        return made, decision

    def _carried(self, to: str, decide: Decide) -> dict[str, tuple[Tracking, set[int]]]:
        """Of hosts other than the two: what their bitmaps have by now, which the new host's go on with."""
        carried = {}
        for host, tracking in self.tracked.items():
            copy = self.copies.get(host)
            if host == to or copy is None:
                continue
            kept = Kept(root(copy), len(copy) * CHUNK)
            if isinstance(decide(kept, tracking, self.seen()), SendRanges):
                begun = Tracking(
                    host, tracking.root, tracking.size, tracking.epoch, str(self.runs + 1), self.stores
                )
                carried[host] = begun, set(self.loaded[tracking.bitmap].dirty)
        return carried

    def seen(self) -> Disk:
        bitmaps = [
            Bitmap(name, 65536, recording=True, persistent=one.persistent, inconsistent=one.inconsistent)
            for name, one in self.loaded.items()
        ]
        return Disk(
            len(self.content) * CHUNK,
            str(self.run),
            bitmaps,
            on_top=self.overlay is None,
            apart=self.image.apart,
        )


def root(content: list[int]) -> Digest:
    return blake3_digest(repr(content).encode())
