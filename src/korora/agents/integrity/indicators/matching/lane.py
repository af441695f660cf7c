"""Look through one lane of bytes for hosts, addresses, URLs and hashes that are known.

Promise: an observable of at most `LONGEST` bytes is found wherever the borders of the pieces lie, once, and
memory is bounded whatever the lines look like: each window is the last `OVERLAP` bytes and the new ones,
and what ends in a window was not reported by the one before. Places that can be the middle of an observable
(a dot between letters, two near colons, "://", hex digits in a row) are found by vector operations; only
there Python looks closer.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import numpy as np

from korora.agents.integrity.indicators.domains import a_label
from korora.agents.integrity.indicators.matching.known import Known
from korora.agents.integrity.indicators.urls import normalised_url
from korora.model.indicator import Force, Kind

LONGEST: Final = 2048
OVERLAP: Final = 4096
_DULL_MAX: Final = 200_000
_HOST_MAX: Final = 253
_V6_MAX: Final = 64
_HOST, _LABEL, _HEX = 1, 2, 4
_DOT, _COLON, _BACKSLASH, _PERCENT = 46, 58, 92, 37
_IPV4: Final = re.compile(rb"(?<![0-9a-z.])[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?![0-9a-z]|\.[0-9a-z])")
_V6_RUN: Final = re.compile(rb"[0-9a-f:.]+")
_SCHEME: Final = re.compile(rb"[a-z][a-z0-9+.-]{0,15}\Z")
_URL_HOST: Final = re.compile(rb"(?:[^/?#\\\s@]*@)?(\[[0-9a-f:.]+\]|[^:/?#\\@\s\[\]\x00\"'<>]*)")
_REST: Final = re.compile(rb"[^\x00-\x20\x7f\"'<>\\^`{|}]*")
_DIGEST: Final = re.compile(rb"(?<![0-9a-z])[0-9a-f]{32,128}(?![0-9a-z])")
_IDN: Final = re.compile(rb"(?<![0-9a-z_.\x80-\xff-])[0-9a-z_.\x80-\xff-]{4,1024}")
_TRAILING: Final = b".,;:!?)]'*"


class Found(NamedTuple):
    """`start` and `end` in the lane."""

    kind: Kind
    value: str
    force: Force
    start: int
    end: int
    seen: bytes


def _class(byte: int) -> int:
    character = chr(byte)
    letter = character.isascii() and (character.isalnum() or character == "_")
    return (
        _HOST * (letter or character in ".-")
        | _LABEL * letter
        | _HEX * (character in "0123456789abcdefABCDEF")
    )


_CLASSES: Final = bytes(map(_class, range(256)))
_Window = tuple[bytes, bytes, "np.ndarray[Any, Any]", "np.ndarray[Any, Any]"]


class Lane:
    """Bytes in, findings out. Places are counted from the first byte of the lane."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._carry = b""
        self._end = 0  # how much of the lane was seen
        self._dull: set[bytes] = set()
        self._readers: list[Callable[[_Window, int, int], Iterator[Found]]] = []
        if known.domains or known.hosts:
            self._readers.append(self._hosts)
        if known.idn:
            self._readers.append(self._international)
        if known.addresses or known.hosts:
            self._readers += [self._v4, self._v6]
        if known.urls:
            self._readers.append(self._urls)
        if known.hashes:
            self._readers.append(self._digests)

    def feed(self, data: bytes) -> list[Found]:
        if not data or not self._readers:
            return []
        return self._look(data, final=False)

    def gap(self, count: int) -> list[Found]:
        """As if `count` bytes came that belong to nothing."""
        found = self.finish()
        self._end += count
        return found

    def finish(self) -> list[Found]:
        """What was held back because more could have followed. The lane may go on."""
        found = self._look(b"\0", final=True) if self._carry and self._readers else []
        self._carry = b""
        return found

    def _look(self, data: bytes, *, final: bool) -> list[Found]:
        whole = self._carry + data
        base = self._end - len(self._carry)
        done = len(self._carry)  # what ends before this was told already
        low = whole.lower()
        window = (
            whole,
            low,
            np.frombuffer(low, np.uint8),
            np.frombuffer(low.translate(_CLASSES), np.uint8),
        )
        found = [
            one._replace(start=one.start + base, end=one.end + base)
            for reader in self._readers
            for one in reader(window, done, len(whole))
        ]
        if not final:
            self._carry = whole[-OVERLAP:]
            self._end += len(data)
        return found

    # -- names -----------------------------------------------------------------------------------------------

    def _hosts(self, window: _Window, done: int, end: int) -> Iterator[Found]:
        _, low, values, classes = window
        dots = np.flatnonzero(values[1:-1] == _DOT) + 1
        dots = dots[(classes[dots - 1] & _LABEL != 0) & (classes[dots + 1] & _LABEL != 0)]
        if not len(dots):
            return
        apart = classes & _HOST == 0
        apart[:-1] |= (values[:-1] == _DOT) & (values[1:] == _DOT)
        breaks = np.flatnonzero(apart)
        places = np.searchsorted(breaks, dots)
        bounds = np.concatenate(([-1], breaks, [end]))
        starts, ends = bounds[places] + 1, bounds[places + 1]
        fresh = (ends >= done) & (ends < end)
        fresh[1:] &= starts[1:] != starts[:-1]
        starts, ends = starts[fresh], ends[fresh]
        dull = self._dull
        for start, stop in zip(starts.tolist(), ends.tolist(), strict=True):
            token = low[start:stop]
            if token not in dull and not token[-1:].isdigit():
                yield from self._token(token, start, window)
        # What an escape (\n, %2f) left at the beginning is no part of a name.
        escaped = np.flatnonzero(np.isin(values[starts - 1], (_BACKSLASH, _PERCENT)))
        for index in escaped.tolist():
            start, stop = int(starts[index]), int(ends[index])
            shift = 2 if low[start - 1] == _PERCENT else 1
            if start and low[start + shift : stop] not in dull:
                yield from self._token(low[start + shift : stop], start + shift, window)

    def _token(self, token: bytes, start: int, window: _Window) -> Iterator[Found]:
        """One run of letters, digits, dots, hyphens; a name ends where it ends."""
        name = token.rstrip(b".-_")
        cut = max(0, len(name) - _HOST_MAX - 1)
        if cut:  # no name is as long: what stands at its end may be one
            cut = name.find(b".", cut) + 1 or len(name)
        tail = name[cut:].lstrip(b".-_")
        at = start + len(name) - len(tail)
        found = list(self._suffixes(tail, at, window[0][at : at + len(tail)]))
        yield from found
        if not found and len(token) <= _HOST_MAX:
            if len(self._dull) >= _DULL_MAX:
                self._dull.clear()
            self._dull.add(token)

    def _suffixes(self, name: bytes, start: int, seen: bytes) -> Iterator[Found]:
        domains, at = self._known.domains, 0
        while True:
            if name[at:] in domains:
                yield Found(Kind.DOMAIN, name[at:].decode(), Force.FULL, start, start + len(name), seen)
            at = name.find(b".", at) + 1
            if not at:
                break
        if name in self._known.hosts:
            yield Found(Kind.URL, name.decode(), Force.HOST, start, start + len(name), seen)

    def _v4(self, window: _Window, done: int, end: int) -> Iterator[Found]:
        """Where three dots follow each other closely."""
        _, low, values, _ = window
        dots = np.flatnonzero(values == _DOT)
        if len(dots) < 3:
            return
        gaps = np.diff(dots)
        near = dots[:-2][(gaps[:-1] <= 4) & (gaps[1:] <= 4)]
        last = 0
        exact, networks, hosts = self._known.exact, self._known.networks.get(4), self._known.hosts
        for dot in near.tolist():
            match = _IPV4.search(low, max(last, dot - 3), dot + 14) if dot >= last else None
            if match is None or match.start() >= dot:
                continue
            last = match.end()
            packed = _packed(socket.AF_INET, match[0]) if done <= last < end else None
            if packed is None:
                continue
            if packed in exact or networks:
                for kind, value in self._known.address(packed):
                    yield Found(kind, value, Force.FULL, *match.span(), match[0])
            if match[0] in hosts:
                yield Found(Kind.URL, match[0].decode(), Force.HOST, *match.span(), match[0])

    def _international(self, window: _Window, done: int, end: int) -> Iterator[Found]:
        """Names that are written in UTF-8, looked up by their A-labels."""
        low = window[1]
        if low.isascii():
            return
        for match in _IDN.finditer(low):
            token = match[0].strip(b".-_")
            if not done <= match.end() < end or token.isascii() or b"." not in token:
                continue
            name = a_label(window[0][match.start() : match.end()].decode("utf-8", "replace").strip(".-_"))
            if name is not None:
                yield from self._suffixes(name.encode(), match.start(), match[0])

    # -- addresses -------------------------------------------------------------------------------------------

    def _v6(self, window: _Window, done: int, end: int) -> Iterator[Found]:
        _, low, values, classes = window
        colons = np.flatnonzero(values == _COLON)
        near = colons[:-1][_of_addresses(np.diff(colons))]
        last = 0
        for colon in near.tolist():
            if colon < last:
                continue
            begin = colon
            while begin > 0 and colon - begin < 5 and classes[begin - 1] & _HEX:
                begin -= 1
            match = _V6_RUN.match(low, begin, begin + _V6_MAX)
            if match is None:
                continue
            middle = last == begin and last > 0  # of a run that is longer than any address
            last = match.end()
            if done <= last < end and not middle:
                yield from self._v6_run(low, match.start(), match[0])

    def _v6_run(self, low: bytes, begin: int, run: bytes) -> Iterator[Found]:
        """The run as it is, and without its first group, which may be a word before: "addr:2001:db8::1"."""
        first = run.find(b":") + 1
        readings = [(begin, run)] if not begin or not low[begin - 1 : begin].isalnum() else []
        if run[first : first + 1] != b":":
            readings.append((begin + first, run[first:]))
        for at, written in readings:
            text = written[:-1] if written.endswith(b":") and not written.endswith(b"::") else written
            text = text.rstrip(b".")
            if b"::" not in text and text.count(b":") != 7 and b"." not in text:
                continue
            packed = _packed(socket.AF_INET6, text)
            told = list(self._known.address(packed)) if packed is not None else []
            for kind, value in told:
                yield Found(kind, value, Force.FULL, at, at + len(text), text)
            if told:
                return

    # -- URLs and hashes -------------------------------------------------------------------------------------

    def _urls(self, window: _Window, done: int, end: int) -> Iterator[Found]:
        whole, low, _, _ = window
        at = low.find(b"://")
        while at >= 0:
            host = _URL_HOST.match(low, at + 3, at + LONGEST)
            if host is not None and self._may_be(host[1]):
                scheme = _SCHEME.search(low, max(0, at - 16), at)
                rest = _REST.match(whole, at + 3, at + LONGEST)
                if scheme is not None and rest is not None and done <= rest.end() < end:
                    yield from self._url(whole, scheme.start(), rest.end())
            at = low.find(b"://", at + 3)

    def _may_be(self, host: bytes) -> bool:
        """A plain host is known or not; any other is for the normalisation to read."""
        return host in self._known.hosts or host[-1:] == b"." or not host.isascii() or b"%" in host

    def _url(self, whole: bytes, start: int, stop: int) -> Iterator[Found]:
        """As it stands, and without what a sentence puts behind it."""
        text = whole[start:stop]
        for written in dict.fromkeys((text, text.rstrip(_TRAILING))):
            url = normalised_url(written.decode("utf-8", "replace"))
            if url is not None and url.encode() in self._known.urls:
                yield Found(Kind.URL, url, Force.FULL, start, start + len(written), written)
                return

    def _digests(self, window: _Window, done: int, end: int) -> Iterator[Found]:
        """Hex digits in a row: 32 of them hold eight of the places that are looked at."""
        _, low, _, classes = window
        sampled = (classes[::4] & _HEX) != 0
        if len(sampled) < 8:
            return
        two = sampled[:-1] & sampled[1:]
        four = two[:-2] & two[2:]
        eight = np.flatnonzero(four[:-4] & four[4:])
        if not len(eight):
            return
        borders = np.flatnonzero(np.diff(eight) > 8)
        firsts = eight[np.concatenate(([0], borders + 1))]
        lasts = eight[np.concatenate((borders, [len(eight) - 1]))]
        for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True):
            for match in _DIGEST.finditer(low, max(0, first * 4 - 3), (last + 8) * 4 + 4):
                kind = self._known.mentioned(match[0]) if done <= match.end() < end else None
                if kind is not None:
                    yield Found(kind, match[0].decode(), Force.MENTION, *match.span(), match[0])


def _of_addresses(gaps: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Which colons may begin an IPv6 address: groups of near ones that hold "::", or seven and more."""
    near = gaps <= 5
    if not near.any():
        return near
    groups = np.flatnonzero(near & ~np.concatenate(([False], near[:-1])))
    lengths = np.add.reduceat(near.astype(np.int64), groups)
    double = np.logical_or.reduceat(gaps == 1, groups)
    wanted = np.zeros(len(gaps), bool)
    member = np.repeat(double | (lengths >= 6), np.diff(np.append(groups, len(gaps))))
    wanted[groups[0] :] |= member & near[groups[0] :]
    return wanted


def _packed(family: socket.AddressFamily, text: bytes) -> bytes | None:
    try:
        return socket.inet_pton(family, text.decode())
    except (OSError, ValueError):
        return None
