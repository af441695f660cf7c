"""The files inside of a disk image, as a reader tells of them. Paths are bytes: guests name as they like."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec

MAX_PATH_BYTES = 65_536
MAX_CONTENT_BYTES = 16 << 20
MAX_GATHERED_BYTES = 256 << 20
MAX_PIECE_BYTES = 1 << 20
MAX_RUNS = 4096
Path = Annotated[bytes, msgspec.Meta(max_length=MAX_PATH_BYTES)]
Kind = Literal["file", "directory", "symlink", "character-device", "block-device", "fifo", "socket", "other"]
Place = Annotated[int, msgspec.Meta(ge=0, le=1 << 61)]
Words = Annotated[str, msgspec.Meta(max_length=4096)]


class Volume(msgspec.Struct, frozen=True, tag="volume"):
    """A part of the disk: `start` and `length` in bytes. `files`: whether its files are told of."""

    number: int
    start: int
    length: int
    filesystem: Words
    files: bool


class FileRecord(msgspec.Struct, frozen=True, gc=False, tag="file"):
    """One name in a volume. `mode`: permission bits, setuid and setgid and sticky among them.

    `blake3`, `md5`, `sha256`: of a file's whole content, or None where `problem` says why not, or nobody
    asked (`Beside`). `xattrs`: name → SHA-256 of the value, in hex; None where this file system's are not
    read, or nobody asked.
    """

    volume: int
    path: Path
    kind: Kind
    mode: int
    owner: int
    group: int
    size: int
    links: int
    target: Path = b""
    device: tuple[int, int] | None = None
    xattrs: dict[str, str] | None = None
    blake3: str | None = None
    md5: str | None = None
    problem: Words = ""
    sha256: str | None = None


class Beside(msgspec.Struct, frozen=True):
    """A digest beside BLAKE3, of all files of a volume that has this folder: what lies there states it."""

    algorithm: Literal["md5", "sha256"]
    folder: Path


class Content(msgspec.Struct, frozen=True, gc=False, tag="content"):
    """A file that was asked for: `whole`, or one of its parts, in order, from `offset` on."""

    volume: int
    path: Path
    content: Annotated[bytes, msgspec.Meta(max_length=MAX_CONTENT_BYTES)]
    offset: Annotated[int, msgspec.Meta(ge=0, le=MAX_GATHERED_BYTES)] = 0
    whole: bool = True


class Begun(msgspec.Struct, frozen=True, gc=False, tag="begun"):
    """The content of a file comes, in pieces, before its record."""

    volume: int
    path: Path
    size: int


class Piece(msgspec.Struct, frozen=True, gc=False, tag="piece"):
    """The next bytes of the file that was begun."""

    data: Annotated[bytes, msgspec.Meta(max_length=MAX_PIECE_BYTES)]


class Ended(msgspec.Struct, frozen=True, gc=False, tag="ended"):
    """Nothing more of that file comes: all of it came, or `problem` says why not."""

    problem: Words = ""


class Entire(msgspec.Struct, frozen=True, gc=False, tag="entire"):
    """All of a file in one piece, before its record: as `Begun`, `Piece` and `Ended` together."""

    volume: int
    path: Path
    data: Annotated[bytes, msgspec.Meta(max_length=MAX_PIECE_BYTES)]


class Located(msgspec.Struct, frozen=True, tag="located"):
    """Where a name's content lies on the disk: (offset, length) in bytes; more records may follow for it.

    `path` empty: where the volume itself lies. What is inside of a file system's tables has no runs.
    """

    volume: int
    path: Path
    kind: Kind
    runs: Annotated[tuple[tuple[Place, Place], ...], msgspec.Meta(max_length=MAX_RUNS)]


class Problem(msgspec.Struct, frozen=True, tag="problem"):
    """Something that was not read. While there is one, nothing is known of what lies there."""

    where: Words
    problem: Words


class Done(msgspec.Struct, frozen=True, tag="done"):
    """The reader came to the end; without it, the rest is unknown."""

    files: int


Told: TypeAlias = Volume | FileRecord | Content | Begun | Piece | Ended | Entire | Located | Problem | Done
