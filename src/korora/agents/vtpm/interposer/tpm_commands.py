"""The few TPM 2.0 commands that Korora puts to a guest's vTPM, all of which only read.

Promise: `is_allowed` admits these five commands in the one form built here and nothing else; parsers
check every length. Limit: no sessions other than the empty password, no bank but SHA-256. Source: TCG TPM
2.0, parts 2 and 3.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from korora.errors import ToolError

HEADER_BYTES = 10
MAX_MESSAGE = 1 << 16
EK_HANDLE = 0x81010001
EK_CERTIFICATE_INDEX = 0x01C00002
EK_CERTIFICATE_INDICES = range(0x01C00000, 0x01C08000)  # TCG registry of reserved handles: EK certificates
NV_INDICES_FROM = 0x01000000

RC_SUCCESS = 0
RC_INITIALIZE = 0x100  # TPM2_Startup has not come yet
RC_FAILURE = 0x101
RC_COMMAND_SIZE = 0x142
RC_BUSY = frozenset({0x908, 0x90A, 0x922})  # YIELDED, TESTING, RETRY: ask again
RC_HANDLE_1 = 0x18B  # the first handle names nothing

_NO_SESSIONS, _SESSIONS = 0x8001, 0x8002
_PCR_READ, _READ_PUBLIC, _NV_READ_PUBLIC, _NV_READ, _GET_CAPABILITY = 0x17E, 0x173, 0x169, 0x14E, 0x17A
_SHA256, _PASSWORD, _CAP_HANDLES = 0x000B, 0x40000009, 1
_EMPTY_PASSWORD = struct.pack(">IIHBH", 9, _PASSWORD, 0, 0, 0)
_NV_READ_FORM = struct.Struct(">II13sHH")
_NV_NO_DA = 1 << 25


def read_public(handle: int) -> bytes:
    return _command(_READ_PUBLIC, struct.pack(">I", handle))


def nv_read_public(index: int) -> bytes:
    return _command(_NV_READ_PUBLIC, struct.pack(">I", index))


def nv_read(index: int, offset: int, size: int) -> bytes:
    """Read with the index's own, empty authorization."""
    body = _NV_READ_FORM.pack(index, index, _EMPTY_PASSWORD, size, offset)
    return _command(_NV_READ, body, _SESSIONS)


def pcr_read(pcrs: Sequence[int]) -> bytes:
    """At most eight PCRs of the SHA-256 bank come back."""
    bits = sum(1 << pcr for pcr in pcrs)
    return _command(_PCR_READ, struct.pack(">IHB", 1, _SHA256, 3) + bits.to_bytes(3, "little"))


def nv_indices(after: int = NV_INDICES_FROM) -> bytes:
    return _command(_GET_CAPABILITY, struct.pack(">III", _CAP_HANDLES, after, 64))


def failure(code: int = RC_FAILURE) -> bytes:
    """A whole response that says only this."""
    return struct.pack(">HII", _NO_SESSIONS, HEADER_BYTES, code)


def message_size(message: bytes) -> int:
    """The size a message's header claims; 0 while the header is not there."""
    return int.from_bytes(message[2:6], "big") if len(message) >= HEADER_BYTES else 0


def is_allowed(command: bytes) -> bool:
    """True for the read-only commands above: none changes the TPM, or counts towards a dictionary attack."""
    if not HEADER_BYTES <= len(command) == message_size(command):
        return False
    tag, _, code = struct.unpack_from(">HII", command)
    body = command[HEADER_BYTES:]
    if code == _NV_READ:
        return tag == _SESSIONS and _reads_an_ek_certificate(body)
    return tag == _NO_SESSIONS and code in (_PCR_READ, _READ_PUBLIC, _NV_READ_PUBLIC, _GET_CAPABILITY)


def _reads_an_ek_certificate(body: bytes) -> bool:
    if len(body) != _NV_READ_FORM.size:
        return False
    authorization, index, session, _, _ = _NV_READ_FORM.unpack(body)
    return authorization == index and index in EK_CERTIFICATE_INDICES and session == _EMPTY_PASSWORD


@dataclass(frozen=True, slots=True)
class NvPublic:
    name: str  # hex: algorithm ‖ digest of the public area
    attributes: int
    size: int

    @property
    def spares_lockout(self) -> bool:
        """A refused read of it does not count as a guess (TPMA_NV_NO_DA)."""
        return bool(self.attributes & _NV_NO_DA)


def response_code(response: bytes) -> int:
    if len(response) < HEADER_BYTES or message_size(response) != len(response):
        raise _malformed("the header's size is wrong")
    return int.from_bytes(response[6:10], "big")


def parse_name(response: bytes) -> str:
    """The name in a TPM2_ReadPublic response, in hex."""
    reader = _Reader(response)
    reader.sized()
    return reader.sized().hex()


def parse_nv_public(response: bytes) -> NvPublic:
    reader = _Reader(response)
    public = reader.sized()
    if len(public) < 14:
        raise _malformed("the NV public area is short")
    attributes = int.from_bytes(public[6:10], "big")
    return NvPublic(reader.sized().hex(), attributes, int.from_bytes(public[-2:], "big"))


def parse_nv_data(response: bytes) -> bytes:
    reader = _Reader(response)
    reader.number(4)  # parameterSize: the response has a session area
    return reader.sized()


def parse_pcrs(response: bytes) -> dict[int, str]:
    reader = _Reader(response)
    reader.number(4)  # pcrUpdateCounter
    if reader.number(4) != 1 or reader.number(2) != _SHA256:
        raise _malformed("PCRs of another bank came back")
    selected = int.from_bytes(reader.take(reader.number(1)), "little")
    pcrs = [pcr for pcr in range(24) if selected >> pcr & 1]
    if reader.number(4) != len(pcrs):
        raise _malformed("the selection does not match the values")
    return {pcr: reader.sized().hex() for pcr in pcrs}


def parse_handles(response: bytes) -> tuple[list[int], bool]:
    """Handles, and whether there are more."""
    reader = _Reader(response)
    more, capability, count = reader.number(1), reader.number(4), reader.number(4)
    if capability != _CAP_HANDLES or count > 64:
        raise _malformed("another capability came back")
    return [reader.number(4) for _ in range(count)], bool(more)


class _Reader:
    """Big-endian fields of a successful response; ToolError past its end."""

    def __init__(self, response: bytes) -> None:
        code = response_code(response)
        if code != RC_SUCCESS:
            raise ToolError(f"the vTPM answered {code:#x}", kind="vtpm-command")
        self._rest = response[HEADER_BYTES:]

    def take(self, count: int) -> bytes:
        if count > len(self._rest):
            raise _malformed("it is cut short")
        taken, self._rest = self._rest[:count], self._rest[count:]
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def sized(self) -> bytes:
        return self.take(self.number(2))


def _command(code: int, body: bytes, tag: int = _NO_SESSIONS) -> bytes:
    return struct.pack(">HII", tag, HEADER_BYTES + len(body), code) + body


def _malformed(why: str) -> ToolError:
    return ToolError(f"the vTPM's response is malformed: {why}", kind="vtpm-response")
