"""QEMU's arguments, and its options `driver,key=value,…`, in which a doubled comma stands for one. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from korora.adapters.hypervisor.command_line import escaped

FLAGS: Final = frozenset({"-nodefaults", "-no-reboot", "-no-shutdown", "-no-hpet", "-no-acpi", "-usb"})
HOST_FLAGS: Final = frozenset({"-S", "-daemonize", "-enable-kvm", "-no-user-config", "-nographic", "-s"})


def arguments_of(words: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Each option with its value; None for those that have none."""
    rest = iter(words)
    for word in rest:
        option = word[1:] if word.startswith("--") else word
        yield option, None if option in FLAGS or option in HOST_FLAGS else next(rest, "")


@dataclass(frozen=True, slots=True)
class Options:
    """`kind` is the leading bare word, empty where the first part has a key already."""

    kind: str
    values: dict[str, str]

    def get(self, key: str) -> str | None:
        return self.values.get(key)

    def without(self, *keys: str) -> Options:
        return Options(self.kind, {key: value for key, value in self.values.items() if key not in keys})

    def with_(self, key: str, value: str) -> Options:
        return Options(self.kind, self.values | {key: value})

    def __str__(self) -> str:
        parts = [escaped(self.kind)] if self.kind else []
        return ",".join(parts + [f"{key}={escaped(value)}" for key, value in self.values.items()])


def parse_options(text: str, implied: str = "driver") -> Options:
    """The first part may be bare, or spelled out under its `implied` key; later bare words mean `=on`."""
    kind, values = "", {}
    for key, value in settings_of(text):
        if not key or (key == implied and not kind):
            kind = value
        else:
            values[key] = value
    return Options(kind, values)


def settings_of(text: str) -> Iterator[tuple[str, str]]:
    """Every setting as it is written, also one that is written twice; a bare first word has an empty key."""
    parts = [part.replace("\0", ",") for part in text.replace(",,", "\0").split(",")]
    for index, part in enumerate(parts):
        key, equals, value = part.partition("=")
        if index == 0 and not equals:
            yield "", part
        elif key:
            yield key, value if equals else "on"
