"""What changed between two configurations, in words where there is a word, else by path.

Promise: within one format, two configurations with different digests have at least one change, and each path
that differs stands in one. Between formats only facts that both tell in the same words are compared.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from korora.agents.integrity.configuration import severity
from korora.agents.integrity.configuration.hiding import quiet
from korora.agents.integrity.configuration.moving import Allowed, is_expected_of, is_expected_path
from korora.agents.integrity.configuration.pairing import Pair, Roots, paired, reordered, roots
from korora.model.vm_settings import (
    Component,
    ConfigurationFormat,
    Fact,
    Field,
    Part,
    SettingChange,
    VmConfiguration,
)

DEVICES: Final = (Part.DISK, Part.NIC, Part.PASSED, Part.SHARE, Part.DISPLAY)
BETWEEN_FORMATS: Final = (
    Field.NAME, Field.UUID, Field.MEMORY, Field.CPUS, Field.FIRMWARE, Field.SECURE_BOOT, Field.TPM,
    Field.KERNEL, Field.INITRD, Field.COMMAND_LINE, Field.KIND, Field.PATH, Field.FORMAT, Field.BUS,
    Field.READ_ONLY, Field.NETWORK, Field.MAC, Field.PASSWORD,
)  # fmt: skip
"""Facts that mean the same in every format that tells them."""
KINDS: Final = frozenset({"disk", "cdrom", "floppy", "NAT", "bridged", "host-only", "internal", "routed"})
"""And kinds: a libvirt network, for one, may be any of these."""
WITHOUT: Final = {
    ConfigurationFormat.KORORA: {Part.PASSED, Part.SHARE, Part.DISPLAY},
    ConfigurationFormat.OVF: {Part.SHARE, Part.DISPLAY},
}
"""Devices that a format has no way to tell of."""


@dataclass(slots=True)
class _Comparing:
    """`explained`: paths, as in the file after, that a change in words speaks of already."""

    before: VmConfiguration
    after: VmConfiguration
    moved: bool
    allowed: Collection[Allowed]
    roots: dict[str, str | None] = field(default_factory=dict)
    new_roots: dict[str, str | None] = field(default_factory=dict)
    explained: set[str] = field(default_factory=set)

    @property
    def alike(self) -> bool:
        return self.before.format is self.after.format

    def parts(self) -> Iterator[Part]:
        """Those that both formats can tell of."""
        without = WITHOUT.get(self.before.format, set()) | WITHOUT.get(self.after.format, set())
        return (part for part in DEVICES if self.alike or part not in without)


def changes(
    before: VmConfiguration, after: VmConfiguration, *, moved: bool = False, allowed: Collection[Allowed] = ()
) -> Iterator[SettingChange]:
    """The VM, then its devices, then settings without a word, in the order of their paths."""
    comparing = _Comparing(before, after, moved, allowed)
    none = True
    for change in _all(comparing):
        none = False
        old, new = quiet(change, before.settings, after.settings)
        yield replace(change, before=old, after=new)
    if none and comparing.alike and before.settings != after.settings:
        paths = tuple(sorted(before.settings.items() ^ after.settings.items()))
        yield SettingChange(None, "the place of settings", None, None, paths[0][0], "warning", False)


def _all(comparing: _Comparing) -> Iterator[SettingChange]:
    before, after = comparing.before, comparing.after
    pairs = {
        part: paired(list(before.of(part)), list(after.of(part)), by_slot=comparing.alike)
        for part in comparing.parts()
    }
    for of_part in pairs.values():
        comparing.roots |= roots(of_part)
        comparing.new_roots |= {now.root: None for was, now in of_part if now and not was}
    for was, now in zip(before.of(Part.VM), after.of(Part.VM), strict=False):
        yield from _facts(comparing, was, now, "VM")
    for part, of_part in pairs.items():
        yield from _devices(comparing, part, of_part)
    if comparing.alike:
        yield from _others(comparing)


def _devices(comparing: _Comparing, part: Part, pairs: list[Pair]) -> Iterator[SettingChange]:
    before, after = list(comparing.before.of(part)), list(comparing.after.of(part))
    number = {id(one): place for devices in (before, after) for place, one in enumerate(devices, start=1)}
    for was, now in pairs:
        what = f"{part.value} {number[id(was or now)]}"
        if was is not None and now is not None:
            if comparing.alike and was.slot != now.slot:
                at = (was.root, now.root)
                yield SettingChange(part, what, Field.SLOT, was.slot, now.slot, "warning", paths=at)
            yield from _facts(comparing, was, now, what)
        elif now is not None:
            yield SettingChange(part, what, None, None, shown(now), severity.of_added(now), paths=(now.root,))
        elif was is not None:
            yield SettingChange(
                part, what, None, shown(was), None, severity.of_removed(was), paths=(was.root,)
            )
    if comparing.alike and reordered(pairs, after):
        there = [(number[id(was)], number[id(now)]) for was, now in pairs if was and now]
        order = ", ".join(str(old) for old, _ in sorted(there, key=lambda pair: pair[1]))
        numbers = ", ".join(str(old) for old, _ in there)
        yield SettingChange(part, f"order of every {part.value}", None, numbers, order, "warning")


def _facts(comparing: _Comparing, was: Component, now: Component, what: str) -> Iterator[SettingChange]:
    old, new = {fact.field: fact for fact in was.facts}, {fact.field: fact for fact in now.facts}
    for one in Field:
        before, after = old.get(one), new.get(one)
        if not comparing.alike and not _comparable(before, after):
            continue
        if _value(before) != _value(after):
            yield _changed(comparing, was, now, what, one, before, after)


def _changed(
    comparing: _Comparing,
    was: Component,
    now: Component,
    what: str,
    of: Field,
    before: Fact | None,
    after: Fact | None,
) -> SettingChange:
    old, new = _value(before), _value(after)
    gone, come = before.paths if before else (), after.paths if after else ()
    known = Roots(comparing.roots)
    comparing.explained.update(path for one in gone if (path := known.renamed(one)) is not None)
    comparing.explained.update(come)
    grave = severity.of_vm(of, old, new) if was.part is Part.VM else severity.of_device(was, now, of)
    expected = is_expected_of(was.part, of, moved=comparing.moved, allowed=comparing.allowed)
    paths = tuple(dict.fromkeys((*gone, *come)))
    return SettingChange(was.part, what, of, old, new, grave, expected and None not in {old, new}, paths)


def _comparable(before: Fact | None, after: Fact | None) -> bool:
    """Between two formats: what is not told in one is unknown there."""
    if before is None or after is None or before.field not in BETWEEN_FORMATS:
        return False
    return before.field is not Field.KIND or {before.value, after.value} <= KINDS


def _value(fact: Fact | None) -> str | None:
    return fact.value if fact is not None else None


def _others(comparing: _Comparing) -> Iterator[SettingChange]:
    """What no word tells, each device's settings beside those of the device that it is."""
    format = comparing.after.format  # noqa: A001
    before, after = _beside(comparing)
    for path in sorted((before.keys() | after.keys()) - comparing.explained):
        was, now = before.get(path), after.get(path)
        if was != now:
            expected = is_expected_path(format, path, moved=comparing.moved)
            yield SettingChange(
                None, path, None, was, now, severity.of_other(format, path), expected, (path,)
            )


def _beside(comparing: _Comparing) -> tuple[dict[str, str], dict[str, str]]:
    """The settings of both, by their paths in the file after.

    Of a device that came or went as a whole they are left out; not so what stands in the other file all the
    same, as of one that was only switched off.
    """
    old, new = comparing.before.settings, comparing.after.settings
    known, come = Roots(comparing.roots), Roots(comparing.new_roots)
    was, now = (
        Roots({one.root: None for one in side.components if one.root})
        for side in (comparing.before, comparing.after)
    )
    before = {}
    for path, value in old.items():
        renamed = known.renamed(path)
        if renamed is not None:
            before[renamed] = value
        elif path in new and now.renamed(path):
            before[path] = value
    after = {
        path: value
        for path, value in new.items()
        if come.renamed(path) is not None or (path in old and was.renamed(path))
    }
    return before, after


def shown(device: Component) -> str:
    """A device on one line."""
    return ", ".join(
        f"{fact.field.value} {fact.value}" if fact.field is not Field.KIND else fact.value
        for fact in device.facts
    )


def words(change: SettingChange) -> str:
    """A change as a sentence."""
    before, after = change.before, change.after
    if change.part is None:
        kind = "setting added " if before is None else "setting removed " if after is None else ""
        return f"{kind}{change.what}: {_arrow(before, after)}"
    if change.field is None and (before is None or after is None):
        return f"{change.what} {'added' if before is None else 'removed'}: {after or before}"
    if change.field is None or change.field is Field.KIND:
        return f"{change.what}: {_arrow(before, after)}"
    if change.part is Part.VM:
        return f"{change.field.value}: {_arrow(before, after)}"
    return f"{change.what}: {change.field.value} changed: {_arrow(before, after)}"


def _arrow(before: str | None, after: str | None) -> str:
    """Of a setting that came or went in part: nothing stands in the place of what is not there."""
    return " → ".join("(none)" if one is None else one or '""' for one in (before, after))
