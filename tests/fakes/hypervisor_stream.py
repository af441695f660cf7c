"""The fake's own migration stream, over unix sockets and with a return path, as QEMU's has.

Main channel: MAGIC, channel count, size; the guest's memory; the rest (device state, with its digest). Each
further channel carries its share of the memory behind its number. The destination answers OK on the main
channel. As with QEMU, memory changed on the way is not noticed here.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

MAGIC = b"FAKEGUEST1"
CHANNEL = b"FAKECHANNEL"
OK = b"LOADED"
HEAD = struct.Struct(">10sIQ")
REST = struct.Struct(">I32s")
PIECE_BYTES = 64 * 2**10

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class GarbledError(Exception):
    """The bytes are not a fake guest."""


async def send_guest(
    socket: Path,
    channels: int,
    memory: bytes,
    halfway: Callable[[], Awaitable[None]],
    before_the_rest: Callable[[], Awaitable[bytes]],
    count: Callable[[int], None],
) -> None:
    """Returns after the destination's OK; GarbledError, EOFError or OSError otherwise."""
    async with contextlib.AsyncExitStack() as opened:
        main = await _connect(socket, opened)
        reader, writer = main
        writer.write(HEAD.pack(MAGIC, channels, len(memory)))
        shares = _shares(len(memory), channels)
        writers = [writer]
        for number in range(channels):
            _, extra = await _connect(socket, opened)
            extra.write(CHANNEL + bytes([number]))
            writers.append(extra)
        answer = asyncio.create_task(reader.readexactly(len(OK)))
        opened.callback(answer.cancel)
        await _pour(memory, shares, writers[-len(shares) :], halfway, count)
        rest = await _unless_cut(answer, before_the_rest())
        digest = hashlib.sha256(rest).digest()
        writer.write(REST.pack(len(rest), digest) + rest)
        await writer.drain()
        writer.write_eof()
        if await answer != OK:
            raise GarbledError("the destination did not load it")


async def receive_guest(
    socket: Path,
    channels: int,
    ready: asyncio.Future[None],
    began: Callable[[], None],
    loaded: Callable[[bytes, bytes], Awaitable[None]],
) -> None:
    """Listen, take one guest, answer OK. GarbledError or EOFError on anything else."""
    arrivals: asyncio.Queue[Connection] = asyncio.Queue()

    async def arrived(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await arrivals.put((reader, writer))

    server = await asyncio.start_unix_server(arrived, str(socket))
    taken: list[Connection] = []
    ready.set_result(None)
    try:
        for _ in range(1 + channels):
            taken.append(await arrivals.get())
            began()
        await _take(taken, loaded)
    finally:
        server.close()
        for _, writer in taken:
            writer.close()
        socket.unlink(missing_ok=True)


async def _take(taken: list[Connection], loaded: Callable[[bytes, bytes], Awaitable[None]]) -> None:
    reader, writer = taken[0]
    magic, channels, size = HEAD.unpack(await reader.readexactly(HEAD.size))
    if magic != MAGIC or channels != len(taken) - 1:
        raise GarbledError("not a migration stream")
    readers = {-1: reader}
    for extra, _ in taken[1:]:
        named = await extra.readexactly(len(CHANNEL) + 1)
        if named[:-1] != CHANNEL:
            raise GarbledError("not a channel of this stream")
        readers[named[-1]] = extra
    ordered = [readers[number] for number in range(channels)] if channels else [reader]
    shares = _shares(size, channels)
    pieces = await asyncio.gather(
        *(source.readexactly(end - start) for source, (start, end) in zip(ordered, shares, strict=True))
    )
    memory = b"".join(pieces)
    length, digest = REST.unpack(await reader.readexactly(REST.size))
    rest = await reader.readexactly(length)
    if hashlib.sha256(rest).digest() != digest:
        raise GarbledError("section footer error")
    await loaded(memory, rest)
    writer.write(OK)
    await writer.drain()


async def _connect(socket: Path, opened: contextlib.AsyncExitStack) -> Connection:
    reader, writer = await asyncio.open_unix_connection(str(socket))
    opened.callback(writer.close)
    return reader, writer


def _shares(size: int, channels: int) -> list[tuple[int, int]]:
    """Each channel's part of the memory; without further channels the main one carries it all."""
    parts = max(1, channels)
    return [(size * part // parts, size * (part + 1) // parts) for part in range(parts)]


async def _pour(
    memory: bytes,
    shares: list[tuple[int, int]],
    writers: list[asyncio.StreamWriter],
    halfway: Callable[[], Awaitable[None]],
    count: Callable[[int], None],
) -> None:
    for part, ((start, end), writer) in enumerate(zip(shares, writers, strict=True)):
        for offset in range(start, end, PIECE_BYTES):
            if part == 0 and offset <= (start + end) // 2 < offset + PIECE_BYTES:
                await halfway()
            piece = memory[offset : min(end, offset + PIECE_BYTES)]
            writer.write(piece)
            await writer.drain()
            count(len(piece))


async def _unless_cut(answer: asyncio.Task[bytes], wanted: Awaitable[bytes]) -> bytes:
    """`wanted`, unless the destination hangs up while we wait for it."""
    waiting = asyncio.ensure_future(wanted)
    try:
        await asyncio.wait({answer, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            answer.result()
            raise GarbledError("the destination answered too early")
        return waiting.result()
    finally:
        waiting.cancel()
