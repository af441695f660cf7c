"""TOML read strictly: every key is taken exactly once, and whatever is left over is refused by its full name.

Pure. Every refusal is UsageError(kind="bad-definition") that names the file and the line or the key.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator

from korora.errors import UsageError

TEXT_MAX_BYTES = 64 * 2**10
PATH_MAX_CHARS = 1024
KEY_MAX_PARTS = 64  # of a dotted key: tomllib takes the square of their number in time
ENTRIES_MAX = 16  # of one [[array of tables]]


def read_toml(text: str, origin: str) -> dict[str, object]:
    if len(text.encode(errors="replace")) > TEXT_MAX_BYTES:
        raise UsageError(
            f"{origin} is longer than {TEXT_MAX_BYTES} bytes",
            kind="bad-definition",
            remedy="is this the right file? A VM definition has a few dozen lines",
        )
    if has_endless_key(text):
        raise UsageError(
            f"{origin} has a key of more than {KEY_MAX_PARTS} parts",
            kind="bad-definition",
            remedy="is this the right file?",
        )
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise UsageError(
            f"{origin} is not valid TOML: {str(error)[:200]}",
            kind="bad-definition",
            remedy="correct the line that the message names",
        ) from error


def has_endless_key(text: str) -> bool:
    """Whether more than `KEY_MAX_PARTS` dots stand where a key may: on one line, with no `=` between them."""
    return any(
        piece.count(".") > KEY_MAX_PARTS
        for line in text.split("\n")
        if line.count(".") > KEY_MAX_PARTS
        for piece in line.split("=")
    )


class StrictTable:
    """One TOML table whose every key must be taken exactly once; `end` refuses what is left."""

    def __init__(self, raw: object, key: str, origin: str) -> None:
        if not isinstance(raw, dict):
            raise wrong(origin, key, f"is {_kind(raw)}", "make it a table")
        self._left = dict(raw)
        self._key = key
        self._origin = origin

    def name(self, key: str) -> str:
        return f"{self._key}.{key}" if self._key else key

    def refuse(self, key: str, what: str, remedy: str) -> UsageError:
        return wrong(self._origin, self.name(key), what, remedy)

    def keys(self) -> list[str]:
        """Those that are left."""
        return list(self._left)

    def has(self, key: str) -> bool:
        return key in self._left

    def take(self, key: str) -> object:
        if key not in self._left:
            raise self.refuse(key, "is missing", "add it")
        return self._left.pop(key)

    def text(self, key: str, default: str | None = None, *, limit: int = 255) -> str:
        if default is not None and key not in self._left:
            return default
        value = self.take(key)
        if not isinstance(value, str):
            raise self.refuse(key, f"is {_kind(value)}", "write a string in quotes")
        if len(value) > limit or any(ord(c) < 0x20 or ord(c) == 0x7F for c in value):
            raise self.refuse(
                key, "is too long or holds control characters", f"use at most {limit} printable characters"
            )
        return value

    def texts(self, key: str, *, limit: int = 512, each: int = 4096) -> tuple[str, ...]:
        """A list of strings; empty where the key is absent."""
        raw = self._left.pop(key, [])
        if not isinstance(raw, list) or len(raw) > limit:
            raise self.refuse(key, f"is {_kind(raw)}", f"write a list of at most {limit} strings")
        items = StrictTable(
            {str(index): item for index, item in enumerate(raw)}, self.name(key), self._origin
        )
        return tuple(items.text(str(index), limit=each) for index in range(len(raw)))

    def matching(self, key: str, pattern: re.Pattern[str], example: str, default: str | None = None) -> str:
        value = self.text(key, default, limit=4096)
        if not pattern.fullmatch(value):
            raise self.refuse(key, f"is {value[:80]!r}, which is not usable", f"write it like {example}")
        return value

    def one_of(self, key: str, choices: tuple[str, ...], default: str) -> str:
        value = self.text(key, default)
        if value not in choices:
            raise self.refuse(key, f"is {value[:80]!r}", "use one of " + ", ".join(choices))
        return value

    def flag(self, key: str, default: bool) -> bool:
        if key not in self._left:
            return default
        value = self.take(key)
        if not isinstance(value, bool):
            raise self.refuse(key, f"is {_kind(value)}", "write true or false")
        return value

    def number(self, key: str, low: int, high: int, default: int) -> int:
        if key not in self._left:
            return default
        value = self.take(key)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.refuse(key, f"is {_kind(value)}", f"write a whole number from {low} to {high}")
        if not low <= value <= high:
            raise self.refuse(key, f"is {str(value)[:40]}", f"use a number from {low} to {high}")
        return value

    def path(self, key: str) -> str:
        value = self.text(key, limit=PATH_MAX_CHARS)
        if not value.startswith("/") or ".." in value.split("/"):
            raise self.refuse(
                key, f"is {value[:80]!r}", "write an absolute path without '..', the same on every host"
            )
        return value

    def optional_path(self, key: str) -> str | None:
        return self.path(key) if self.has(key) else None

    def table(self, key: str) -> StrictTable:
        return StrictTable(self._left.pop(key, {}), self.name(key), self._origin)

    def tables(self, key: str) -> Iterator[StrictTable]:
        raw = self._left.pop(key, [])
        if not isinstance(raw, list):
            raise self.refuse(key, f"is {_kind(raw)}", f"write each one under [[{self.name(key)}]]")
        if len(raw) > ENTRIES_MAX:
            raise self.refuse(key, f"has {len(raw)} entries", f"use at most {ENTRIES_MAX}")
        for index, item in enumerate(raw):
            yield StrictTable(item, f"{self.name(key)}[{index}]", self._origin)

    def end(self) -> None:
        if self._left:
            unknown = ", ".join(repr(self.name(key))[:80] for key in sorted(self._left)[:8])
            raise UsageError(
                f"{self._origin}: unknown key {unknown}",
                kind="bad-definition",
                remedy="remove it or correct its spelling",
            )


def wrong(origin: str, key: str, what: str, remedy: str) -> UsageError:
    return UsageError(f"{origin}: `{key}` {what}", kind="bad-definition", remedy=remedy)


def _kind(value: object) -> str:
    names = {bool: "true or false", int: "a number", str: "a string", list: "a list", dict: "a table"}
    return names.get(type(value), f"a {type(value).__name__}")
