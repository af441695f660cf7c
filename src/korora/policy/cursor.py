"""Read fixed layouts from bytes, strictly: nothing is read past the end, nothing is left over."""

from __future__ import annotations

from typing import Literal, NoReturn

from korora.errors import IntegrityError


class Cursor:
    """A position in bytes that somebody else wrote. A bad read is an IntegrityError of `kind`."""

    __slots__ = ("_at", "_data", "_kind", "_order", "_what")

    def __init__(self, data: bytes, what: str, kind: str, order: Literal["big", "little"] = "big") -> None:
        self._data, self._what, self._kind, self._order = data, what, kind, order
        self._at = 0

    @property
    def at(self) -> int:
        return self._at

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, size: int) -> bytes:
        if size > self.left:
            self.fail(f"needs {size} bytes at offset {self._at}, has {self.left}")
        start, self._at = self._at, self._at + size
        return self._data[start : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), self._order)

    def sized(self, size_bytes: int = 2) -> bytes:
        """A length and that many bytes (TPM2B_*)."""
        return self.take(self.number(size_bytes))

    def padding(self) -> bool:
        """Whether nothing follows but zeros, or nothing but ones. Eight of them cannot be anything else."""
        if not self.left:
            return True
        filler = self._data[self._at]
        if filler not in {0x00, 0xFF} or self._data[self._at : self._at + 8].count(filler) < min(
            8, self.left
        ):
            return False
        if self._data.count(filler, self._at) != self.left:
            self.fail(f"goes on after padding at offset {self._at}")
        return True

    def end(self) -> None:
        if self.left:
            self.fail(f"has {self.left} bytes too many")

    def fail(self, reason: str) -> NoReturn:
        raise IntegrityError(
            f"the {self._what} is malformed: it {reason}",
            kind=self._kind,
            remedy="fetch it again from its TPM or firmware; if it stays malformed, do not trust that host",
        )
