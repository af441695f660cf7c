"""One live vTPM as the daemon holds it: orders to its interposer, and questions to the TPM between the
guest's.

Promise: every order is answered within a deadline or is a ToolError; nothing here keeps a connection, so
the daemon may come and go. Limit: identity() reads PCRs, NV and permanent state one after the other: of
one moment only while the VM is paused.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from korora.agents.vtpm.interposer import command_socket as wire
from korora.agents.vtpm.interposer import tpm_commands
from korora.errors import IntegrityError, PeerError, ToolError, error_of
from korora.model.evidence import BlobDigests, PcrValues, VtpmIdentity
from korora.model.identity import Digest, Secret
from korora.ports.vtpm import BlobBinding
from korora.protocol.vtpm_blob import BlobType

ANSWER_WITHIN_S = 60.0  # a guest's RSA key, made under emulation on a busy host, comes first
_PCR_COUNT = 24
_NV_PIECE = 512
_BUSY_ATTEMPTS, _BUSY_PAUSE_S = 50, 0.01

Ask = Callable[[bytes], Awaitable[bytes]]  # one TPM command, and its response


class LiveVtpm:
    """`korora.ports.vtpm.Vtpm` through an interposer's command socket."""

    def __init__(self, hypervisor_socket: Path, command_socket: Path) -> None:
        self._socket, self._commands = hypervisor_socket, command_socket

    @property
    def socket(self) -> Path:
        return self._socket

    async def ready(self) -> None:
        if not (await self.status()).tpm_alive:
            log = self._commands.with_name("swtpm.log")
            raise ToolError(f"swtpm did not start: see {log}", kind="vtpm-gone")

    async def identity(self) -> VtpmIdentity:
        """Empty but for `permanent` while the guest's firmware has not started the TPM yet (TPM2_Startup).

        ToolError(kind="vtpm-not-running") before the hypervisor has initialised it, or while a guest resets.
        """
        async with self._talk() as ask:
            if await _is_unstarted(ask):
                return VtpmIdentity("", {}, {}, await self._permanent())
            ek_name, pcrs, nv = await _ek_name(ask), await _pcrs(ask), await _nv_names(ask)
        return VtpmIdentity(ek_name, pcrs, nv, await self._permanent())

    async def endorsement_certificate(self) -> bytes | None:
        """DER of the RSA EK's certificate; None if there is none."""
        async with self._talk() as ask:
            return await _endorsement_certificate(ask)

    async def send_under(self, key: Secret, binding: BlobBinding) -> None:
        """RefusedError when the key has served before, or the vTPM is not at home."""
        await self._order(wire.SendUnder(key.reveal(), binding.vm, binding.session, binding.epoch))

    async def accept_under(self, key: Secret, binding: BlobBinding) -> None:
        """RefusedError when the key has served before, or the vTPM did not start as an incoming one."""
        await self._order(wire.AcceptUnder(key.reveal(), binding.vm, binding.session, binding.epoch))

    async def accept_bare(self) -> None:
        """RefusedError when the vTPM did not start as an incoming one."""
        await self._order(wire.AcceptBare())

    async def moved(self) -> BlobDigests:
        status = await self.status()
        arriving = status.mode in ("awaiting", "accepting")
        if status.reason or arriving or set(status.digests) != {kind.label for kind in BlobType}:
            raise _not_moved(status)
        return BlobDigests(**{name: Digest(digest) for name, digest in status.digests.items()})

    async def stay(self) -> None:
        await self._order(wire.Stay())

    async def retire(self) -> None:
        """What lies at rest stays until `wipe`: the ownership journal says whether it may start again."""
        await self._order(wire.Retire())

    async def status(self) -> wire.Status:
        answer = await self._order(wire.GetStatus())
        if not isinstance(answer, wire.Status):
            raise PeerError("the interposer gave no status", kind="bad-answer")
        return answer

    async def end(self) -> None:
        """Ask the interposer to end, and its swtpm with it."""
        await self._order(wire.End())

    async def _permanent(self) -> Digest:
        answer = await self._order(wire.GetPermanent())
        if not isinstance(answer, wire.Permanent):
            raise PeerError("the interposer gave no digest", kind="bad-answer")
        return Digest(answer.digest)

    async def _order(self, order: wire.Orders) -> wire.Answers:
        async with self._connected() as (reader, writer):
            return await _asked(reader, writer, order)

    @asynccontextmanager
    async def _talk(self) -> AsyncIterator[Ask]:
        """Several TPM commands over one connection."""
        async with self._connected() as (reader, writer):

            async def ask(command: bytes) -> bytes:
                for _ in range(_BUSY_ATTEMPTS):
                    answer = await _asked(reader, writer, wire.Execute(command))
                    if not isinstance(answer, wire.Response):
                        raise PeerError("the interposer gave no response", kind="bad-answer")
                    if tpm_commands.response_code(answer.response) not in tpm_commands.RC_BUSY:
                        return answer.response
                    await asyncio.sleep(_BUSY_PAUSE_S)
                raise ToolError("the vTPM stays busy", kind="vtpm-busy", remedy="try again")

            yield ask

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        try:
            # Through the directory's descriptor: the path itself may be longer than sun_path's 107 bytes.
            directory = os.open(self._commands.parent, os.O_PATH | os.O_DIRECTORY)
            try:
                path = f"/proc/self/fd/{directory}/{self._commands.name}"
                reader, writer = await asyncio.open_unix_connection(path)
            finally:
                os.close(directory)
        except OSError as error:
            raise _gone() from error
        try:
            yield reader, writer
        finally:
            writer.close()


async def _asked(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, order: wire.Orders
) -> wire.Answers:
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            writer.write(wire.encode(order))
            await writer.drain()
            prefix = await reader.readexactly(wire.LENGTH.size)
            answer = wire.decode_answer(await reader.readexactly(wire.body_length(prefix)))
    except TimeoutError as error:
        raise ToolError(
            f"the vTPM's interposer gave no answer within {ANSWER_WITHIN_S:.0f} s",
            kind="vtpm-silent",
            remedy="see vtpm/interposer.log of the VM; restart the VM if its TPM does not come back",
        ) from error
    except (OSError, EOFError) as error:
        raise _gone() from error
    if isinstance(answer, wire.Failed):
        raise error_of(answer.exit_code, answer.kind, answer.message, "", None)
    return answer


async def _is_unstarted(ask: Ask) -> bool:
    return tpm_commands.response_code(await ask(tpm_commands.pcr_read([0]))) == tpm_commands.RC_INITIALIZE


async def _ek_name(ask: Ask) -> str:
    response = await ask(tpm_commands.read_public(tpm_commands.EK_HANDLE))
    if tpm_commands.response_code(response) == tpm_commands.RC_HANDLE_1:
        return ""
    return tpm_commands.parse_name(response)


async def _pcrs(ask: Ask) -> PcrValues:
    values: PcrValues = {}
    while missing := [pcr for pcr in range(_PCR_COUNT) if pcr not in values]:
        read = tpm_commands.parse_pcrs(await ask(tpm_commands.pcr_read(missing[:8])))
        if not read:
            raise ToolError("the vTPM has no SHA-256 bank", kind="vtpm-no-sha256-bank")
        values |= read
    return dict(sorted(values.items()))


async def _nv_names(ask: Ask) -> dict[str, str]:
    """Handle → name, in hex, of every NV index."""
    handles: list[int] = []
    more = True
    while more:
        after = handles[-1] + 1 if handles else tpm_commands.NV_INDICES_FROM
        found, more = tpm_commands.parse_handles(await ask(tpm_commands.nv_indices(after)))
        handles += found
        more = more and bool(found)
    return {f"{handle:#010x}": (await _nv_public(ask, handle)).name for handle in handles}


async def _nv_public(ask: Ask, index: int) -> tpm_commands.NvPublic:
    return tpm_commands.parse_nv_public(await ask(tpm_commands.nv_read_public(index)))


async def _endorsement_certificate(ask: Ask) -> bytes | None:
    index = tpm_commands.EK_CERTIFICATE_INDEX
    response = await ask(tpm_commands.nv_read_public(index))
    if tpm_commands.response_code(response) != tpm_commands.RC_SUCCESS:
        return None
    public = tpm_commands.parse_nv_public(response)
    if not public.spares_lockout:
        # A refused read would count as a guess against the guest's lockout: not ours to risk.
        return None
    certificate = b""
    while (left := public.size - len(certificate)) > 0:
        command = tpm_commands.nv_read(index, len(certificate), min(left, _NV_PIECE))
        piece = tpm_commands.parse_nv_data(await ask(command))
        if not piece:
            break
        certificate += piece
    return certificate


def _not_moved(status: wire.Status) -> IntegrityError:
    missing = [kind.label for kind in BlobType if kind.label not in status.digests]
    why = status.reason or (f"{', '.join(missing)} missing" if missing else "it was not started")
    return IntegrityError(
        f"the vTPM's state did not move whole: {why}",
        kind="vtpm-blob" if status.reason else "vtpm-missing",
        remedy="the source keeps the vTPM as it was; move again",
    )


def _gone() -> ToolError:
    return ToolError(
        "the vTPM's interposer is gone",
        kind="vtpm-gone",
        remedy="stop the VM and start it again: its TPM answers failure until then",
    )
