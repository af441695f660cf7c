"""Questions of several disks over one conversation, each of which waits for its own answer."""

from __future__ import annotations

import asyncio

from korora.errors import PeerError
from korora.migration.greeting.conversation import Conversation
from korora.protocol import messages
from korora.protocol.dedup import have
from korora.protocol.dedup.have import AnySaid


class Asking:
    """The source's. While `listen` goes on, nobody else receives."""

    def __init__(self, talk: Conversation) -> None:
        self._talk = talk
        self._waiting: dict[str, asyncio.Future[AnySaid]] = {}

    async def ask(self, disk: str, said: AnySaid) -> AnySaid:
        """One question of a disk at a time."""
        answer: asyncio.Future[AnySaid] = asyncio.get_running_loop().create_future()
        self._waiting[disk] = answer
        try:
            await self._talk.say(messages.Parts(disk, have.encode(said)))
            return await answer
        finally:
            answer.cancel()  # who gives up is answered all the same

    async def listen(self) -> None:
        """Hand out what is answered, until it is cancelled. Raises why the destination gives up."""
        while True:
            told = await self._talk.expect(messages.Parts, None)
            waits = self._waiting.pop(told.disk, None)
            if waits is None:
                raise PeerError(
                    f"host {self._talk.channel.peer} answered of {told.disk}, where nothing was asked",
                    kind="out-of-order",
                )
            if not waits.cancelled():
                waits.set_result(have.decode(told.said))
