"""QEMU's comma-separated options, `driver,key=value,…`, in which a doubled comma stands for one. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from korora.adapters.hypervisor.command_line import escaped


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
    parts = [part.replace("\0", ",") for part in text.replace(",,", "\0").split(",")]
    kind, values = "", {}
    for index, part in enumerate(parts):
        key, equals, value = part.partition("=")
        if index == 0 and not equals:
            kind = part
        elif key == implied and equals and not kind:
            kind = value
        elif key:
            values[key] = value if equals else "on"
    return Options(kind, values)
