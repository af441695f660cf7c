"""What every reader shares: its input, its way to tell of an entry, and the bounds. A reader yields, it
raises for nothing but a file that is unreadable as a whole (`UnreadableError`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

from korora.agents.integrity.indicators import values
from korora.model.indicator import Entry, Finding, Kind, Provenance, Severity

LINE_MAX: Final = 1 << 20
DOCUMENT_MAX: Final = 256 << 20
"""JSON is read as a whole."""
TEXT_MAX: Final = 2048
"""Characters of a name, a note, a reference."""
KEPT_MAX: Final = 8192

Item = Entry | Finding
Reader = Callable[[BinaryIO, Provenance], Iterator[Item]]
"""The file, and what is true of each entry of it (source, digest, times of the import)."""


class UnreadableError(Exception):
    """The file as a whole: no JSON, too large. The message says it in a sentence."""


@dataclass(frozen=True, slots=True)
class Line:
    """`number` from 1. `text` is None when it is longer than `LINE_MAX`."""

    number: int
    text: str | None


def lines(file: BinaryIO) -> Iterator[Line]:
    """Line by line, in bounded memory. Bytes that are no UTF-8 are written as escapes."""
    number, dropping = 0, False
    while piece := file.readline(LINE_MAX):
        if dropping:
            dropping = not piece.endswith(b"\n")
            continue
        number += 1
        if len(piece) >= LINE_MAX and not piece.endswith(b"\n"):
            dropping = True
            yield Line(number, None)
            continue
        if number == 1:
            piece = piece.removeprefix(b"\xef\xbb\xbf")
        yield Line(number, piece.decode("utf-8", "backslashreplace").rstrip("\r\n"))


def whole(file: BinaryIO) -> bytes:
    data = file.read(DOCUMENT_MAX + 1)
    if len(data) > DOCUMENT_MAX:
        raise UnreadableError(
            f"it is longer than {DOCUMENT_MAX >> 20} MiB, which is too much to read at once"
        )
    return data.removeprefix(b"\xef\xbb\xbf")


def text_of(value: object, limit: int = TEXT_MAX) -> str:
    """A name or note, shortened; empty when it is no text."""
    if not isinstance(value, str):
        return ""
    plain = value.strip().encode("utf-8", "backslashreplace").decode()
    return plain if len(plain) <= limit else plain[: limit - 1] + "…"


def told(where: str, provenance: Provenance, read: Callable[[], tuple[Kind, str]]) -> Iterator[Item]:
    """The entry that `read` finds, or why there is none."""
    try:
        kind, value = read()
    except values.BadValueError as error:
        yield Finding(Severity.BROKEN, where, str(error))
        return
    except values.UselessValueError as error:
        yield Finding(Severity.REFUSED, where, str(error))
        return
    yield Entry(kind, value, provenance)
    warning = values.warning(kind, value)
    if warning is not None:
        yield Finding(Severity.WARNING, where, warning)


def kept(where: str, provenance: Provenance, what: str, text: str, why: str) -> Iterator[Item]:
    """An indicator that is not matched here: it stays in the store, and says so."""
    value = f"{what}:{text_of(text, KEPT_MAX)}".encode("ascii", "backslashreplace").decode()
    yield Entry(Kind.KEPT, value, provenance)
    yield Finding(Severity.KEPT, where, f"not matched by Korora: {why}")
