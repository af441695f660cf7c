"""QMP at its edge: each way in which the other side misbehaves becomes a ToolError within its deadline."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from korora.adapters.hypervisor import stream
from korora.adapters.hypervisor.qmp import Qmp
from korora.errors import ToolError
from korora.ports.hypervisor import StreamSettings, StreamState

VERSION = {"qemu": {"major": 7, "minor": 2, "micro": 22}, "package": ""}
GREETING = {"QMP": {"version": VERSION, "capabilities": []}}
Answer = Callable[[str], object]


class Server:
    """A QMP server that answers each command by `answer`: a value, an exception to refuse, or SILENT."""

    SILENT = object()
    HANG_UP = object()

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.asked: list[dict[str, object]] = []
        self._writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        self._say(writer, GREETING)
        async for command in commands(reader):
            self.asked.append(command)
            found = {} if command["execute"] == "qmp_capabilities" else self._answer(command["execute"])
            if found is self.HANG_UP:
                break
            if isinstance(found, Exception):
                error = {"class": "GenericError", "desc": str(found)}
                self._say(writer, {"error": error, "id": command.get("id")})
            elif found is not self.SILENT:
                self._say(writer, {"return": found, **({"id": command["id"]} if "id" in command else {})})
        writer.close()

    def event(self, name: str, data: dict[str, object]) -> None:
        stamp = {"seconds": 1, "microseconds": 0}
        for writer in self._writers:
            self._say(writer, {"event": name, "data": data, "timestamp": stamp})

    @staticmethod
    def _say(writer: asyncio.StreamWriter, message: object) -> None:
        writer.write(json.dumps(message).encode() + b"\r\n")


async def commands(reader: asyncio.StreamReader) -> AsyncIterator[dict[str, Any]]:
    """JSON objects as they come: a client need not end them with a newline."""
    text = ""
    while more := await reader.read(65536):
        text = (text + more.decode()).lstrip()
        with contextlib.suppress(ValueError):
            while text:
                found, end = json.JSONDecoder().raw_decode(text)
                text = text[end:].lstrip()
                yield found


def talk(answer: Answer, story: Callable[[Qmp, Server], Awaitable[None]]) -> Server:
    server = Server(answer)

    async def whole() -> None:
        with tempfile.TemporaryDirectory(prefix="korora-qmp-") as name:
            path = Path(name) / "qmp.sock"
            listening = await asyncio.start_unix_server(server.serve, path)
            qmp = await Qmp.connect(path, 5)
            try:
                async with asyncio.timeout(10):
                    await story(qmp, server)
            finally:
                await qmp.close()
                listening.close()

    asyncio.run(whole())
    return server


def test_the_peers_pid_is_the_kernels_word() -> None:
    async def story(qmp: Qmp, _: Server) -> None:
        assert qmp.peer_pid == os.getpid()

    talk(lambda _: {}, story)


def test_an_event_that_comes_before_the_greetings_answer_is_no_failure(tmp_path: Path) -> None:
    class Eager(Server):
        async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if self._writers:
                await super().serve(reader, writer)
                return
            self._writers.append(writer)
            self._say(writer, GREETING)
            await reader.read(1)
            self.event("RESUME", {})
            self._say(writer, {"return": {}})
            await reader.read()
            writer.close()

    async def story() -> None:
        server = Eager(lambda _: {"status": "running"})
        listening = await asyncio.start_unix_server(server.serve, tmp_path / "q")
        async with asyncio.timeout(30):
            qmp = await Qmp.connect(tmp_path / "q", 20)
            assert await qmp.execute("query-status") == {"status": "running"}
            await qmp.close()
        listening.close()

    asyncio.run(story())


def test_a_refusal_carries_qemus_reason() -> None:
    async def story(qmp: Qmp, _: Server) -> None:
        with pytest.raises(ToolError, match="no such thing") as caught:
            await qmp.execute("cont")
        assert caught.value.kind == "qmp-refused"
        assert await qmp.execute("query-status") == {}

    talk(lambda command: ValueError("no such thing") if command == "cont" else {}, story)


def test_silence_ends_at_the_deadline_and_the_connection_stays_of_use() -> None:
    async def story(qmp: Qmp, _: Server) -> None:
        with pytest.raises(ToolError) as caught:
            await qmp.execute("stop", deadline_s=0.1)
        assert caught.value.kind == "qmp-silent"
        assert await qmp.execute("query-status") == {}

    talk(lambda command: Server.SILENT if command == "stop" else {}, story)


def test_a_lost_connection_is_said_now_and_ever_after() -> None:
    async def story(qmp: Qmp, _: Server) -> None:
        for _attempt in range(2):
            with pytest.raises(ToolError) as caught:
                await qmp.execute("stop")
            assert caught.value.kind == "qmp-gone"
        await qmp.close()

    talk(lambda _: Server.HANG_UP, story)


def test_a_socket_that_another_client_holds_is_named_in_the_remedy(tmp_path: Path) -> None:
    async def story() -> None:
        async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        listening = await asyncio.start_unix_server(mute, tmp_path / "q")
        with pytest.raises(ToolError) as caught:
            await Qmp.connect(tmp_path / "q", 0.2)
        assert caught.value.kind == "qmp-unreachable"
        assert "one at a time" in caught.value.remedy
        listening.close()

    asyncio.run(story())


def test_what_speaks_no_qmp_is_refused(tmp_path: Path) -> None:
    async def story() -> None:
        async def ssh(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
            writer.close()

        listening = await asyncio.start_unix_server(ssh, tmp_path / "q")
        with pytest.raises(ToolError) as caught:
            await Qmp.connect(tmp_path / "q", 5)
        assert caught.value.kind == "qmp-unreachable"
        listening.close()

    asyncio.run(story())


def test_connecting_waits_for_the_socket_only_while_somebody_may_open_it(tmp_path: Path) -> None:
    async def story() -> None:
        with pytest.raises(ToolError):
            await Qmp.connect(tmp_path / "none", 0.1)
        async with asyncio.timeout(30):
            with pytest.raises(ToolError):
                await Qmp.connect(tmp_path / "none", 60, alive=lambda: False)

    asyncio.run(story())


def test_a_socket_in_a_very_deep_directory_is_reached(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)

    async def story() -> None:
        server = Server(lambda _: {})
        here = os.open(deep, os.O_PATH)
        listening = await asyncio.start_unix_server(server.serve, f"/proc/self/fd/{here}/q")
        qmp = await Qmp.connect(deep / "q", 5)
        await qmp.close()
        listening.close()
        os.close(here)

    asyncio.run(story())


def test_a_qemu_without_the_needed_capabilities_sends_nothing() -> None:
    async def story(qmp: Qmp, _: Server) -> None:
        with pytest.raises(ToolError, match="return-path") as caught:
            await stream.send(qmp, Path("/s"), None, StreamSettings())
        assert caught.value.kind == "qemu-too-old"

    server = talk(lambda command: [] if command == "query-migrate-capabilities" else {}, story)
    assert "migrate" not in [command["execute"] for command in server.asked]


def _needed_only(command: str) -> object:
    if command == "query-migrate-capabilities":
        return [{"capability": name, "state": False} for name in stream.NEEDED]
    return {}


def test_a_stream_leaves_by_a_connected_descriptor(tmp_path: Path) -> None:
    async def story(qmp: Qmp, _: Server) -> None:
        with socket.socket(socket.AF_UNIX) as relay:
            relay.bind(str(tmp_path / "s"))
            relay.listen(1)
            await stream.send(qmp, tmp_path / "s", None, StreamSettings())
            relay.accept()[0].close()

    asked = talk(_needed_only, story).asked
    assert [command["execute"] for command in asked[-2:]] == ["getfd", "migrate"]
    assert asked[-1]["arguments"] == {"uri": "fd:korora-stream"}


def test_with_several_channels_the_hypervisor_connects_by_itself(tmp_path: Path) -> None:
    async def story(qmp: Qmp, _: Server) -> None:
        await stream.send(qmp, tmp_path / "s", tmp_path, StreamSettings(channels=2))

    asked = talk(_needed_only, story).asked
    assert asked[-1] == {**asked[-1], "execute": "migrate", "arguments": {"uri": "unix:s"}}


def test_a_stream_that_nobody_listens_for_does_not_begin(tmp_path: Path) -> None:
    async def story(qmp: Qmp, _: Server) -> None:
        with pytest.raises(ToolError, match="nobody listens") as caught:
            await stream.send(qmp, tmp_path / "s", None, StreamSettings())
        assert caught.value.kind == "stream-socket"

    assert "migrate" not in [command["execute"] for command in talk(_needed_only, story).asked]


def test_a_refused_stream_takes_its_descriptor_back(tmp_path: Path) -> None:
    def refusing(command: str) -> object:
        return ValueError("busy") if command == "migrate" else _needed_only(command)

    async def story(qmp: Qmp, _: Server) -> None:
        with socket.socket(socket.AF_UNIX) as relay:
            relay.bind(str(tmp_path / "s"))
            relay.listen(1)
            with pytest.raises(ToolError, match="busy"):
                await stream.send(qmp, tmp_path / "s", None, StreamSettings())

    assert talk(refusing, story).asked[-1]["execute"] == "closefd"


def test_states_follow_events_and_each_is_told_once() -> None:
    async def story(qmp: Qmp, server: Server) -> None:
        seen = []
        async for state in stream.states(qmp, Alive()):
            seen.append(state)
            if len(seen) == 1:
                for status in ("active", "active", "pre-switchover", "device", "unheard-of", "completed"):
                    server.event("MIGRATION", {"status": status})
        s = StreamState
        assert seen == [s.NONE, s.ACTIVE, s.PRE_SWITCHOVER, s.DEVICE, s.ACTIVE, s.COMPLETED]

    talk(lambda _: {}, story)


def test_a_state_whose_event_was_lost_is_found_by_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "POLL_S", 0.02)
    told = iter([{"status": "active"}, {"status": "active"}, {"status": "failed", "error-desc": "cut"}])

    async def story(qmp: Qmp, _: Server) -> None:
        assert [state async for state in stream.states(qmp, Alive())] == [
            StreamState.ACTIVE,
            StreamState.FAILED,
        ]

    talk(lambda _: next(told), story)


def test_a_silent_qemu_at_switchover_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "POLL_S", 0.02)
    monkeypatch.setattr(stream, "ASK_DEADLINE_S", 0.05)
    told = iter([{"status": "device"}, Server.SILENT, Server.SILENT, {"status": "completed"}])

    async def story(qmp: Qmp, _: Server) -> None:
        assert [state async for state in stream.states(qmp, Alive())][-1] is StreamState.COMPLETED

    talk(lambda _: next(told), story)


def test_a_cancel_that_never_takes_effect_is_a_tool_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "CANCEL_DEADLINE_S", 0.1)

    async def story(qmp: Qmp, _: Server) -> None:
        with pytest.raises(ToolError) as caught:
            await stream.cancel(qmp)
        assert caught.value.kind == "qmp-silent"

    talk(lambda _: {"status": "cancelling"}, story)


class Alive:
    """A process that does not end."""

    is_gone = False
