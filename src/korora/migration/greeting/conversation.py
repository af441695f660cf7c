"""One side of the control conversation: typed messages out, expected ones in, aborts turned into errors."""

from __future__ import annotations

from contextlib import suppress
from typing import Final, TypeVar

from korora.errors import KororaError, PeerError, RefusedError, error_of
from korora.ports.channel import Channel
from korora.protocol.messages import Abort, Closed, Message, decode, encode

DEADLINE_S: Final = 60.0  # for an answer that needs no bulk work
VISIT_DEADLINE_S: Final = 120.0  # for what a source sends before anything of its VM is here
LAST_WORD_S: Final = 1.0  # it was on its way already
WORK_DEADLINE_S: Final = 600.0  # for an answer that waits for a hypervisor or a TPM

M = TypeVar("M", bound=Message)
N = TypeVar("N", bound=Message)
K = TypeVar("K", bound=Message)


class Conversation:
    """Send and expect whole messages. After any error the conversation is over."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel

    async def say(self, message: Message) -> bytes:
        """Send; returns the body as it went over the wire.

        When the other side has hung up, its last word says why, if it came: that is raised then.
        """
        body = encode(message)
        try:
            await self.channel.send(body)
        except PeerError as lost:
            raise await self._last_word() or lost from lost
        return body

    async def expect(self, kind: type[M], deadline_s: float | None = DEADLINE_S) -> M:
        """The next message, which must be of this kind. The peer's Abort is raised as the error it names."""
        return (await self.expect_with_body(kind, deadline_s))[0]

    async def expect_with_body(self, kind: type[M], deadline_s: float | None = DEADLINE_S) -> tuple[M, bytes]:
        body = await self.channel.receive(deadline_s)
        message = decode(body)
        if isinstance(message, kind):
            return message, body
        raise self.unexpected(message, kind.__name__)

    async def expect_one_of(
        self,
        kinds: tuple[type[M], type[N]] | tuple[type[M], type[N], type[K]],
        deadline_s: float | None = DEADLINE_S,
    ) -> M | N | K:
        """As `expect`, for an answer of two or three kinds."""
        message = decode(await self.channel.receive(deadline_s))
        if isinstance(message, kinds):
            return message
        raise self.unexpected(message, " or ".join(kind.__name__ for kind in kinds))

    async def listen_for_abort(self) -> None:
        """Wait for the other side to give up, and raise why. Cancel it when its time is over."""
        message = decode(await self.channel.receive(None))
        raise self.unexpected(message, "nothing")

    async def abort(self, error: BaseException) -> None:
        """Tell the other side why this ends. A lost connection says the same, so a failure is no concern."""
        known = error if isinstance(error, KororaError) else KororaError(str(error) or type(error).__name__)
        try:
            await self.say(
                Abort(int(known.exit_code), known.kind[:200], known.message[:2000], known.remedy[:2000])
            )
        except KororaError:
            return

    async def _last_word(self) -> KororaError | None:
        with suppress(KororaError):
            message = decode(await self.channel.receive(LAST_WORD_S))
            if isinstance(message, Abort | Closed):
                return self.unexpected(message, "nothing")
        return None

    def unexpected(self, message: Message, wanted: str) -> KororaError:
        """The error that this message is, where another belongs."""
        peer = self.channel.peer
        if isinstance(message, Abort):
            said = f"host {peer} stopped: {message.message}"
            return error_of(message.exit_code, message.kind, said, message.remedy, None)
        if isinstance(message, Closed):
            return RefusedError(f"host {peer} kept the VM", kind="closed", remedy="see its reason there")
        return PeerError(
            f"host {peer} sent {type(message).__name__} where {wanted} belongs", kind="out-of-order"
        )
