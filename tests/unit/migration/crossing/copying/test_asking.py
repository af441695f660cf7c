"""Each answer reaches whoever asked, and one that nobody asked for ends it."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from korora.errors import PeerError
from korora.migration.crossing.copying.asking import Asking
from korora.protocol import messages
from korora.protocol.dedup import have
from korora.protocol.dedup.have import Held


class Talk:
    def __init__(self) -> None:
        self.said: asyncio.Queue[messages.Parts] = asyncio.Queue()
        self.heard: asyncio.Queue[messages.Parts] = asyncio.Queue()
        self.channel = cast(Any, type("Channel", (), {"peer": "b"}))

    async def say(self, message: messages.Parts) -> None:
        await self.said.put(message)

    async def expect(self, kind: type, _: float | None) -> messages.Parts:
        return await self.heard.get()


def test_an_answer_to_who_has_given_up_is_no_news() -> None:
    async def story() -> None:
        talk = Talk()
        asking = Asking(cast(Any, talk))
        listening = asyncio.create_task(asking.listen())
        asked = asyncio.create_task(asking.ask("a", Held(0, b"\x80")))
        told = await talk.said.get()
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        await talk.heard.put(told)
        assert not (await asyncio.wait([listening], timeout=0.2))[0]
        await talk.heard.put(told)
        with pytest.raises(PeerError, match="nothing was asked"):
            await listening

    asyncio.run(story())


def test_answers_reach_whoever_asked_and_one_that_nobody_awaits_ends_it() -> None:
    async def story() -> None:
        talk = Talk()
        asking = Asking(cast(Any, talk))
        listening = asyncio.create_task(asking.listen())
        questions = {name: Held(number, b"\x80") for number, name in enumerate("ab")}
        tasks = {name: asyncio.create_task(asking.ask(name, said)) for name, said in questions.items()}
        told = [await talk.said.get() for _ in tasks]
        assert {one.disk: have.decode(one.said) for one in told} == questions
        for one in reversed(told):
            await talk.heard.put(one)
        assert {name: await task for name, task in tasks.items()} == questions
        await talk.heard.put(told[0])
        with pytest.raises(PeerError, match="nothing was asked") as refused:
            await listening
        assert refused.value.kind == "out-of-order"

    asyncio.run(story())
