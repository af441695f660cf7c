"""What a reader gathers: settings by path, parts with facts, what could not be read; and spellings made one.

Promise: nothing is overwritten: a path that comes again is kept beside the first. A value that its format
does not allow is told as unparsed, and stays a setting. Bounded: so many settings and no more.
"""

from __future__ import annotations

import bisect
import itertools
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from korora.errors import UsageError
from korora.model.vm_settings import (
    Component,
    ConfigurationFinding,
    ConfigurationFormat,
    Fact,
    Field,
    Part,
    Severity,
    Unparsed,
    VmConfiguration,
    trimmed,
)

MAX_BYTES: Final = 4 << 20
"""Of a file."""
MAX_SETTINGS: Final = 50_000
MAX_PATH: Final = 4_096
"""Characters of a setting's path, and of one word that is part of it."""
MAX_UNPARSED: Final = 1_000
_MAC: Final = re.compile("[0-9A-Fa-f]{12}")
_UUID: Final = re.compile("[0-9A-Fa-f]{32}")
_NUMBER: Final = re.compile("[0-9]{1,18}")
_IN_PATHS: Final = re.compile(r"[\[\]/@#%\x00-\x1f\x7f]")


class Gathering:
    """Filled by one reader, then `done`."""

    def __init__(self, format: ConfigurationFormat) -> None:  # noqa: A002
        self.settings: dict[str, str] = {}
        self._format = format
        self._places: dict[str, str] = {}
        self._components: list[Component] = []
        self._unparsed: list[Unparsed] = []
        self._findings: list[ConfigurationFinding] = []
        self._twins: dict[str, int] = {}
        self._sorted: list[str] | None = None

    def put(self, path: str, value: str, place: str = "") -> str:
        """The path it got: that of a setting that is there already ends in `#2`, `#3` and so on."""
        if len(path) > MAX_PATH:
            self.bad(place or path, value, "its name is too long")
            return path
        number = self._twins[path] = self._twins.get(path, 0) + 1
        kept = path if number == 1 else f"{path}#{number}"
        if len(self.settings) >= MAX_SETTINGS:
            raise unreadable(f"it has more than {MAX_SETTINGS} settings")
        self.settings[kept] = value
        self._sorted = None
        if place:
            self._places[kept] = place
        return kept

    def bad(self, place: str, text: str, why: str) -> None:
        """A setting that could not be read. `place`: a line, or a setting's path."""
        if len(self._unparsed) < MAX_UNPARSED:
            self._unparsed.append(
                Unparsed(trimmed(self._places.get(place, place)), trimmed(text), trimmed(why))
            )
        elif len(self._unparsed) == MAX_UNPARSED:
            self._unparsed.append(Unparsed("the rest", "", "there is more that could not be read"))

    def note(self, severity: Severity, kind: str, message: str) -> None:
        if len(self._findings) < MAX_UNPARSED:
            self._findings.append(ConfigurationFinding(severity, kind, message))

    def part(self, part: Part, slot: str, root: str, facts: Iterable[Fact | None]) -> None:
        kept = tuple(fact for fact in facts if fact is not None)
        self._components.append(Component(part, slot, root, kept))

    def done(self) -> VmConfiguration:
        return VmConfiguration(
            self._format,
            dict(self.settings),
            tuple(self._components),
            tuple(self._unparsed),
            tuple(self._findings),
        )

    def under(self, root: str) -> tuple[str, ...]:
        """The paths of all settings there, in order."""
        if self._sorted is None:
            self._sorted = sorted(self.settings)
        start = bisect.bisect_left(self._sorted, root)
        near = itertools.takewhile(
            lambda path: path.startswith(root), itertools.islice(self._sorted, start, None)
        )
        return tuple(path for path in near if is_under(path, root) and path in self.settings)

    def again(self, paths: Iterable[str]) -> Iterator[str]:
        """Of elements that should be there once, the second ones."""
        return (f"{path}[2]" for path in paths if self.under(f"{path}[2]"))

    # -- facts: a setting that is there, as it is or made one of several spellings -------------------------

    def text(self, field: Field, path: str, *more: str) -> Fact | None:
        """`more`: settings that matter to the same fact."""
        value = self.settings.get(path)
        return Fact(field, value, (path, *more)) if value else None

    def joined(self, field: Field, *paths: str) -> Fact | None:
        """What several settings say together."""
        there = [path for path in paths if self.settings.get(path)]
        return Fact(field, " ".join(self.settings[path] for path in there), tuple(there)) if there else None

    def number(self, field: Field, path: str, *, unit: int = 1) -> Fact | None:
        """A whole number times `unit`. The setting itself keeps the file's unit, without leading zeros."""
        value = self.settings.get(path)
        if value is None:
            return None
        if not _NUMBER.fullmatch(value):
            self.bad(path, value, "is no whole number")
            return None
        self.settings[path] = str(int(value))
        return Fact(field, str(int(value) * unit), (path,))

    def uuid(self, field: Field, path: str) -> Fact | None:
        """However its digits are grouped."""
        value = self.settings.get(path)
        if value is None:
            return None
        digits = re.sub("[-{} ]", "", value)
        if not _UUID.fullmatch(digits):
            self.bad(path, value, "is no UUID")
            return None
        self.settings[path] = str(uuid.UUID(digits))
        return Fact(field, self.settings[path], (path,))

    def mac(self, path: str) -> Fact | None:
        """Six bytes, lower case, with colons."""
        value = self.settings.get(path)
        if value is None:
            return None
        digits = re.sub("[:-]", "", value)
        if not _MAC.fullmatch(digits):
            self.bad(path, value, "is no MAC address")
            return None
        spelt = ":".join(digits[at : at + 2] for at in range(0, 12, 2)).lower()
        self.settings[path] = spelt
        return Fact(Field.MAC, spelt, (path,))

    def size(self, field: Field, path: str, units: Mapping[str, int], unit: str) -> Fact | None:
        """A number of `unit`, in bytes; the setting is in bytes from now on."""
        value = self.settings.get(path)
        if value is None:
            return None
        if not _NUMBER.fullmatch(value) or unit not in units:
            self.bad(path, f"{value} {unit}", "is no size that its format knows")
            return None
        self.settings[path] = str(int(value) * units[unit])
        return Fact(field, self.settings[path], (path,))

    def word(self, field: Field, path: str, words: Mapping[str, str]) -> Fact | None:
        """One of the format's words, in ours."""
        value = self.settings.get(path)
        if value is None:
            return None
        if value not in words:
            self.bad(path, value, "is none of " + ", ".join(words))
            return None
        return Fact(field, words[value], (path,))


def is_under(path: str, root: str) -> bool:
    return path == root or (path.startswith(root) and path[len(root)] in "/.")


def escaped(key: str) -> str:
    """A key within a path: it cannot look like another path."""
    return _IN_PATHS.sub(lambda match: f"%{ord(match[0]):02x}", key)


def unreadable(why: str) -> UsageError:
    """Of a file as a whole."""
    return UsageError(
        f"it cannot be read as a VM's configuration: {why}",
        kind="bad-configuration",
        remedy="is this the right file? --format says what it is",
    )
