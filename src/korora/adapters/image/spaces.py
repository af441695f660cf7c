"""Memory for requests to NBD servers, of this whole process.

libnbd (1.14) never lets go of a buffer that it was given. So each is used again, by whoever comes next: this
process has as much of it as was ever under way at once.
Limit: what was given to a request that nobody waited for is lost, for it may still be written to.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

from korora.adapters.image import nbd

_LEAST_BYTES: Final = 4096


class Space:
    """Of one user at a time."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._bytes = memoryview(bytearray(capacity))
        self._buffers: dict[tuple[int, int], Any] = {}

    def view(self, length: int) -> memoryview:
        """Its first bytes; valid until it is given back."""
        return self._bytes[:length]

    def requests(self, length: int, first: int, most: int) -> Sequence[tuple[int, Any]]:
        """Its first `length` bytes as buffers: where each begins; one of `first` bytes, then of `most`."""
        cuts = [*([0] if length else []), *range(first, length, most), length]
        return [(begin, self._buffer(begin, end)) for begin, end in pairwise(cuts)]

    def filled(self, data: bytes) -> Any:
        """As a buffer with these bytes."""
        self._bytes[: len(data)] = data
        return self._buffer(0, len(data))

    def _buffer(self, begin: int, end: int) -> Any:
        if (begin, end) not in self._buffers:
            self._buffers[begin, end] = nbd.library().Buffer.from_buffer(self._bytes[begin:end])
        return self._buffers[begin, end]


_free: Final = defaultdict[int, list[Space]](list)


def take(length: int) -> Space:
    """For so many bytes. From any thread."""
    capacity = max(_LEAST_BYTES, 1 << max(length - 1, 0).bit_length())
    try:
        return _free[capacity].pop()
    except IndexError:
        return Space(capacity)


def give(space: Space) -> None:
    """Back, with no request under way that uses it."""
    _free[space.capacity].append(space)
