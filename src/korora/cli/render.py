"""Print for people and for scripts. Lines and JSON on standard output, errors on standard error.

Promise: text from elsewhere cannot move the cursor or colour the terminal, and a reader that left (`| head`)
does not change the exit code. Limit: knows nothing of what it prints.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection, Iterable, Sequence
from typing import Any, TextIO

from korora.errors import KororaError

_MESSAGE_CHARS = 4000
_KEPT = {ord("\n"), ord("\t")}
_UNWRITTEN: list[str] = []


def say(text: str = "") -> None:
    """One line, or several, on standard output."""
    _write(sys.stdout, clean(text))


def warn(text: str) -> None:
    """One line on standard error that is not an error."""
    _write(sys.stderr, clean(text))


def say_json(value: Any) -> None:
    """One JSON document on one line. Structs, dataclasses and paths are welcome."""
    import msgspec

    built = msgspec.to_builtins(value, enc_hook=str, str_keys=True)
    # ASCII: names may hold what the locale, or UTF-8 itself, cannot write.
    _write(sys.stdout, json.dumps(built))


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Left-aligned columns under a header; an empty cell shows as a dash, and no cell makes a line."""
    cells = [[one_line(_cell(value)) for value in row] for row in rows]
    widths = [max(len(line[column]) for line in [list(header), *cells]) for column in range(len(header))]
    for line in [list(header), *cells]:
        say("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def fields(pairs: Iterable[tuple[str, object]]) -> None:
    """Name and value, one pair a line; pairs without a value are left out."""
    shown = [(name, _cell(value)) for name, value in pairs if value not in (None, "", ())]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        say(f"{name.ljust(width)}  {value}")


def mark(good: bool | None) -> str:
    """✓, ✗, or – for what was not looked at."""
    return "–" if good is None else "✓" if good else "✗"


def same(found: Collection[object], *, all_read: bool) -> bool | None:
    """Whether nothing was `found` to differ; None where nothing was, and not everything was read."""
    return False if found else True if all_read else None


def error_text(error: KororaError) -> str:
    """What happened, where the VM runs now, and what to do."""
    lines = [f"korora: {_short(error.message)}"]
    if error.vm_runs_on:
        lines.append(f"  the VM runs on: {_short(error.vm_runs_on)}")
    if error.remedy:
        lines.append(f"  what to do: {_short(error.remedy)}")
    return "\n".join(lines)


def error_object(error: KororaError) -> dict[str, object]:
    """The same as facts, as the daemon's API spells them."""
    return {
        "kind": error.kind,
        "message": error.message,
        "remedy": error.remedy,
        "vm_runs_on": error.vm_runs_on,
        "exit_code": int(error.exit_code),
    }


def clean(text: str) -> str:
    """The text without control characters and without half characters, which a terminal could obey."""
    return "".join(_visible(character) for character in text)


def one_line(text: str) -> str:
    """As `clean`, with its line ends and tabs written out: words from a guest make no line of their own."""
    return clean(text.replace("\n", "\\n").replace("\t", "\\t"))


def size(count: float | None) -> str:
    """Bytes for people: `1.5 GiB`."""
    if count is None:
        return "–"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def milliseconds(value: float | None) -> str:
    """`87 ms`, `4.2 s` or `3 min 5 s`."""
    if value is None:
        return "–"
    if value < 1000:
        return f"{value:.0f} ms"
    if value < 120_000:
        return f"{value / 1000:.1f} s"
    minutes, seconds = divmod(round(value / 1000), 60)
    return f"{minutes} min {seconds} s"


def unwritten() -> str | None:
    """Why not all could be written, such as a full disk; None when it was, or when the reader left."""
    return _UNWRITTEN[0] if _UNWRITTEN else None


def _write(stream: TextIO, text: str) -> None:
    """What was asked for is done to its end, whatever becomes of the output."""
    try:
        print(text, file=stream, flush=True)
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            _UNWRITTEN.append(error.strerror or str(error))
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, stream.fileno())
        os.close(sink)


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "–" if value in (None, "") else str(value)


def _short(text: str) -> str:
    return text if len(text) <= _MESSAGE_CHARS else f"{text[:_MESSAGE_CHARS]} … ({len(text)} characters)"


def _visible(character: str) -> str:
    code = ord(character)
    if code in _KEPT:
        return character
    # C0 and C1 controls, bidirectional overrides, lone surrogates.
    hidden = code < 0x20 or 0x7F <= code < 0xA0 or 0x202A <= code <= 0x202E or 0x2066 <= code <= 0x2069
    return f"\\u{code:04x}" if hidden or 0xD800 <= code < 0xE000 else character
