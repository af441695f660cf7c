"""The control channel against friends, strangers and impostors, over loopback."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import socket
import ssl
from collections.abc import Awaitable, Callable

import pytest

from fakes.site import TestSite
from korora.adapters.channel import tls
from korora.errors import PeerError, RefusedError
from korora.model.identity import HostName

SITE = TestSite()
OTHER_SITE = TestSite("another site")
Serve = Callable[[tls.TlsChannel], Awaitable[None]]


async def _meet(
    server: tls.TlsIdentity, client: tls.TlsIdentity, expected: str, serve: Serve
) -> tuple[tls.TlsChannel, asyncio.Task[None], socket.socket]:
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)

    async def welcome() -> None:
        connection, _ = await asyncio.get_running_loop().sock_accept(listening)
        channel = await tls.accept(connection, b"", server, deadline_s=5)
        try:
            await serve(channel)
        finally:
            await channel.close()

    task = asyncio.create_task(welcome())
    try:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        channel = await tls.connect(address, HostName(expected), client, deadline_s=5)
    except BaseException:
        await asyncio.gather(task, return_exceptions=True)
        listening.close()
        raise
    return channel, task, listening


async def _end(channel: tls.TlsChannel, task: asyncio.Task[None], listening: socket.socket) -> None:
    await channel.close()
    await asyncio.gather(task, return_exceptions=True)
    listening.close()


async def _echo(channel: tls.TlsChannel) -> None:
    while True:
        await channel.send(await channel.receive(5))


def test_messages_arrive_whole_and_in_order_both_ways() -> None:
    async def story() -> None:
        channel, task, listening = await _meet(SITE.host("b"), SITE.host("a"), "b", _echo)
        bodies = [b"", b"x", os.urandom(16_000), os.urandom(3_000_000), b"last"]
        for body in bodies:
            await channel.send(body)
            assert await channel.receive(5) == body
        await _end(channel, task, listening)

    asyncio.run(story())


def test_both_ends_export_the_same_key_and_know_each_other_by_certificate() -> None:
    async def story() -> None:
        seen: list[tuple[str, bytes, str]] = []

        async def serve(channel: tls.TlsChannel) -> None:
            key = channel.export_key("EXPORTER-korora/1 test", b"context").reveal()
            seen.append((channel.peer, key, channel.tls_group))
            await channel.send(b"done")

        channel, task, listening = await _meet(SITE.host("b"), SITE.host("a"), "b", serve)
        await channel.receive(5)
        assert seen[0][0] == "a"
        assert channel.peer == "b"
        assert seen[0][1] == channel.export_key("EXPORTER-korora/1 test", b"context").reveal()
        assert seen[0][1] != channel.export_key("EXPORTER-korora/1 test", b"other").reveal()
        assert channel.tls_version == "TLSv1.3"
        assert channel.tls_group == seen[0][2] == "X25519MLKEM768"
        await _end(channel, task, listening)

    asyncio.run(story())


@pytest.mark.parametrize(
    ("server", "kind"),
    [
        (SITE.host("c"), "wrong-host"),
        (OTHER_SITE.host("b"), "unknown-authority"),
        (SITE.host("b", since=dt.timedelta(days=-3), until=dt.timedelta(days=-2)), "expired"),
        (SITE.host("b", since=dt.timedelta(days=2), until=dt.timedelta(days=3)), "expired"),
        (SITE.host("b", names=()), "wrong-host"),
        (SITE.host("b", names=("b", "c")), "wrong-host"),
    ],
    ids=["another host", "another site", "expired", "not yet valid", "nameless", "two names"],
)
def test_an_impostor_at_the_destinations_address_is_refused(server: tls.TlsIdentity, kind: str) -> None:
    async def story() -> None:
        with pytest.raises(RefusedError) as caught:
            await _meet(server, SITE.host("a"), "b", _echo)
        assert caught.value.kind == kind
        assert caught.value.remedy

    asyncio.run(story())


def test_a_client_of_another_site_gets_no_channel() -> None:
    async def story() -> None:
        stranger = OTHER_SITE.host("a")
        client = tls.TlsIdentity(stranger.certificate, stranger.key, SITE.certificate)
        channel, task, listening = await _meet(SITE.host("b"), client, "b", _echo)
        with pytest.raises(PeerError):
            await channel.receive(5)
        results = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(results[0], RefusedError)
        assert results[0].kind == "unknown-authority"
        await channel.close()
        listening.close()

    asyncio.run(story())


def test_tls_1_2_is_not_spoken() -> None:
    async def story() -> None:
        listening = socket.create_server(("127.0.0.1", 0))
        listening.setblocking(False)

        async def welcome() -> None:
            connection, _ = await asyncio.get_running_loop().sock_accept(listening)
            await tls.accept(connection, b"", SITE.host("b"), deadline_s=5)

        task = asyncio.create_task(welcome())
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname = False
        old.verify_mode = ssl.CERT_NONE
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("127.0.0.1", listening.getsockname()[1], ssl=old)
        with pytest.raises(PeerError):
            await task
        listening.close()

    asyncio.run(story())


def test_a_silent_peer_is_given_up_at_the_deadline() -> None:
    async def story() -> None:
        async def silent(_channel: tls.TlsChannel) -> None:
            await asyncio.sleep(3)

        channel, task, listening = await _meet(SITE.host("b"), SITE.host("a"), "b", silent)
        with pytest.raises(PeerError) as caught:
            await channel.receive(0.2)
        assert caught.value.kind == "silent"
        task.cancel()
        await _end(channel, task, listening)

    asyncio.run(story())


def test_a_peer_that_takes_nothing_is_given_up_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "SEND_DEADLINE_S", 0.3)

    async def story() -> None:
        stop = asyncio.Event()

        async def deaf(channel: tls.TlsChannel) -> None:
            channel._reader._transport.pause_reading()  # type: ignore[attr-defined]
            await stop.wait()

        channel, task, listening = await _meet(SITE.host("b"), SITE.host("a"), "b", deaf)

        async def flood() -> None:
            for _ in range(64):  # past every buffer on the way
                await channel.send(bytes(1 << 20))

        with pytest.raises(PeerError) as caught:
            await flood()
        assert caught.value.kind == "silent"
        stop.set()
        await _end(channel, task, listening)

    asyncio.run(story())


def test_an_absurd_length_is_refused_before_it_is_read() -> None:
    async def story() -> None:
        async def shout(channel: tls.TlsChannel) -> None:
            channel._tls.sendall(b"\xff\xff\xff\xff")
            await channel._flush()
            await asyncio.sleep(1)

        channel, task, listening = await _meet(SITE.host("b"), SITE.host("a"), "b", shout)
        with pytest.raises(PeerError) as caught:
            await channel.receive(5)
        assert caught.value.kind == "malformed-message"
        task.cancel()
        await _end(channel, task, listening)

    asyncio.run(story())


def test_nobody_at_the_address_is_said_so() -> None:
    async def story() -> None:
        with socket.create_server(("127.0.0.1", 0)) as busy:
            port = busy.getsockname()[1]
        with pytest.raises(PeerError) as caught:
            await tls.connect(f"127.0.0.1:{port}", HostName("b"), SITE.host("a"), deadline_s=5)
        assert caught.value.kind == "unreachable"

    asyncio.run(story())


def test_a_cancelled_receive_loses_nothing() -> None:
    async def story() -> None:
        async def halves(channel: tls.TlsChannel) -> None:
            whole = (5).to_bytes(4, "big") + b"first" + (6).to_bytes(4, "big") + b"second"
            for piece in (whole[:4], whole[4:7], whole[7:]):
                channel._tls.sendall(piece)
                await channel._flush()
                await asyncio.sleep(0.3)

        channel, task, listening = await _meet(SITE.host("b"), SITE.host("a"), "b", halves)
        for _ in range(2):
            with pytest.raises(PeerError):
                await channel.receive(0.2)
        assert await channel.receive(5) == b"first"
        assert await channel.receive(5) == b"second"
        await _end(channel, task, listening)

    asyncio.run(story())
