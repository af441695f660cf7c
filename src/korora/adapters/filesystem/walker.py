"""The program in the sandbox: reads a disk's volumes, and tells of their files on its output.

Records are MessagePack, each after its length (4 bytes, big-endian). Whatever a hostile file system does to
it, it can write records, and end.

Run: python -m korora.adapters.filesystem.walker files|pieces|content|places [ALGORITHM=FOLDER ...] --
    [PATTERN ...]
It begins once it has read, on its input, three words with zero bytes between: `nbd`, SOCKET, EXPORT; or
`file`, FILE, LAYOUT: a file in which the disk's bytes lie, and where. `content`: pieces without digests.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, Final, Protocol

import msgspec

from korora.adapters.filesystem.contents import Contents, Tell, Walked
from korora.adapters.filesystem.disk import Bytes, Disk, exported, in_file, words_of
from korora.adapters.filesystem.holes import Room
from korora.adapters.filesystem.names import name_of
from korora.adapters.filesystem.places import Places
from korora.adapters.filesystem.sleuthkit import SleuthKitVolume
from korora.adapters.filesystem.volumes import Found, found_in
from korora.model.files import Begun, Beside, Done, Ended, FileRecord, Problem, Told, Volume


class Reader(Protocol):
    """A volume of some file system."""

    @property
    def filesystem(self) -> str: ...
    def walk(self, contents: Contents) -> Iterator[Walked]: ...


OUTPUT_BYTES: Final = 1 << 16
_NO_READER = "this file system is not read here"
UNREAD = {"swap": "", "luks": "it is encrypted", "squashfs": _NO_READER, "f2fs": _NO_READER}
"""What is no problem, and why others are."""


def _btrfs(number: int, part: Bytes) -> Reader:
    from korora.adapters.filesystem.btrfs.volume import BtrfsVolume  # a tenth of a second, for who needs it

    return BtrfsVolume(number, part)


def _xfs(number: int, part: Bytes) -> Reader:
    from korora.adapters.filesystem.xfs import XfsVolume

    return XfsVolume(number, part)


READERS: Final[dict[str, Callable[[int, Bytes], Reader]]] = {"btrfs": _btrfs, "xfs": _xfs}


def told_of(
    disk: Disk,
    patterns: Sequence[bytes],
    tell: Tell | None = None,
    *,
    digests: bool = True,
    beside: Sequence[Beside] = (),
) -> Iterator[Told]:
    """`tell` takes the pieces of files' contents; they belong before the record that comes next."""
    files, room = 0, Room()
    for number, found in _numbered(disk):
        if isinstance(found, Problem):
            yield found
            continue
        contents = Contents(patterns, number, tell, digests=digests, room=room, beside=beside)
        for told in _volume(number, found, contents):
            files += isinstance(told, FileRecord)
            yield told
    yield Done(files)


def located_in(disk: Disk) -> Iterator[Told]:
    """Volumes, and where their files lie."""
    files = 0
    for number, found in _numbered(disk):
        if isinstance(found, Problem):
            yield found
            continue
        try:
            places = Places(number, found.lies())
        except (OSError, RuntimeError, ValueError, TypeError) as error:
            yield Problem(f"volume {number}", f"where it lies: {words_of(error)}")
            continue
        yield from places.of_itself()
        for told in _volume(number, found, places):
            files += isinstance(told, FileRecord)
            if not isinstance(told, FileRecord):
                yield told
    yield Done(files)


def _numbered(disk: Disk) -> Iterator[tuple[int, Found | Problem]]:
    number = 0
    for found in found_in(disk):
        number += isinstance(found, Found)
        yield number, found


def _volume(number: int, found: Found, contents: Contents) -> Iterator[Told]:
    called = ""
    try:
        called = name_of(found.content)
        volume = READERS.get(called, SleuthKitVolume)(number, found.content)
    except (OSError, RuntimeError, ValueError) as error:
        yield Volume(number, found.start, found.content.size, called or "unknown", files=False)
        why = UNREAD.get(called, words_of(error))
        if why and not _is_empty(found, called):
            yield Problem(f"volume {number} ({called or 'unknown'})", why)
        return
    yield Volume(number, found.start, found.content.size, volume.filesystem, files=True)
    try:
        for told in volume.walk(contents):
            if isinstance(told, FileRecord) and told.kind == "other" and not told.problem:
                yield msgspec.structs.replace(told, problem="what it is cannot be told")
            else:
                yield told
    except (OSError, RuntimeError, ValueError, RecursionError) as error:
        yield Problem(f"volume {number} ({volume.filesystem})", words_of(error))


def _is_empty(found: Found, called: str) -> bool:
    """Nothing but zeros where a file system would begin: there is none. A BIOS boot partition holds code."""
    try:
        return not called and not any(found.content.read(0, 1 << 17))
    except OSError:
        return False


def _beside(word: str) -> Beside:
    algorithm, _, folder = word.partition("=")
    return msgspec.convert({"algorithm": algorithm, "folder": os.fsencode(folder)}, Beside)


def main(words: Sequence[str], orders: BinaryIO, output: BinaryIO) -> None:
    sys.setrecursionlimit(20_000)
    encoder = msgspec.msgpack.Encoder()

    def tell(told: Told) -> None:
        record = encoder.encode(told)
        output.write(len(record).to_bytes(4, "big"))
        output.write(record)
        if isinstance(told, Volume | Begun | Ended):  # before a long file begins, and once it is over
            output.flush()

    what, *words = words
    end = words.index("--")
    beside = [_beside(word) for word in words[:end]]
    how, one, other = orders.read().decode().split("\0")
    disk = (in_file if how == "file" else exported)(one, other)
    wanted = [os.fsencode(word) for word in words[end + 1 :]]
    if what == "places":
        all_of_it = located_in(disk)
    else:
        all_of_it = told_of(
            disk, wanted, None if what == "files" else tell, digests=what != "content", beside=beside
        )
    for told in all_of_it:
        tell(told)
    output.flush()


if __name__ == "__main__":
    with open(1, "wb", OUTPUT_BYTES, closefd=False) as told:
        main(sys.argv[1:], sys.stdin.buffer, told)
