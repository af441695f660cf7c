"""Read what a guest writes about its boot: frames of `KEVL`, a big-endian u32 length, and that many bytes.

The guest writes this file, so nothing in it is believed: not a length, not an end. What a frame says is
appraised against the vTPM's PCRs elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

MAGIC = b"KEVL"
_HEAD_BYTES = len(MAGIC) + 4
FRAME_LIMIT_BYTES = 2**20
FILE_LIMIT_BYTES = 16 * 2**20  # some hundred reboots; a longer file is not a boot's record any more


@dataclass(frozen=True, slots=True)
class GuestLogs:
    """The whole frames so far, oldest first, and what follows them.

    `rest` is a frame that is still being written, or the head that can begin none: then `fault` says why.
    """

    frames: tuple[bytes, ...]
    fault: str = ""
    rest: bytes = b""

    @property
    def latest(self) -> bytes | None:
        return self.frames[-1] if self.frames else None


def framed(event_log: bytes) -> bytes:
    """One event log as the guest would write it."""
    return MAGIC + len(event_log).to_bytes(4, "big") + event_log


def read_guest_logs(data: bytes) -> GuestLogs:
    """Take the file apart. A frame that is still being written is left for the next reading."""
    if len(data) > FILE_LIMIT_BYTES:
        return GuestLogs((), f"the guest wrote more than {FILE_LIMIT_BYTES} bytes of event logs")
    frames: list[bytes] = []
    at = 0
    while at < len(data):
        head = data[at : at + _HEAD_BYTES]
        if fault := _fault(head, at):
            return GuestLogs(tuple(frames), fault, head)
        end = at + _HEAD_BYTES + int.from_bytes(head[len(MAGIC) :], "big")
        if len(head) < _HEAD_BYTES or end > len(data):
            break
        frames.append(data[at + _HEAD_BYTES : end])
        at = end
    return GuestLogs(tuple(frames), rest=data[at:])


def _fault(head: bytes, at: int) -> str:
    """Why these bytes begin no frame; empty while they may."""
    if head[: len(MAGIC)] != MAGIC[: len(head)]:
        return f"the guest's event log is not framed at byte {at}"
    length = int.from_bytes(head[len(MAGIC) :], "big") if len(head) == _HEAD_BYTES else 0
    if length > FRAME_LIMIT_BYTES:
        return f"the guest's event log at byte {at} claims {length} bytes"
    return ""
