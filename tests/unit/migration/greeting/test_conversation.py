"""What one side hears when the other has hung up in the middle of its sentence."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from korora.errors import KororaError, PeerError, RefusedError
from korora.migration.greeting.conversation import Conversation
from korora.ports.channel import Channel
from korora.protocol.messages import Abort, Open, encode


class HungUp:
    """A channel that takes nothing any more, and has `left` still to be read."""

    peer = "b"

    def __init__(self, *left: bytes) -> None:
        self._left = list(left)

    async def send(self, _body: bytes) -> None:
        raise PeerError("the connection is gone", kind="gone")

    async def receive(self, _deadline_s: float | None) -> bytes:
        if not self._left:
            raise PeerError("nothing comes", kind="stalled")
        return self._left.pop(0)


def said_to(channel: HungUp) -> KororaError:
    with pytest.raises(KororaError) as caught:
        asyncio.run(Conversation(cast(Channel, channel)).say(Open()))
    return caught.value


def test_the_reason_that_was_on_its_way_is_the_reason() -> None:
    error = said_to(HungUp(encode(Abort(3, "pcr-mismatch", "PCR 4 is another", "look"))))
    assert isinstance(error, RefusedError)
    assert (error.kind, error.remedy) == ("pcr-mismatch", "look")


@pytest.mark.parametrize("left", [(), (b"no message",), (encode(Open()),)])
def test_without_a_last_word_the_loss_is_the_reason(left: tuple[bytes, ...]) -> None:
    assert said_to(HungUp(*left)).kind == "gone"
